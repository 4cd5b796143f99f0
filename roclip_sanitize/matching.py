"""The nearest pairs of every pair, in either modality or across both. The ``match`` stage.

    vectors of a store ─▶ an index, of the same store or another ─▶ a table of uids and cosines

Pictures or captions ask, and the index answers with its own: image → image, caption → caption,
image → caption, caption → image; across modalities that takes a CLIP. pairing.py asks in the same way.

    matches/matches_00000.parquet     K rows or fewer per pair of the store part, see MATCH_SCHEMA
    done/00000.json                   rows, how many pairs found a match, tally, seconds of each step

Dimension key: N pairs of a store part, K neighbours, P pairs of the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import indexed_rows, inspect_index, open_index
from roclip_sanitize.index_plan import contents_of
from roclip_sanitize.limits import WORK_KEY, Laps, Limits, Work
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.store import MODALITIES, EmbeddingStore, Modality, StorePart, write_parquet

if TYPE_CHECKING:
    import polars

Exclusion = Literal["uid", "image", "caption"]
MATCH_STAGE = "match"
STEPS = ("pool", "image search", "text search", "write", "hash")
QUERIES_AT_ONCE = 4_096
PARTS_AT_ONCE = 64  # parts matched before any is written: what a kill can cost
MATCH_SCHEMA: dict[str, Any] = {
    "uid": str,
    "rank": int,  # 1 for the nearest
    "match_uid": str,
    "cosine": float,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSettings:
    """Who asks whom.

    Attributes:
        store: whose pairs ask.
        index: who answers: an index of that store, or of another by the same model.
        asks: which of the pairs' vectors ask; the index says which answer.
        k: neighbours wanted of each pair.
        exclude: what a neighbour must not share with the pair: "uid" (be the pair itself), "image"
            (the same picture, byte for byte), "caption" (the same words, normalised).
        max_cosine: never answer with what is closer than this.
    """

    store: Path
    index: Path
    asks: Modality = "image"
    k: int = 10
    exclude: tuple[Exclusion, ...] = ("uid",)
    max_cosine: float | None = None

    def __post_init__(self) -> None:
        if self.asks not in MODALITIES:
            raise ConfigError(f"asks is {self.asks!r}, wanted one of {', '.join(MODALITIES)}")
        if self.k < 1:
            raise ConfigError(f"k is {self.k}, wanted 1 or more neighbours")
        if unknown := [name for name in self.exclude if name not in get_args(Exclusion)]:
            raise ConfigError(f"exclude names {unknown[0]!r}, wanted any of {', '.join(get_args(Exclusion))}")

    @property
    def question(self) -> Question:
        """What each part is asked."""
        return Question(
            modality=self.asks, index=self.index, k=self.k, exclude=self.exclude, max_cosine=self.max_cosine
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The neighbours of one part's pairs, and what finding them cost."""

    found: Neighbours
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which vectors ask which index; see MatchSettings."""

    modality: Modality
    index: Path
    k: int = 1
    exclude: tuple[Exclusion, ...] = ("uid", "image")
    max_cosine: float | None = None

    def ask(self, store: EmbeddingStore, parts: Sequence[StorePart], executor: Executor) -> list[Matches]:
        """One answer per part. All workers search side by side, so that each second costs one of every."""
        laps = Laps()
        with open_index(self.index, executor) as index:
            answers = index.search(task for part in parts for task in self._tasks(store, part))
            return [self._collect(answers, part, laps, workers=executor.size) for part in parts]

    def _tasks(self, store: EmbeddingStore, part: StorePart) -> Iterator[SearchTask]:
        for start in range(0, part.rows, QUERIES_AT_ONCE):
            yield SearchTask(
                store=store.path,
                part=part.name,
                modality=self.modality,
                start=start,
                stop=min(start + QUERIES_AT_ONCE, part.rows),
                k=self.k,
                exclude_self="uid" in self.exclude,
                exclude_hash="image" in self.exclude,
                exclude_caption="caption" in self.exclude,
                max_cosine=self.max_cosine,
            )

    def _collect(
        self, answers: Iterator[Neighbours], part: StorePart, laps: Laps, *, workers: int
    ) -> Matches:
        own = list(islice(answers, -(-part.rows // QUERIES_AT_ONCE))) or [Neighbours.none(0, self.k)]
        laps.lap(f"{self.modality} search")
        found = Neighbours(
            rows_NK=np.concatenate([answer.rows_NK for answer in own]),
            cosine_NK=np.concatenate([answer.cosine_NK for answer in own]),
        )
        return Matches(found=found, work=laps.work(0, workers=workers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Who can be found.

    Attributes:
        row_P: store rows, ascending.
        names: the columns asked for, and a last row of "" for none.
    """

    row_P: NDArray[np.int64]
    names: polars.DataFrame

    @classmethod
    def read(cls, index: Path, columns: Sequence[str]) -> Pool:
        """The rows of an index, named by metadata of the store that it was built from."""
        import polars

        store, row_P = EmbeddingStore.open(Path(inspect_index(index)["store"])), indexed_rows(index)
        names = [polars.DataFrame(schema=dict.fromkeys(columns, polars.String))]
        for part in store.parts:
            first, last = np.searchsorted(row_P, (part.start, part.start + part.rows))
            names.append(store.metadata(part.name, list(columns))[row_P[first:last] - part.start])
        none = polars.DataFrame({column: [""] for column in columns})
        return cls(row_P=row_P, names=polars.concat([*names, none]))

    def of(self, row_N: NDArray[np.int64]) -> polars.DataFrame:
        """The names of some rows; "" for -1."""
        return self.names[np.where(row_N < 0, len(self.row_P), np.searchsorted(self.row_P, row_N))]


def match_store(settings: MatchSettings, *, out: Path, executor: Executor) -> Tally:
    """Write the nearest pairs of every pair of a store, a table per store part.

    Args:
        settings: who asks whom.
        out: folder for the tables. Parts already there are not matched again.
        executor: where the index is searched.

    Returns:
        What became of the pairs; all are kept.

    Raises:
        ConfigError: "uid" is excluded, and the index is of another store.
        DataError: a folder does not exist.
        MismatchError: store and index come from two models, lack a common space, or ``out`` was made
            with other settings, or of what they held before.

    Memory here: uids of the index's pairs.
    """
    store, question = EmbeddingStore.open(settings.store), settings.question
    folder = StageFolder.create(
        out,
        stage=MATCH_STAGE,
        settings={
            "store": str(settings.store),
            "model": store.model,
            "index": str(settings.index),
            "asks": settings.asks,
            "k": settings.k,
            "exclude": sorted(settings.exclude),
            "max_cosine": settings.max_cosine,
            **contents_of(out, settings.store, [settings.index]),
        },
    )
    missing = [part for part in store.parts if folder.marker(part.name) is None]
    laps = Laps()
    pool = Pool.read(settings.index, ["uid"]) if missing else None
    laps.lap("pool")
    for first in range(0, len(missing), PARTS_AT_ONCE):
        parts = missing[first : first + PARTS_AT_ONCE]
        answers = question.ask(store, parts, executor)
        laps.start()
        for part, matches in zip(parts, answers, strict=True):
            assert pool is not None
            _write_part(folder, store, part, matches=matches, pool=pool, laps=laps, workers=executor.size)
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    folder.finish({"tally": tally.to_json()})
    return tally


def match_limits(out: Path) -> Limits:
    """What bounded a matching, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=STEPS)


def read_matches(out: Path) -> polars.DataFrame:
    """The whole table, in the row order of the store, nearest first: columns of MATCH_SCHEMA.

    Raises: as match_tables().
    """
    import polars

    return polars.concat([polars.DataFrame(schema=MATCH_SCHEMA), *match_tables(out)])


def match_tables(out: Path) -> Iterator[polars.DataFrame]:
    """The same part by part. Memory: one part's table.

    Raises:
        DataError: there is none.
        MismatchError: it is unfinished.
    """
    for marker in StageFolder.open(out, stage=MATCH_STAGE).markers():
        yield read_table(matches_file(out, marker.name))


def matches_file(out: Path, name: str) -> Path:
    """Where one part's table lies."""
    return out / "matches" / f"matches_{name}.parquet"


def _write_part(
    folder: StageFolder,
    store: EmbeddingStore,
    part: StorePart,
    *,
    matches: Matches,
    pool: Pool,
    laps: Laps,
    workers: int,
) -> Marker:
    import polars

    rows_NK = matches.found.rows_NK
    place_M, rank_M = np.nonzero(rows_NK >= 0)  # row by row, nearest first
    frame = polars.DataFrame(
        {
            "uid": store.metadata(part.name, ["uid"])["uid"][place_M],
            "rank": rank_M + 1,
            "match_uid": pool.of(rows_NK[place_M, rank_M])["uid"],
            "cosine": matches.found.cosine_NK[place_M, rank_M],
        },
        schema=MATCH_SCHEMA,
    )
    path = matches_file(folder.path, part.name)
    write_parquet(path, frame)
    laps.lap("write")
    work = Work.total([laps.work(part.rows, workers=workers), matches.work])
    matched = int((rows_NK >= 0).any(axis=1).sum())
    return commit_part(folder, part, path, matched=matched, work=work, laps=laps)


def commit_part(
    folder: StageFolder, part: StorePart, path: Path, *, matched: int, work: Work, laps: Laps
) -> Marker:
    """Declare a part's table done: how many of its rows were matched, and what that took."""
    facts = {
        "rows": part.rows,
        "tally": Tally(seen=part.rows, seconds=work.wall).to_json(),
        "matched": matched,
        WORK_KEY: work.to_json(),
    }
    marker = folder.commit(part.name, files=[path], facts=facts)
    laps.lap("hash")
    return marker
