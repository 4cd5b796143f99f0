"""Embedding store of a CLIP → what published detectors say of every pair: the ``score`` stage.

scores/scores_00000.parquet   uid, key, shard, and a column of each detector
worst.npy                     uids of the worst share by one of them, if that was asked for
done/00000.json               rows; written last
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import WORK_KEY, Laps, Limits
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.cross_files import one_thread
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.scoring.changed import Changed
from roclip_sanitize.scoring.contract import MakeDetector, Pairs
from roclip_sanitize.scoring.density import Density
from roclip_sanitize.scoring.mismatch import ClipScore, RematchRank, Risk
from roclip_sanitize.scoring.reference import drawn_rows, read_rows
from roclip_sanitize.store import MODALITIES, EmbeddingStore, StorePart, write_parquet

DETECTORS: dict[str, MakeDetector] = {
    "kdistance": partial(Density, "kdistance"),
    "slof": partial(Density, "slof"),
    "lid": partial(Density, "lid"),
    "dao": partial(Density, "dao"),
    "clip_score": ClipScore,
    "rematch_rank": RematchRank,
    "risk": Risk,
}
CHANGED = "changed"
KNOWN = (*DETECTORS, CHANGED)
BLOCK_PAIRS = 1_024
WORST_FILE = "worst.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """What to score, by what.

    Attributes:
        store: an embedding store of a CLIP, with both towers.
        detectors: of KNOWN.
        reference: pairs that others are held against.
        neighbours: of these, how many count as near. Poisons of one kind are found by density as long as they
            are less than neighbours / reference of all pairs.
        seed: of the reference pairs.
        worst: share of the pairs to list in worst.npy; 0 lists none.
        worst_above: instead of a share, the score above which pairs are listed.
        worst_by: by which detector.
        expected: embedding store of the same shards, made before by the same encoder: for ``changed``.
    """

    store: Path
    detectors: tuple[str, ...] = ("slof", "clip_score")
    reference: int = 4_096
    neighbours: int = 16
    seed: int = 0
    worst: float = 0.0
    worst_by: str = ""
    worst_above: float | None = None
    expected: Path | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in (*self.detectors, self.by) if name not in KNOWN]:
            raise ConfigError(f"no detector {unknown[0]!r}: known are {', '.join(KNOWN)}")
        if len(set(self.detectors)) < len(self.detectors):
            raise ConfigError(f"a detector is named twice in {','.join(self.detectors)}")
        if not 1 <= self.neighbours < self.reference:
            raise ConfigError(
                f"neighbours is {self.neighbours}, wanted 1 or more, fewer than reference ({self.reference})"
            )
        if not 0 <= self.worst <= 1:
            raise ConfigError(f"worst is {self.worst}, wanted a share from 0 to 1")
        if self.worst and self.worst_above is not None:
            raise ConfigError("worst is a share and worst-above a score: wanted one of them")
        if (CHANGED in self.detectors) != (self.expected is not None):
            raise ConfigError(f"detector {CHANGED!r} and --expected, the store to compare with, go together")
        if self.by not in self.detectors:
            raise ConfigError(f"worst-by is {self.by!r}, wanted one of {', '.join(self.detectors)}")

    @property
    def by(self) -> str:
        """The detector that orders the list."""
        return self.worst_by or next(iter(self.detectors), "")


def score_pairs(settings: ScoreSettings, *, out: Path, executor: Executor) -> Tally:
    """Score every pair of a store.

    Raises:
        ConfigError: the store has no more pairs than ``neighbours``.
        DataError: there is no store.
        MismatchError: it is no CLIP's, lacks a tower, or ``out`` was made otherwise.
        StorageError: the disk is full.

    Memory: of the driver 20 bytes a pair; of a worker the reference pairs, and blocks of them by 1,024.
    """
    store = EmbeddingStore.open(settings.store)
    store.require_joint("scoring by published detectors")
    if store.rows <= settings.neighbours:
        raise ConfigError(
            f"{store.path} has {store.rows} pairs, wanted more than neighbours, {settings.neighbours}"
        )
    told = {**asdict(settings), "store": str(settings.store), "content": StageFolder(settings.store).content}
    for name in ("worst_above", "expected"):  # a scoring from before there were these goes on
        if told[name] is None:
            del told[name]
    if settings.expected is not None:
        told["expected"] = str(settings.expected)
        told["expected_content"] = StageFolder.open(settings.expected, stage="embed").content
    folder = StageFolder.create(out, stage="score", settings=told)
    tally = Tally(seen=store.rows)
    if not folder.finished:
        missing = [part for part in store.parts if folder.marker(part.name) is None]
        for _ in executor.map(partial(ScorePartWorker, settings, out), missing):
            pass
        if settings.worst or settings.worst_above is not None:
            _list_worst(settings, store, out)
        folder.finish({"tally": tally.to_json()})
    return tally


def score_limits(out: Path) -> Limits:
    """What bounded a scoring, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=("score",))


class ScorePartWorker:
    """Scores parts, one after the other."""

    def __init__(self, settings: ScoreSettings, out: Path) -> None:
        self._store, self._folder = EmbeddingStore.open(settings.store), StageFolder(out)
        self._row_R = drawn_rows(self._store, count=settings.reference, seed=settings.seed)
        reference = read_rows(self._store, self._row_R)
        with one_thread():
            self._detectors = {
                name: DETECTORS[name](reference, neighbours=settings.neighbours)
                for name in settings.detectors
                if name != CHANGED
            }
        self._changed = settings.expected and Changed(self._store, settings.expected)
        self._laps = Laps()

    def __call__(self, part: StorePart) -> Marker:
        """Score one part."""
        import polars

        self._laps.start()
        scores = {name: np.empty(part.rows, np.float32) for name in self._detectors}
        with one_thread():
            for start in range(0, part.rows, BLOCK_PAIRS):
                block = slice(start, min(start + BLOCK_PAIRS, part.rows))
                pairs = self._pairs(part, block)
                for name, detector in self._detectors.items():
                    scores[name][block] = detector(pairs)
        if self._changed:
            scores[CHANGED] = self._changed(part)
        names = self._store.metadata(part.name, ("uid", "key", "shard"))
        path = scores_file(self._folder.path, part.name)
        columns = (polars.Series(name, each).fill_nan(None) for name, each in scores.items())
        write_parquet(path, names.with_columns(columns))
        self._laps.lap("score")
        facts = {"rows": part.rows, WORK_KEY: self._laps.work(part.rows).to_json()}
        return self._folder.commit(part.name, files=[path], facts=facts)

    def _pairs(self, part: StorePart, block: slice) -> Pairs:
        row_M = np.arange(part.start + block.start, part.start + block.stop)
        place_M = np.minimum(np.searchsorted(self._row_R, row_M), len(self._row_R) - 1)
        image_MD, text_MD = (
            np.asarray(self._store.vectors(part.name, modality)[block], np.float32) for modality in MODALITIES
        )
        own_M = np.where(self._row_R[place_M] == row_M, place_M, -1)
        return Pairs(image_MD=image_MD, text_MD=text_MD, own_M=own_M)


def scores_file(out: Path, name: str) -> Path:
    """Where one part's scores lie."""
    return out / "scores" / f"scores_{name}.parquet"


def _list_worst(settings: ScoreSettings, store: EmbeddingStore, out: Path) -> None:
    """The worst share of all pairs, of equals those that come first; or all above a score."""
    tables = [read_table(scores_file(out, part.name), columns=["uid", settings.by]) for part in store.parts]
    score_N = np.concatenate([table[settings.by].fill_null(-np.inf).to_numpy() for table in tables])
    listed_N = np.zeros(len(score_N), np.bool_)
    if settings.worst_above is None:
        listed_N[np.argsort(-score_N, kind="stable")[: int(settings.worst * len(score_N))]] = True
    else:
        listed_N = score_N > settings.worst_above
    uids: list[list[Any]] = [
        table["uid"].filter(listed_N[part.start : part.start + part.rows]).to_list()
        for table, part in zip(tables, store.parts, strict=True)
    ]
    write_keep_list(out / WORST_FILE, uids)
