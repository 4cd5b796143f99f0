"""A scan as a data set that FiftyOne opens: pictures, captions, verdicts and scores, to be looked through.

    data/00000/000012.jpg       a picture of part 00000, row 12, byte for byte as in its shard
    parts/samples_00000.jsonl   what is told of one part's pairs, a line of JSON each
    samples.json                all of them; pictures by paths from here, so that the folder may be moved
    metadata.json               their fields, each with its type and what it means

    fiftyone.Dataset.from_dir(dataset_dir=OUT, dataset_type=fiftyone.types.FiftyOneDataset)

In it are the most suspicious of the pairs that were set aside, and a random sample of all pairs, which says
what the scan took for ordinary. Fields are named as in the scan's tables; a sample's tags are ``kept`` or
``quarantined``, the reasons, and ``drawn`` if it is one of the random ones. No stranger's text names a file.

FiftyOne is not needed to write this.

Dimension key: N pairs, M of them exported.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.planted import require_planted
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.fiftyone_format import dataset_document, sample_of
from roclip_sanitize.images import picture_suffix
from roclip_sanitize.limits import WORK_KEY, Laps, Limits
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder, write_json
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.results import score_tables, verdict_tables
from roclip_sanitize.scan.settings import scanned_store
from roclip_sanitize.scoring.reference import drawn_rows
from roclip_sanitize.shards import Shard
from roclip_sanitize.sources import source_path
from roclip_sanitize.splitting import KnownPair
from roclip_sanitize.storage import atomic_file, here
from roclip_sanitize.store import EmbeddingStore, StorePart
from roclip_sanitize.whereabouts import store_of

SAMPLES_FILE, METADATA_FILE = "samples.json", "metadata.json"
STEPS = ("look up", "copy", "write")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What to export.

    Attributes:
        scan: a finished scan, whose store and shards are there.
        most: so many of the pairs that were set aside, the most suspicious first.
        drawn: and so many of all pairs, at random.
        seed: of the draw.
        ledger: a poison folder whose shards were scanned: poisons say which attack they are of.
    """

    scan: Path
    most: int = 10_000
    drawn: int = 1_000
    seed: int = 0
    ledger: Path | None = None

    def __post_init__(self) -> None:
        for name in ("most", "drawn"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 0 or more")

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the bytes.

        Raises:
            DataError: there is no such scan, or no such ledger.
            MismatchError: one of them is unfinished.
        """
        told = {"scan": str(self.scan), "most": self.most, "drawn": self.drawn, "seed": self.seed}
        told["content"] = StageFolder.open(self.scan, stage="scan").content
        if self.ledger is not None:
            told["ledger"] = str(self.ledger)
            told["ledger_content"] = StageFolder.open(self.ledger, stage="poison").content
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask:
    """One part's pairs to export.

    Attributes:
        part: of the store.
        shard: that it was made from.
        row_M: their rows in the part, ascending.
        drawn_M: which of them are random ones.
    """

    part: StorePart
    shard: str
    row_M: NDArray[np.int64]
    drawn_M: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """The part's."""
        return self.part.name


def export_scan(settings: ExportSettings, *, out: Path, executor: Executor) -> Tally:
    """Write the data set.

    Returns:
        Of the pairs that are in it: seen, and quarantined by their first reason.

    Raises:
        DataError: there is no scan, or its store is gone.
        MismatchError: it is unfinished, ``out`` was made with other settings, the store or a shard has
            changed since, or the ledger is of other shards than were scanned.
        ShardMissing: a shard is gone.
        StorageError: the disk is full.

    Memory: of the driver 12 bytes a pair; of a worker one part's tables, and one picture.
    """
    told = settings.to_json()
    store = scanned_store(StageFolder.open(settings.scan, stage="scan"))
    if settings.ledger is not None:
        require_planted(store, Ledger.open(settings.ledger))
    folder = StageFolder.create(out, stage="export", settings=told)
    if folder.finished:
        return Tally.from_json(folder.facts["tally"])
    tasks = [task for task in _tasks(settings, store) if folder.marker(task.name) is None]
    for _ in executor.map(partial(ExportWorker, settings, out), tasks):
        pass
    with atomic_file(out / SAMPLES_FILE) as file:
        file.write(b'{"samples": [')
        for number, line in enumerate(_lines(folder)):
            file.write((b",\n" if number else b"\n") + line)
        file.write(b"\n]}\n")
    write_json(out / METADATA_FILE, dataset_document())
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in _parts(folder))
    folder.commit("joined", files=[out / SAMPLES_FILE, out / METADATA_FILE], facts={})
    folder.finish({"tally": tally.to_json()})
    return tally


def export_limits(out: Path) -> Limits:
    """What bounded an export, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=STEPS)


class ExportWorker:
    """Exports pairs of one part after the other."""

    def __init__(self, settings: ExportSettings, out: Path) -> None:
        self._scan, self._folder = settings.scan, StageFolder(out)
        self._store = EmbeddingStore.open(store_of(StageFolder.open(settings.scan, stage="scan")))
        self._attacks: Mapping[str, str] = (
            Ledger.open(settings.ledger).poisons if settings.ledger is not None else {}
        )

    def __call__(self, task: ExportTask) -> Marker:
        """Export one part's."""
        laps = Laps()
        rows = self._rows(task)
        laps.lap("look up")
        pictures = self._copy(task, rows)
        laps.lap("copy")
        path = _part_file(self._folder.path, task.name)
        with atomic_file(path) as file:
            for row, picture in zip(rows, pictures, strict=True):
                pair = {**row, "attack": self._attacks.get(row["uid"])}
                filepath = str(picture.relative_to(self._folder.path))
                told = sample_of(pair, filepath=filepath, drawn=row["drawn"])
                file.write(json.dumps(told, allow_nan=False).encode() + b"\n")
        laps.lap("write")
        reasons = Counter(row["reasons"].split(";")[0] for row in rows if not row["kept"])
        tally = Tally(seen=len(rows), quarantined=reasons)
        facts = {"tally": tally.to_json(), WORK_KEY: laps.work(len(rows)).to_json()}
        return self._folder.commit(task.name, files=[*pictures, path], facts=facts)

    def _rows(self, task: ExportTask) -> list[dict[str, Any]]:
        """The tables' rows, put together."""
        import polars

        scores, verdicts = (
            read_table(table_file(self._scan, what, task.name))[task.row_M] for what in ("scores", "verdicts")
        )
        captions = self._store.metadata(task.name, ("caption", "image_hash"))[task.row_M]
        joined = polars.concat(
            [scores, verdicts.select("kept", "reasons", "sentence"), captions], how="horizontal"
        )
        marked = joined.with_columns(drawn=task.drawn_M, row=task.row_M)
        return list(marked.iter_rows(named=True))

    def _copy(self, task: ExportTask, rows: list[dict[str, Any]]) -> list[Path]:
        """Copy the rows' pictures from the shard. Returns their files, in the order of the rows.

        Raises:
            MismatchError: the shard has not all of them, or one with another picture or caption.
        """
        wanted = {row["key"]: row for row in rows}
        found = dict[str, Path]()
        with Shard(source_path(task.shard)) as shard:
            for pair in shard.pairs() if wanted else ():
                row = wanted.get(pair.key)
                if row is None or pair.uid != row["uid"]:
                    continue
                known = KnownPair(uid=row["uid"], caption=row["caption"], image_hash=row["image_hash"])
                known.require_same(pair, shard=shard.path)
                name = f"{row['row']:06d}.{picture_suffix(pair.image)}"
                found[pair.key] = self._folder.path / "data" / task.name / name
                with atomic_file(found[pair.key]) as file:
                    file.write(pair.image)
        if missing := [row["uid"] for row in rows if row["key"] not in found]:
            raise MismatchError(
                f"{task.shard} has no pair {missing[0]} as {self._store.path} knows it: it has changed since"
            )
        return [found[row["key"]] for row in rows]


def _part_file(out: Path, part: str) -> Path:
    return out / "parts" / f"samples_{part}.jsonl"


def _lines(folder: StageFolder) -> Iterator[bytes]:
    """What is told of each pair, part after part."""
    for marker in _parts(folder):
        with open(here(_part_file(folder.path, marker.name)), "rb") as file:
            for line in file:
                yield line.rstrip(b"\n")


def _parts(folder: StageFolder) -> list[Marker]:
    return [marker for marker in folder.markers() if "tally" in marker.facts]


def _tasks(settings: ExportSettings, store: EmbeddingStore) -> Iterator[ExportTask]:
    """Which rows of each part are exported; parts without any are left out."""
    worst_N = _worst(settings)
    drawn_N = np.zeros(store.rows, np.bool_)
    if settings.drawn:
        drawn_N[drawn_rows(store, count=settings.drawn, seed=settings.seed)] = True
    for part, shard in zip(store.parts, store.shards, strict=True):
        block = slice(part.start, part.start + part.rows)
        row_M = np.flatnonzero(worst_N[block] | drawn_N[block])
        if len(row_M):
            yield ExportTask(part=part, shard=shard, row_M=row_M, drawn_M=drawn_N[block][row_M])


def _worst(settings: ExportSettings) -> NDArray[np.bool_]:
    """Which of the pairs that were set aside are exported: (N,) bool. Equal suspicions rank by row."""
    kept = [table["kept"].to_numpy() for table in verdict_tables(settings.scan, ("kept",))]
    aside_N = ~np.concatenate([np.empty(0, np.bool_), *kept])
    scores = [table["suspicion"].to_numpy() for table in score_tables(settings.scan, ("suspicion",))]
    suspicion_N = np.concatenate([np.empty(0, np.float32), *scores])
    row_A = np.flatnonzero(aside_N)
    worst_N = np.zeros(len(aside_N), np.bool_)
    worst_N[row_A[np.argsort(-suspicion_N[row_A], kind="stable")[: settings.most]]] = True
    return worst_N
