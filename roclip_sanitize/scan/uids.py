"""Uids as numbers: 32 hex digits ⇄ two 64-bit halves, so that millions of them sort and search quickly.

Also the list of those that a scan flagged; keep_list.py has the others.

Dimension key: N pairs; 2 the high and the low half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.records import Reason
from roclip_sanitize.storage import atomic_file, here

UID_RECORD = np.dtype("u8,u8")  # DataComp's: fields f0 (high half) and f1 (low half)
REASONS = tuple(Reason)


def split_uids(uids: Sequence[str]) -> NDArray[np.uint64]:
    """32-digit lower-case hex → (N, 2) uint64, high half first."""
    return np.frombuffer(bytes.fromhex("".join(uids)), ">u8").astype(np.uint64).reshape(-1, 2)


def join_uids(uid_N2: NDArray[np.uint64]) -> list[str]:
    """The inverse of split_uids()."""
    digits = uid_N2.astype(">u8").tobytes().hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


def uid_records(uids: Sequence[str]) -> NDArray[np.void]:
    """32-digit lower-case hex → (N,) in DataComp's dtype."""
    uid_N2 = split_uids(uids)
    records = np.empty(len(uid_N2), UID_RECORD)
    records["f0"], records["f1"] = uid_N2[:, 0], uid_N2[:, 1]
    return records


def join_records(records: NDArray[np.void]) -> list[str]:
    """The inverse of uid_records()."""
    return join_uids(np.stack([records["f0"], records["f1"]], axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaggedUids:
    """Which uids are flagged, and why: 17 bytes each, looked up by bisection.

    Attributes:
        records: (N,) uids in DataComp's dtype, sorted, each once.
        reason_N: uint8, the first reason as its place in REASONS.
    """

    records: NDArray[np.void]
    reason_N: NDArray[np.uint8]

    @classmethod
    def of(cls, uids: Sequence[str], reasons: Sequence[Reason]) -> FlaggedUids:
        """Sort flagged uids; where one comes twice, its first reason counts."""
        code_N = np.array([REASONS.index(reason) for reason in reasons], np.uint8)
        return cls.join([cls(records=uid_records(uids), reason_N=code_N)])

    @classmethod
    def join(cls, lists: Sequence[FlaggedUids]) -> FlaggedUids:
        """One list of several; where a uid comes twice, its first reason counts."""
        records = np.concatenate([np.empty(0, UID_RECORD), *(each.records for each in lists)])
        code_N = np.concatenate([np.empty(0, np.uint8), *(each.reason_N for each in lists)])
        records, first_N = np.unique(records, return_index=True)
        return cls(records=records, reason_N=code_N[first_N])

    @classmethod
    def read(cls, path: Path) -> FlaggedUids:
        """The inverse of write()."""
        with np.load(here(path)) as arrays:
            return cls(records=arrays["uid"], reason_N=arrays["reason"])

    def write(self, path: Path) -> None:
        """Write the list, whole or not at all."""
        with atomic_file(path) as file:
            np.savez(file, uid=self.records, reason=self.reason_N)

    def reasons(self, uids: Sequence[str]) -> list[Reason | None]:
        """Each uid's reason, None where it is not flagged."""
        if not len(self.records):
            return [None] * len(uids)
        wanted_N = uid_records(uids)
        place_N = np.minimum(np.searchsorted(self.records, wanted_N), len(self.records) - 1)
        found_N = self.records[place_N] == wanted_N
        codes = self.reason_N[place_N]
        return [REASONS[code] if found else None for found, code in zip(found_N, codes, strict=True)]
