"""Lists of uids that somebody else made: pairs to drop, or the only ones to keep.

    .npy            a keep-list as DataComp has it: (N,) of "u8,u8", in any order
    .parquet        a table with a column "uid"
    anything else   text, a uid a line, as tools that remove duplicates leave it; a first line "uid",
                    empty lines and byte order marks count for nothing

Whatever their size and number, they become one sorted keep-list, in which uids are looked up by bisection.

Dimension key: N uids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import DataError
from roclip_sanitize.records import UID_DIGITS, is_uid
from roclip_sanitize.remote import file_name
from roclip_sanitize.scan.keep_list import map_keep_list, write_keep_list
from roclip_sanitize.scan.uids import join_records, uid_records
from roclip_sanitize.storage import here

BATCH_UIDS = 1 << 16
LONGEST_LINE = 1 << 10  # a uid has 32 digits: a file without line ends is no list


class UidList:
    """Uids in a sorted keep-list, which is mapped: none of them is held."""

    def __init__(self, path: Path) -> None:
        self._records = map_keep_list(path)

    def holds(self, uids: Sequence[str]) -> NDArray[np.bool_]:
        """Which of some uids are in it: (N,) bool."""
        wanted_N = uid_records(uids)
        if not len(self._records):
            return np.zeros(len(wanted_N), np.bool_)
        place_N = np.minimum(np.searchsorted(self._records, wanted_N), len(self._records) - 1)
        found_N: NDArray[np.bool_] = self._records[place_N] == wanted_N
        return found_N


def sort_uid_lists(paths: Sequence[Path], out: Path) -> int:
    """Make one sorted keep-list of some lists.

    Returns:
        How many uids it has, each counted once.

    Raises:
        DataError: a list is missing, or holds anything but uids.
        StorageError: the disk is full.

    Memory: a few megabytes, and one .parquet's uids.
    """
    return write_keep_list(out, (uids for path in paths for uids in read_uids(path)))


def read_uids(path: Path) -> Iterator[list[str]]:
    """The uids of a list in its order, some at a time. Raises DataError as sort_uid_lists() does."""
    name = file_name(path)
    if name.endswith(".npy"):
        records = map_keep_list(path)
        for start in range(0, len(records), BATCH_UIDS):
            yield join_records(records[start : start + BATCH_UIDS])
    elif name.endswith(".parquet"):
        column = read_table(path, columns=["uid"])["uid"]
        for start in range(0, len(column), BATCH_UIDS):
            found = column[start : start + BATCH_UIDS].to_list()
            yield [_uid(value, f"{path}, row {start + place}") for place, value in enumerate(found)]
    else:
        yield from _in_text(path)


def _in_text(path: Path) -> Iterator[list[str]]:
    batch = list[str]()
    try:
        with here(path).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                text = line.decode("utf-8-sig", "replace").strip()
                if text and (number, text) != (1, "uid"):
                    batch.append(_uid(text, f"{path}, line {number}"))
                if len(batch) == BATCH_UIDS:
                    yield batch
                    batch = []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    yield batch


def _uid(value: object, where: str) -> str:
    if not is_uid(value):
        shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}…"
        raise DataError(f"{where}: {shown} is no uid, wanted {UID_DIGITS} lower-case hex digits")
    return str(value)
