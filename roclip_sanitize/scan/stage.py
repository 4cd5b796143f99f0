"""Embedding store and image index → scores and verdicts: the ``scan`` stage.

    scores/scores_00000.parquet       uid, key, shard, suspicion, cross_prediction,
                                      cross_prediction_percentile, agreement, agreement_percentile,
                                      word_lift, captions_of_picture, pictures_of_caption, neighbours
    verdicts/verdicts_00000.parquet   uid, kept, reasons, sentence, neighbours
    done/00000.json                   rows, tally, reasons; written last
    work/                             columns, neighbours and raw scores, with markers of their own

Row i of part P is row i of the store's part P. Pairs that failed earlier are counted, not judged.
Nothing here is quadratic: each step is a few passes over the parts, and small ones over the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import WORK_KEY, Laps, Limits, Work
from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.columns import Columns, join_pieces
from roclip_sanitize.scan.cross_rounds import count_strangers, cross_predict, read_judged
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.judging import JudgeWorker, table_file
from roclip_sanitize.scan.looks import require_same_pairs
from roclip_sanitize.scan.parts import (
    EvidenceWorker,
    PieceWorker,
    Places,
    rows_of,
    run_missing,
    weigh_words,
)
from roclip_sanitize.scan.scoring import WEIGHED, Scores, ScoreWorker
from roclip_sanitize.scan.search import Search, require_index_of, search_parts
from roclip_sanitize.scan.verdicts import Cut, Thresholds, candidates, combined, find_cut
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.storage import atomic_file
from roclip_sanitize.store import EmbeddingStore

if TYPE_CHECKING:
    import polars

DETECTORS = ("cross_prediction", "agreement", "collisions")
VERDICT_COLUMNS = ("uid", "kept", "reasons", "sentence", "neighbours")
TABLES = 4  # of this layout: a scan does not go on in a folder of another
STEPS = ("columns", "cross", "search", "evidence", "score", "judge")
NEIGHBOURS_BESIDE = 10  # that sentences quote, where agreement asks none


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """How to scan. There is no seed: nothing is drawn.

    Attributes:
        store: the embedding store.
        index: index of all its pictures, over features that never saw a caption.
        detectors: which of DETECTORS to run.
        neighbours: pictures that agreement asks about each caption.
        budget: share of all pairs, from 0 to 1, that cross prediction and agreement may quarantine together.
        times_mismatched: they may not quarantine more than so many times the share of pairs that are
            estimated not to belong together, see estimate.py; 0 asks for no estimate.
        captions_per_picture: so many different captions of one picture, near-copies included, are
            a collision. Two or three are what shops do with their own photos.
        pictures_per_caption: so many near-identical pictures under one caption are a collision.
            A photo series of one product has five or so; a natural backdoor has hundreds.
        near_copy_cosine: pictures closer than this are copies. Among 12,000 catalogue photos in
            half-whitened pixel space, JPEG quality 75 and halving the size leave 99 % of pictures
            above 0.998, while 0.05 % of clean pairs reach four captions there (0.25 % at 0.995).
        second_look: embedding stores of the same pairs, each made by a CLIP that was trained for an epoch or
            less on pairs that are trusted: cross prediction looks at them again in the vectors of each.
    """

    store: Path
    index: Path
    detectors: tuple[str, ...] = DETECTORS
    neighbours: int = 40
    budget: float = 0.06
    times_mismatched: float = 3.0
    captions_per_picture: int = 4
    pictures_per_caption: int = 8
    near_copy_cosine: float = 0.998
    second_look: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.detectors) - set(DETECTORS))
        if unknown or not self.detectors:
            raise ConfigError(
                f"detectors are {', '.join(self.detectors) or 'none'}, wanted some of {', '.join(DETECTORS)}"
            )
        self._require_ranges()
        if self.second_look and "cross_prediction" not in self.detectors:
            raise ConfigError(
                "second-look goes with the detector cross_prediction, but detectors are "
                f"{', '.join(self.detectors)}"
            )
        for store, count in Counter(self.second_look).items():
            if count > 1:
                raise ConfigError(f"second-look names {store} {count} times, wanted a store once")

    def _require_ranges(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"neighbours is {self.neighbours}, wanted 1 or more")
        if not 0 <= self.budget <= 1:
            raise ConfigError(f"budget is {self.budget}, wanted a share from 0 to 1")
        if not 0 <= self.times_mismatched < math.inf:
            raise ConfigError(f"times_mismatched is {self.times_mismatched}, wanted 0 or more")
        for name in ("captions_per_picture", "pictures_per_caption"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 2 or more: every pair has one")
        if not 0 < self.near_copy_cosine <= 1:
            raise ConfigError(
                f"near_copy_cosine is {self.near_copy_cosine}, wanted more than 0 and at most 1"
            )

    @property
    def looks(self) -> int:
        """How often cross prediction looks."""
        return 1 + len(self.second_look)

    @property
    def thresholds(self) -> Thresholds:
        """From which count on a collision is one."""
        return Thresholds(
            captions_per_picture=self.captions_per_picture, pictures_per_caption=self.pictures_per_caption
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values, with the store's and the index's content."""
        told = {
            **asdict(self),
            "store": str(self.store),
            "index": str(self.index),
            "detectors": sorted(self.detectors),
            "tables": TABLES,
            "store_content": _content(self.store, "embed"),
            "index_content": _content(self.index, "index"),
        }
        if not self.second_look:  # a scan from before there was one goes on
            del told["second_look"]
            return told
        seen = [_content(store, "embed") for store in self.second_look]
        return {**told, "second_look": list(map(str, self.second_look)), "second_look_content": seen}


def scan_store(settings: ScanSettings, *, out: Path, executor: Executor) -> Tally:
    """Score and judge every pair of a store.

    Returns:
        Pairs seen, quarantined by their first reason, and failed earlier.

    Raises:
        DataError: there is no store or no index.
        MismatchError: the index is not of this store's pictures, the second look not at its pairs, one of
            them is unfinished, or ``out`` was made with other settings.
        StorageError: the disk is full.

    Memory: of the driver about 80 bytes per pair, for counting captions and ranking suspicions, and 300 MB
    for the words that cross prediction knows; of a worker one part.
    """
    store = EmbeddingStore.open(settings.store)
    require_index_of(store, settings.index)
    for second in settings.second_look:
        require_same_pairs(store, EmbeddingStore.open(second))
    folder = StageFolder.create(out, stage="scan", settings=settings.to_json())
    if folder.finished:
        return Tally.from_json(folder.facts["tally"])
    work = StageFolder.create(out / "work", stage="scan-work", settings=settings.to_json())
    places = Places(store=settings.store, work=work.path)
    _score(settings, store, places, executor)
    laps = Laps()
    strangers = _strangers(settings, store, places)
    allowed = strangers.allowed(pairs=store.rows, budget=settings.budget, times=settings.times_mismatched)
    cut = _rank(settings, store, places, allowed=allowed)
    laps.lap("score")
    ranking = laps.work(0, workers=executor.size)
    reasons = _reasons(settings.detectors)
    judging = partial(JudgeWorker, places, out, cut, settings.thresholds, reasons, looks=settings.looks)
    run_missing(judging, store.parts, folder, "", executor)
    told = {"strangers": strangers.to_json(), "allowed": allowed, "looks": settings.looks}
    return _finish(folder, cut, ranking, **told)


def scan_limits(out: Path) -> Limits:
    """What bounded a finished scan, over all runs that it took. The rates are of pairs judged."""
    folder, work = StageFolder(out), StageFolder(out / "work")
    facts = [marker.facts for marker in (*folder.markers(), *work.markers())]
    return Limits.noted([*facts, folder.facts], order=STEPS)


def mismatched_share(out: Path) -> float | None:
    """What a finished scan estimates of pairs that do not belong together; None where it cannot."""
    share: float | None = StageFolder.open(out, stage="scan").facts.get("strangers", {}).get("share")
    return share


def verdict_tables(out: Path, columns: Sequence[str] = VERDICT_COLUMNS) -> Iterator[polars.DataFrame]:
    """The verdicts of a finished scan, one part's table at a time. Memory: that of one part."""
    for marker in StageFolder.open(out, stage="scan").markers():
        yield read_table(table_file(out, "verdicts", marker.name), columns=list(columns))


def score_tables(out: Path, columns: Sequence[str]) -> Iterator[polars.DataFrame]:
    """Some scores of a finished scan, one part's table at a time. Memory: that of one part."""
    for marker in StageFolder.open(out, stage="scan").markers():
        yield read_table(table_file(out, "scores", marker.name), columns=list(columns))


def read_verdicts(out: Path) -> polars.DataFrame:
    """All verdicts of a finished scan: uid, kept, reasons, sentence, neighbours; lists joined by ";".

    Memory: 100 bytes a pair, and more of those that are flagged; see verdict_tables().
    """
    return _read_tables(out, "verdicts")


def read_scores(out: Path) -> polars.DataFrame:
    """All scores of a finished scan.

    ``suspicion`` orders all pairs, 1 for those that collide; ``cross_prediction`` and ``agreement`` are the
    suspicions that it is made of, null where there is none. Older scans lack some of these columns.
    """
    return _read_tables(out, "scores")


def _score(settings: ScanSettings, store: EmbeddingStore, places: Places, executor: Executor) -> None:
    work = StageFolder(places.work)
    run_missing(partial(PieceWorker, places), store.parts, work, "piece_", executor)
    if work.marker("columns") is None:
        laps = Laps()
        files = join_pieces(places.columns, [part.name for part in store.parts])
        laps.lap("columns")
        places.commit("columns", *files, rows=store.rows, laps=laps, workers=executor.size)
    if "cross_prediction" in settings.detectors:
        cross_predict(store, places, executor, second=settings.second_look)
        if work.marker("mismatched_words") is None:
            laps = Laps()
            counted = _mismatched_words(settings, store, places).write(places.mismatched_words)
            laps.lap("cross")
            places.commit("mismatched_words", counted, rows=store.rows, laps=laps, workers=executor.size)
    if searching := _search(settings):
        search_parts(
            searching,
            store=store,
            index=settings.index,
            picture=Columns(places.columns).picture_N,
            folder=work,
            executor=executor,
        )
    if "agreement" in settings.detectors:
        run_missing(partial(EvidenceWorker, places), store.parts, work, "evidence_", executor)
        if work.marker("word_weights") is None:
            laps = Laps()
            weights = weigh_words(places, [part.name for part in store.parts])
            laps.lap("evidence")
            places.commit("word_weights", weights, rows=store.rows, laps=laps, workers=executor.size)
    scoring = partial(ScoreWorker, places, settings.detectors, settings.second_look)
    run_missing(scoring, store.parts, work, "scores_", executor)


def _search(settings: ScanSettings) -> Search | None:
    """What the detectors want of the index; None where they ask for nothing."""
    agreement, copies = (name in settings.detectors for name in ("agreement", "collisions"))
    if not agreement and not copies:
        return None
    return Search(
        neighbours=settings.neighbours if agreement else 0,
        copies=copies,
        near_copy_cosine=settings.near_copy_cosine,
        beside=0 if agreement else NEIGHBOURS_BESIDE,
    )


def _mismatched_words(settings: ScanSettings, store: EmbeddingStore, places: Places) -> MismatchedWords:
    columns = Columns(places.columns)
    return MismatchedWords.counted(
        (columns.words(rows_of(part)), read_judged(places, part, second=settings.second_look)[1])
        for part in store.parts
    )


def _strangers(settings: ScanSettings, store: EmbeddingStore, places: Places) -> Strangers:
    if "cross_prediction" not in settings.detectors:
        return Strangers()
    return count_strangers(places, store.parts, second=settings.second_look)


def _rank(settings: ScanSettings, store: EmbeddingStore, places: Places, *, allowed: int) -> Cut:
    """Rank all suspicions, and find the least that is still flagged."""
    rankings = {}
    for reason in _reasons(settings.detectors):
        suspicion_N = np.empty(store.rows, np.float32)
        for part in store.parts:
            scores = Scores.read(places.scores(part.name))
            suspicion_N[part.start : part.start + part.rows] = scores.weighed[reason]
        rankings[reason] = np.sort(suspicion_N[~np.isnan(suspicion_N)])
        with atomic_file(places.ranking(reason)) as file:
            np.save(file, rankings[reason])
    combined_N, candidate_N = np.empty(store.rows), np.empty(store.rows, np.bool_)
    for part in store.parts:
        scores, block = Scores.read(places.scores(part.name)), slice(part.start, part.start + part.rows)
        combined_N[block] = combined(scores.weighed, rankings, looks=settings.looks, lift_N=scores.lift_N)
        candidate_N[block] = candidates(combined_N[block], scores.collisions, settings.thresholds)
    uids_of = Columns(places.columns).uids
    return find_cut(combined_N, candidate_N, allowed=allowed, uids_of=uids_of)


def _reasons(detectors: Sequence[str]) -> list[Reason]:
    """Of the detectors that share the budget."""
    return [reason for detector, reason in WEIGHED.items() if detector in detectors]


def _finish(folder: StageFolder, cut: Cut, ranking: Work, **told: Any) -> Tally:
    markers = folder.markers()
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in markers)
    reasons = _total(marker.facts["reasons"] for marker in markers)
    facts = {"tally": tally.to_json(), "reasons": reasons, "cut": asdict(cut), **told}
    folder.finish({**facts, WORK_KEY: ranking.to_json()})
    return tally


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _content(path: Path, stage: str) -> str:
    return StageFolder.open(path, stage=stage).content


def _read_tables(out: Path, what: str) -> polars.DataFrame:
    import polars

    folder = StageFolder.open(out, stage="scan")
    return polars.concat([read_table(table_file(out, what, marker.name)) for marker in folder.markers()])
