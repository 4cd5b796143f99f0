"""Who is in the shards: the first pass of poisoning.

    shards ─▶ CensusTaker ─▶ census/train_00000.parquet … ─▶ Census ─▶ attacks

Attacks choose pairs by label and take captions from others, so they need an overview that
shards do not give. Rows are usable pairs, numbered through all shards in order. In memory a
census costs four bytes a pair; names and captions stay on disk until asked for.

Dimension key: N usable pairs of all shards, L labels, Q pairs asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize import images
from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import BadPair
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shards import Pair, Shard, shard_tasks
from roclip_sanitize.store import write_parquet

if TYPE_CHECKING:
    import polars

CENSUS_STAGE = "poison-census"
CENSUS_SCHEMA: dict[str, Any] = {"uid": str, "key": str, "label": str, "caption": str, "image_hash": str}
UNLABELLED = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusTask:
    """One shard to list.

    Attributes:
        name: its name in the census, such as ``train_00000``.
        path: where it lies.
        decode: whether to leave out pairs whose picture does not decode. Worth its time only
            where any pair may be drawn as a target.
    """

    name: str
    path: Path
    decode: bool


def census_tasks(split: str, shards: Sequence[Path], *, decode: bool = False) -> list[CensusTask]:
    """The tasks of one split, "train" or "test"."""
    return [CensusTask(name=f"{split}_{t.name}", path=t.path, decode=decode) for t in shard_tasks(shards)]


class CensusTaker:
    """Worker: lists one shard's usable pairs."""

    def __init__(self, *, folder: Path, label: str) -> None:
        self._folder = StageFolder(folder)
        self._label = label

    def __call__(self, task: CensusTask) -> None:
        """List the pairs of one shard and declare it done."""
        import polars

        started = time.perf_counter()
        rows, undecodable = list[dict[str, str]](), 0
        with Shard(task.path) as shard:
            for pair in shard.pairs():
                if task.decode and not _decodes(pair):
                    undecodable += 1
                else:
                    rows.append(self._row(pair))
            left_out = len(shard.failures) + undecodable
        path = _census_file(self._folder.path, task.name)
        write_parquet(path, polars.DataFrame(rows, schema=CENSUS_SCHEMA))
        facts = {"rows": len(rows), "left_out": left_out, "seconds": round(time.perf_counter() - started, 3)}
        self._folder.commit(task.name, files=[path], facts=facts)

    def _row(self, pair: Pair) -> dict[str, str]:
        label = pair.fields.get(self._label)
        return {
            "uid": pair.uid,
            "key": pair.key,
            "label": UNLABELLED if label is None else str(label),
            "caption": pair.caption,
            "image_hash": pair.image_hash,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusEntry:
    """One pair of the census.

    Attributes:
        shard: ordinal of its shard, five digits or more.
        row: its number among the shard's usable pairs.
        uid: its name.
        key: its key in the shard.
        label: its class, or "".
        caption: its text.
        image_hash: 128-bit hash of its encoded picture.
    """

    shard: str
    row: int
    uid: str
    key: str
    label: str
    caption: str
    image_hash: str


class Census:
    """The usable pairs of some shards, open for reading.

    Attributes:
        starts: int64, number of each shard's first row, and N behind the last.
    """

    def __init__(self, folder: Path, tasks: Sequence[CensusTask]) -> None:
        self._files = [_census_file(folder, task.name) for task in tasks]
        self._shards = [task.name.rpartition("_")[2] for task in tasks]
        code_of: dict[str, int] = {}
        codes = [np.empty(0, np.int32)]
        for part in range(len(tasks)):
            labels = self._read(part, ["label"])["label"].to_list()
            codes.append(np.array([code_of.setdefault(label, len(code_of)) for label in labels], np.int32))
        self._code_of = code_of
        self._code_N = np.concatenate(codes)
        self.starts = np.cumsum([len(part) for part in codes])

    @property
    def size(self) -> int:
        """Pairs in all shards, N."""
        return len(self._code_N)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Labels and how many pairs have them, commonest first, equals by name; "" is left out."""
        count_L = np.bincount(self._code_N, minlength=len(self._code_of)).tolist()
        counted = [(label, count_L[code]) for label, code in self._code_of.items() if label != UNLABELLED]
        return dict(sorted(counted, key=lambda labelled: (-labelled[1], labelled[0])))

    def has_label(self, label: str) -> NDArray[np.bool_]:
        """Which of the N pairs have this label; "" asks for those without one."""
        mask_N: NDArray[np.bool_] = self._code_N == self._code_of.get(label, -1)
        return mask_N

    def places(self, rows: Iterable[int]) -> list[tuple[str, int]]:
        """Shard and row in the shard of each pair, from memory."""
        row_Q = np.fromiter(rows, np.int64)
        part_Q = np.searchsorted(self.starts, row_Q, side="right") - 1
        offset_Q = row_Q - self.starts[part_Q]
        return [(self._shards[part], int(offset)) for part, offset in zip(part_Q, offset_Q, strict=True)]

    def row_at(self, shard: str, row: int) -> int:
        """The inverse of places(): a pair's number through all shards."""
        return int(self.starts[self._shards.index(shard)]) + row

    def entries(self, rows: Iterable[int]) -> list[CensusEntry]:
        """Look up some pairs, in the order asked for. Reads only the lists of their shards."""
        places = self.places(rows)
        wanted: dict[str, list[int]] = {}
        for shard, row in places:
            wanted.setdefault(shard, []).append(row)
        found: dict[tuple[str, int], CensusEntry] = {}
        for shard, its_rows in wanted.items():
            frame = self._read(self._shards.index(shard), list(CENSUS_SCHEMA))[its_rows]
            for row, values in zip(its_rows, frame.iter_rows(named=True), strict=True):
                found[shard, row] = CensusEntry(shard=shard, row=row, **values)
        return [found[place] for place in places]

    def image_hashes(self) -> Iterator[list[str]]:
        """Hashes of the encoded pictures, shard by shard."""
        for part in range(len(self._files)):
            yield self._read(part, ["image_hash"])["image_hash"].to_list()

    def _read(self, part: int, columns: list[str]) -> polars.DataFrame:
        return read_table(self._files[part], columns=columns)


def _census_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"


def _decodes(pair: Pair) -> bool:
    try:
        images.decode_image(pair.image)
    except BadPair:
        return False
    return True
