"""Which pairs a rewriting sets aside, and why: those that a scan flagged, and what lists from elsewhere say.

    flagged.npz     first reason of each uid that the scan flags, wherever it is
    dropped.npy     uids on lists of pairs to drop
    only.npy        uids on lists of the only pairs to keep

A scan's reason goes before that of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from roclip_sanitize.errors import DataError
from roclip_sanitize.records import Reason
from roclip_sanitize.runfiles import sha256_of
from roclip_sanitize.scan.results import verdict_tables
from roclip_sanitize.scan.uid_lists import UidList, sort_uid_lists
from roclip_sanitize.scan.uids import FlaggedUids
from roclip_sanitize.storage import exists

FLAGGED_FILE, DROPPED_FILE, ONLY_FILE = "flagged.npz", "dropped.npy", "only.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Lists of uids that others made; see uid_lists.py for what they may look like.

    Attributes:
        drop: pairs on any of them are set aside.
        only: pairs on none of them are set aside; no list means no such condition.
    """

    drop: tuple[Path, ...] = ()
    only: tuple[Path, ...] = ()

    @property
    def paths(self) -> list[str]:
        """Where they lie."""
        return [str(path) for path in (*self.drop, *self.only)]

    def hashes(self) -> dict[str, dict[str, str]]:
        """What names their contents: sha256 by path, of either kind; JSON-able.

        Raises:
            DataError: one cannot be read.
        """
        return {name: {str(path): _sha256(path) for path in paths} for name, paths in asdict(self).items()}


class Decisions:
    """Why each uid is set aside. Memory: 17 bytes per uid that the scan flags; lists are mapped."""

    def __init__(
        self, flagged: FlaggedUids, *, dropped: UidList | None = None, only: UidList | None = None
    ) -> None:
        self._flagged, self._dropped, self._only = flagged, dropped, only

    @classmethod
    def open(cls, folder: Path) -> Decisions:
        """Those that write_decisions() left."""
        dropped, only = (
            UidList(folder / name) if exists(folder / name) else None for name in (DROPPED_FILE, ONLY_FILE)
        )
        return cls(FlaggedUids.read(folder / FLAGGED_FILE), dropped=dropped, only=only)

    def reasons(self, uids: Sequence[str]) -> list[Reason | None]:
        """Each uid's reason, None where it is kept."""
        reasons = self._flagged.reasons(uids)
        for reason, listed in self._by_lists(uids):
            reasons = [own or (reason if hit else None) for own, hit in zip(reasons, listed, strict=True)]
        return reasons

    def _by_lists(self, uids: Sequence[str]) -> Iterator[tuple[Reason, Sequence[bool]]]:
        if self._dropped is not None:
            yield Reason.LISTED, self._dropped.holds(uids).tolist()
        if self._only is not None:
            yield Reason.NOT_LISTED, (~self._only.holds(uids)).tolist()


def write_decisions(scan: Path, lists: Lists, folder: Path) -> list[Path]:
    """Bring a scan's flags, and lists, into files that workers look uids up in.

    Returns:
        The files.

    Raises:
        DataError: a list is missing, or holds anything but uids.
        StorageError: the disk is full.
    """
    files = [folder / FLAGGED_FILE]
    flagged_uids(scan).write(files[0])
    for name, paths in ((DROPPED_FILE, lists.drop), (ONLY_FILE, lists.only)):
        if paths:
            sort_uid_lists(paths, folder / name)
            files.append(folder / name)
    return files


def flagged_uids(scan: Path) -> FlaggedUids:
    """What a scan sets aside: the first reason of each uid, wherever it is. Memory: 17 bytes each."""
    flagged = []
    for verdicts in verdict_tables(scan, ("uid", "kept", "reasons")):
        bad = verdicts.filter(~verdicts["kept"])
        reasons = [Reason(text.partition(";")[0]) for text in bad["reasons"]]
        flagged.append(FlaggedUids.of(bad["uid"].to_list(), reasons))
    return FlaggedUids.join(flagged)


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
