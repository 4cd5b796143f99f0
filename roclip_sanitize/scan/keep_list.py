"""DataComp's keep-list: uids, each once, sorted, however many there are.

    uids, shard by shard ─▶ sorted runs, in a file without a name ─▶ merged block by block ─▶ keep.npy

Memory: a few megabytes, whatever the number. Disk: the list twice, until it is done.

Dimension key: N uids; 2 the high and the low half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import map_array
from roclip_sanitize.errors import DataError
from roclip_sanitize.remote import is_url
from roclip_sanitize.scan.uids import UID_RECORD, join_records
from roclip_sanitize.storage import atomic_file

RUN_UIDS = 1 << 16  # sorted at once, and merged at once: 1 MB
UID_BYTES = np.dtype("S16")  # sixteen bytes compare as the number that they are, and quickly


def write_keep_list(path: Path, batches: Iterable[Sequence[str]]) -> int:
    """Write a keep-list: each uid once, sorted, as two 64-bit halves in DataComp's dtype.

    Args:
        path: where to.
        batches: 32-digit lower-case hex uids, some at a time; read once.

    Returns:
        How many there are.

    Raises:
        StorageError: the disk is full.
    """
    count = 0
    with atomic_file(path) as file, TemporaryFile(dir=None if is_url(path) else path.parent) as spilled:
        runs = [_Run.spill(run, spilled) for run in _sorted_runs(batches)]
        _write_header(file, count)
        for block in _merged(runs):
            file.write(block.view(">u8").astype("<u8").data)
            count += len(block)
        file.seek(0)
        _write_header(file, count)  # of the same length: numpy leaves room for any number
    return count


def map_keep_list(path: Path) -> NDArray[np.void]:
    """The records of a keep-list, mapped: (N,) in DataComp's dtype, in its order.

    Raises:
        DataError: the file is no keep-list.
    """
    records = map_array(path)
    if records.dtype != UID_RECORD or records.ndim != 1:
        raise DataError(
            f"{path} is no keep-list: {records.dtype} {records.shape}, wanted (N,) of {UID_RECORD}"
        )
    return records


def read_keep_list(path: Path) -> list[str]:
    """The uids of a keep-list in its order. Memory: 100 bytes a uid. Raises as map_keep_list() does."""
    return join_records(map_keep_list(path))


def _sorted_runs(batches: Iterable[Sequence[str]]) -> Iterator[NDArray[np.bytes_]]:
    held, count = list[NDArray[np.bytes_]](), 0
    for uids in batches:
        held.append(np.frombuffer(bytes.fromhex("".join(uids)), UID_BYTES))
        count += len(uids)
        if count >= RUN_UIDS:
            yield _distinct(held)
            held, count = [], 0
    if held:
        yield _distinct(held)


def _distinct(some: Sequence[NDArray[np.bytes_]]) -> NDArray[np.bytes_]:
    """Sorted, each once."""
    ordered = np.concatenate(some)
    ordered.sort()
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered if first.all() else ordered[first]


class _Run:
    """A sorted run in a file, read from its beginning to its end, a block at a time.

    Attributes:
        held: what was read and not yet taken.
    """

    def __init__(self, file: IO[bytes], start: int, end: int) -> None:
        self._file, self._place, self._end = file, start, end
        self.held = np.empty(0, UID_BYTES)

    @classmethod
    def spill(cls, run: NDArray[np.bytes_], file: IO[bytes]) -> _Run:
        """Append a run to a file."""
        start = file.tell()
        file.write(run.data)
        return cls(file, start, file.tell())

    @property
    def more(self) -> bool:
        """Whether there is more in the file than what is held."""
        return self._place < self._end

    def fill(self, uids: int) -> None:
        """Hold so many, or all that are left."""
        self._file.seek(self._place)
        wanted = UID_BYTES.itemsize * max(0, uids - len(self.held))
        data = self._file.read(min(wanted, self._end - self._place))
        self._place += len(data)
        self.held = np.concatenate([self.held, np.frombuffer(data, UID_BYTES)])

    def take(self, bound: bytes | None) -> NDArray[np.bytes_]:
        """What is held up to a uid, itself included; without one, all."""
        count = len(self.held) if bound is None else int(np.searchsorted(self.held, bound, side="right"))
        taken, self.held = self.held[:count], self.held[count:]
        return taken


def _merged(runs: Sequence[_Run]) -> Iterator[NDArray[np.bytes_]]:
    """Blocks of all runs together, ascending. None of a block's uids can still come from a file."""
    block = max(1, RUN_UIDS // max(1, len(runs)))
    while runs := [run for run in runs if run.more or len(run.held)]:
        for run in runs:
            run.fill(block)
        bound = min((bytes(run.held[-1]) for run in runs if run.more), default=None)
        yield _distinct([run.take(bound) for run in runs])


def _write_header(file: IO[bytes], count: int) -> None:
    descr = np.lib.format.dtype_to_descr(UID_RECORD)
    header = {"descr": descr, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
