"""Embedding store → what published detectors say of every pair: the ``score`` stage.

scores/scores_00000.parquet   uid, key, shard, and a column of each detector
captions/…                    what captions are judged by, see caption_counts.py
worst.npy                     uids of the worst share by one of them, if that was asked for
done/00000.json               rows; written last
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.scan.parts import run_missing
from roclip_sanitize.scoring.band import Band
from roclip_sanitize.scoring.caption_counts import CaptionCounts, count_captions
from roclip_sanitize.scoring.changed import Changed
from roclip_sanitize.scoring.contract import MakeDetector
from roclip_sanitize.scoring.density import Density
from roclip_sanitize.scoring.mismatch import ClipScore, RematchRank, Risk
from roclip_sanitize.scoring.released import RELEASED, batch_count
from roclip_sanitize.scoring.vectors import Batched, Drawn
from roclip_sanitize.scoring.wording import WORDINGS, Wording
from roclip_sanitize.store import EmbeddingStore, StorePart, write_parquet

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
OF_VECTORS = (*DETECTORS, *RELEASED)
KNOWN = (*OF_VECTORS, *WORDINGS, CHANGED)
LATER = {"worst_above": None, "expected": None, "most_poisons": 0.0, "rarest_kind": 1.0}
CAPTIONS = "captions"
WORST_FILE = "worst.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """What to score, by what.

    Attributes:
        store: an embedding store; of a CLIP, with both towers, for OF_VECTORS.
        detectors: of KNOWN.
        reference: pairs that others are held against; for RELEASED, about as many make a batch.
        neighbours: of these, how many count as near. Poisons of one kind are found by density as long as they
            are less than neighbours / reference of all pairs.
        most_poisons: share of the pairs that may be poisons of one kind: if told, ``neighbours`` is not
            looked at, and as many count as near as find these; see band.py.
        rarest_kind: with it, the share of the rarest kind of picture that density should leave alone.
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
    most_poisons: float = 0.0
    rarest_kind: float = 1.0
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
        self._require_ranges()
        if self.worst and self.worst_above is not None:
            raise ConfigError("worst is a share and worst-above a score: wanted one of them")
        if (CHANGED in self.detectors) != (self.expected is not None):
            raise ConfigError(f"detector {CHANGED!r} and --expected, the store to compare with, go together")
        if self.by not in self.detectors:
            raise ConfigError(f"worst-by is {self.by!r}, wanted one of {', '.join(self.detectors)}")

    def _require_ranges(self) -> None:
        if not 1 <= self.near < self.reference:
            raise ConfigError(
                f"neighbours is {self.near}, wanted 1 or more, fewer than reference ({self.reference})"
            )
        for name in ("worst", "most_poisons", "rarest_kind"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted a share from 0 to 1")

    def asked(self, of: Iterable[str]) -> list[str]:
        """Which of some detectors are to score."""
        return [name for name in self.detectors if name in of]

    @property
    def near(self) -> int:
        """How many reference pairs count as near."""
        return self.band.neighbours(self.reference) if self.band else self.neighbours

    @property
    def band(self) -> Band | None:
        """What bounds that number, if it was told."""
        if not self.most_poisons:
            return None
        return Band(most_poisons=self.most_poisons, rarest_kind=self.rarest_kind)

    @property
    def by(self) -> str:
        """The detector that orders the list."""
        return self.worst_by or next(iter(self.detectors), "")


def score_pairs(settings: ScoreSettings, *, out: Path, executor: Executor) -> Tally:
    """Score every pair of a store.

    Raises:
        ConfigError: the store has no more pairs than ``neighbours``; or, for RELEASED, a batch of a part.
        DataError: there is no store.
        MismatchError: a detector looks at vectors, and they are no CLIP's, or lack a tower; or ``out`` was
            made otherwise.
        StorageError: the disk is full.

    Memory: of the driver 20 bytes a pair, 60 where captions are counted; of a worker the reference pairs, and
    blocks of them by 1,024; for RELEASED 48 KiB for each pair of a batch, up to 1.5 times ``reference``.
    """
    store = EmbeddingStore.open(settings.store)
    _require_scorable(settings, store)
    told = _decisive(settings)
    folder = StageFolder.create(out, stage="score", settings=told)
    tally = Tally(seen=store.rows)
    if folder.finished:
        return tally
    if settings.asked(WORDINGS):
        counts = StageFolder.create(out / CAPTIONS, stage="caption-counts", settings=told)
        count_captions(store, counts.path, executor)
    run_missing(partial(ScorePartWorker, settings, out), store.parts, folder, "", executor)
    if lists_worst(told):
        write_keep_list(out / WORST_FILE, worst_uids(folder))
        folder.commit("worst", files=[out / WORST_FILE], facts={})
    folder.finish({"tally": tally.to_json()})
    return tally


def score_limits(out: Path) -> Limits:
    """What bounded a scoring, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=("score",))


class ScorePartWorker:
    """Scores parts, one after the other."""

    def __init__(self, settings: ScoreSettings, out: Path) -> None:
        self._store, self._folder = EmbeddingStore.open(settings.store), StageFolder(out)
        self._settings = settings
        among = {"reference": settings.reference, "neighbours": settings.near, "seed": settings.seed}
        makers = {name: DETECTORS[name] for name in settings.asked(DETECTORS)}
        self._drawn = makers and Drawn(self._store, makers, **among)
        batched = settings.asked(RELEASED)
        self._batched = batched and Batched(self._store, batched, **among)
        self._wording = settings.asked(WORDINGS) and Wording(CaptionCounts.open(out / CAPTIONS))
        self._changed = settings.expected and Changed(self._store, settings.expected)
        self._laps = Laps()

    def __call__(self, part: StorePart) -> Marker:
        """Score one part."""
        import polars

        self._laps.start()
        scores = self._drawn(part) if self._drawn else {}
        if self._batched:
            scores |= self._batched(part)
        if self._wording:
            captions = self._store.metadata(part.name, ("caption",))["caption"].to_list()
            scores |= self._wording(self._settings.asked(WORDINGS), captions, start=part.start)
        if self._changed:
            scores[CHANGED] = self._changed(part)
        names = self._store.metadata(part.name, ("uid", "key", "shard"))
        path = scores_file(self._folder.path, part.name)
        columns = (polars.Series(name, scores[name]).fill_nan(None) for name in self._settings.detectors)
        write_parquet(path, names.with_columns(columns))
        self._laps.lap("score")
        facts = {"rows": part.rows, WORK_KEY: self._laps.work(part.rows).to_json()}
        return self._folder.commit(part.name, files=[path], facts=facts)


def _require_scorable(settings: ScoreSettings, store: EmbeddingStore) -> None:
    """Refuse a store that the detectors can say nothing of."""
    of_vectors = settings.asked(OF_VECTORS)
    if not of_vectors:
        return
    store.require_joint(f"scoring by {', '.join(of_vectors)}")
    if store.rows <= settings.near:
        raise ConfigError(
            f"{store.path} has {store.rows} pairs, wanted more than neighbours, {settings.near}"
        )
    for part in store.parts if settings.asked(RELEASED) else ():
        least = part.rows // batch_count(part.rows, settings.reference)
        if part.rows and least <= settings.near:
            raise ConfigError(
                f"part {part.name} of {store.path} makes a batch of {least} pairs, wanted more than "
                f"neighbours, {settings.near}, for {', '.join(settings.asked(RELEASED))}"
            )


def _decisive(settings: ScoreSettings) -> dict[str, Any]:
    """What decides the bytes. What is as it always was is left out: older scorings can be gone on with."""
    told = {**asdict(settings), "store": str(settings.store), "content": StageFolder(settings.store).content}
    told = {name: value for name, value in told.items() if name not in LATER or value != LATER[name]}
    if settings.expected is not None:
        told["expected"] = str(settings.expected)
        told["expected_content"] = StageFolder.open(settings.expected, stage="embed").content
    return told


def scores_file(out: Path, name: str) -> Path:
    """Where one part's scores lie."""
    return out / "scores" / f"scores_{name}.parquet"


def lists_worst(told: Mapping[str, Any]) -> bool:
    """Whether settings ask for a list of the worst pairs."""
    return bool(told.get("worst")) or told.get("worst_above") is not None


def worst_uids(folder: StageFolder) -> list[list[str]]:
    """The worst share of all pairs, of equals those that come first, or all above a score: part by part.

    Pairs without a score are not listed.
    """
    told, names = folder.settings, [marker.name for marker in folder.markers() if "rows" in marker.facts]
    by, above = told.get("worst_by") or told["detectors"][0], told.get("worst_above")
    tables = [read_table(scores_file(folder.path, name), columns=["uid", by]) for name in names]
    score_N = np.concatenate([np.empty(0), *(table[by].fill_null(-np.inf).to_numpy() for table in tables)])
    listed_N = np.zeros(len(score_N), np.bool_)
    if above is None:
        listed_N[np.argsort(-score_N, kind="stable")[: int(told["worst"] * len(score_N) + 1e-9)]] = True
        listed_N &= score_N > -np.inf
    else:
        listed_N = score_N > above
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return [
        table["uid"].filter(mine).to_list()
        for table, mine in zip(tables, np.split(listed_N, ends), strict=True)
    ]
