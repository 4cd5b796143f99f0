"""Embedding store and image index → scores and verdicts: the ``scan`` stage.

    scores/scores_00000.parquet       uid, key, shard, label (where asked for), suspicion, cross_prediction,
                                      cross_prediction_percentile, agreement, agreement_percentile,
                                      repetition, word_lift, trace, trace_word, kin, captions_of_picture,
                                      pictures_of_caption, neighbours
    verdicts/verdicts_00000.parquet   uid, kept, reasons, sentence, neighbours
    done/00000.json                   rows, tally, reasons; written last
    work/                             columns, neighbours and raw scores, with markers of their own

Row i of part P is row i of the store's part P. Pairs that failed earlier are counted, not judged.
Nothing here is quadratic: each step is a few passes over the parts, and small ones over the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import WORK_KEY, Laps, Work
from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.columns import Columns, join_pieces
from roclip_sanitize.scan.cross_judged import count_strangers, read_judged
from roclip_sanitize.scan.cross_rounds import cross_predict
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.judging import JudgeWorker
from roclip_sanitize.scan.long_tail import Ends, Labels, guard_labels
from roclip_sanitize.scan.looks import require_same_pairs, texture_look
from roclip_sanitize.scan.parts import (
    EvidenceWorker,
    LabelWorker,
    PieceWorker,
    Places,
    rows_of,
    run_missing,
    weigh_words,
)
from roclip_sanitize.scan.scoring import WEIGHED, Scores, ScoreWorker
from roclip_sanitize.scan.search import Search, require_index_of, search_parts
from roclip_sanitize.scan.settings import ScanSettings
from roclip_sanitize.scan.trace_rounds import find_traces
from roclip_sanitize.scan.traced import Traced
from roclip_sanitize.scan.verdicts import candidates, collides, combined, count_carriers, find_cut
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.storage import atomic_file, remove_tree
from roclip_sanitize.store import EmbeddingStore

NEIGHBOURS_BESIDE = 10  # that sentences quote, where no detector asks for any


def scan_store(settings: ScanSettings, *, out: Path, executor: Executor) -> Tally:
    """Score and judge every pair of a store.

    Returns:
        Pairs seen, quarantined by their first reason, and failed earlier.

    Raises:
        DataError: there is no store or no index, or no pair has a label.
        MismatchError: the index is not of this store's pictures, the second look not at its pairs, one of
            them is unfinished, or ``out`` was made with other settings.
        StorageError: the disk is full.

    Memory: of the driver about 80 bytes per pair, for counting captions and ranking suspicions, and 300 MB
    for the words that cross prediction knows; of a worker one part.
    """
    store = EmbeddingStore.open(settings.store)
    require_index_of(store, settings.index)
    for young in settings.second_look:  # what is not what it should be is refused before hours of work
        require_same_pairs(store, EmbeddingStore.open(young))
    if settings.textures:
        texture_look(settings.textures)
        require_same_pairs(store, EmbeddingStore.open(settings.textures), ("image",))
    folder = StageFolder.create(out, stage="scan", settings=settings.to_json())
    if folder.finished:
        return Tally.from_json(folder.facts["tally"])
    work = StageFolder.create(out / "work", stage="scan-work", settings=settings.to_json())
    places = Places(store=settings.store, work=work.path)
    if settings.label:
        _read_labels(settings, store, places, executor)
    _score(settings, store, places, executor)
    laps = Laps()
    strangers = _strangers(settings, store, places)
    mismatched = strangers.share or 0.0
    allowed, ends = _rank(settings, store, places, strangers)
    laps.lap("score")
    ranking = laps.work(0, workers=executor.size)
    reasons = _reasons(settings.detectors)
    told: dict[str, Any] = {"looks": settings.looks, "mismatched": mismatched}
    judging = partial(JudgeWorker, places, out, ends, settings.thresholds, reasons, **told)
    run_missing(judging, store.parts, folder, "", executor)
    told |= {"strangers": strangers.to_json(), "allowed": allowed}
    if "traces" in settings.detectors:
        told["traces"] = Traced.read(places).told(Columns(places.columns))
    return _finish(folder, ranking, **told, **ends.to_json(labelled=bool(settings.label)))


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
    if "traces" in settings.detectors:
        find_traces(store, places, executor, second=settings.second_look, textures=settings.textures)
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
    run_missing(partial(ScoreWorker, places, settings), store.parts, work, "scores_", executor)


def _search(settings: ScanSettings) -> Search | None:
    """What the detectors want of the index; None where they ask for nothing."""
    asked = not {"agreement", "repetition"}.isdisjoint(settings.detectors)
    copies, kin = "collisions" in settings.detectors, "kin" in settings.detectors
    if not (asked or copies or kin):
        return None
    return Search(
        neighbours=settings.neighbours if asked else 0,
        copies=copies,
        kin=kin,
        near_copy_cosine=settings.near_copy_cosine,
        beside=0 if asked else NEIGHBOURS_BESIDE,
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


def _rank(
    settings: ScanSettings, store: EmbeddingStore, places: Places, strangers: Strangers
) -> tuple[int, Ends]:
    """Rank all suspicions, find how many may be flagged, and the least that is, of all and of each label."""
    rankings, carriers, mismatched = {}, 0, strangers.share or 0.0
    for reason in _reasons(settings.detectors):
        suspicion_N = np.empty(store.rows, np.float32)
        for part in store.parts:
            scores = Scores.read(places.scores(part.name))
            suspicion_N[part.start : part.start + part.rows] = scores.weighed[reason]
        rankings[reason] = np.sort(suspicion_N[~np.isnan(suspicion_N)])
        with atomic_file(places.ranking(reason)) as file:
            np.save(file, rankings[reason])
    combined_N, collided_N = np.empty(store.rows), np.empty(store.rows, np.bool_)
    for part in store.parts:
        scores, block = Scores.read(places.scores(part.name)), slice(part.start, part.start + part.rows)
        company = scores.company(mismatched=mismatched)
        combined_N[block] = combined(scores.weighed, rankings, looks=settings.looks, company=company)
        collided_N[block] = collides(scores.collisions, settings.thresholds)
        carriers += count_carriers(scores.trace_N, collided_N[block])
    allowed = strangers.allowed(
        pairs=store.rows, budget=settings.budget, times=settings.times_mismatched, carriers=carriers
    )
    candidate_N = candidates(combined_N, collided_N)
    uids_of = Columns(places.columns).uids
    cut = find_cut(combined_N, candidate_N, allowed=allowed, uids_of=uids_of)
    if not settings.label:
        return allowed, Ends(cut=cut)
    labels, times = _labels(store, places), settings.times_per_label
    return allowed, guard_labels(
        labels, combined_N, candidate_N, collided_N, cut=cut, times=times, uids_of=uids_of
    )


def _read_labels(settings: ScanSettings, store: EmbeddingStore, places: Places, executor: Executor) -> None:
    """Have the shards read for labels, before anything else, so that a misspelt field costs little."""
    reading = partial(LabelWorker, places, settings.label, store.shards)  # as they are signed here
    run_missing(reading, store.parts, StageFolder(places.work), "labels_", executor)
    if not _labels(store, places).names:
        remove_tree(places.work)  # nothing else is there yet, and another field should find it free
        raise DataError(f"no pair of the {len(store.shards)} shards has a field {settings.label!r}")


def _labels(store: EmbeddingStore, places: Places) -> Labels:
    return Labels.joined(places.read_labels(part.name) or () for part in store.parts)


def _reasons(detectors: Sequence[str]) -> list[Reason]:
    """Of the detectors that share the budget."""
    return [reason for detector, reason in WEIGHED.items() if detector in detectors]


def _finish(folder: StageFolder, ranking: Work, **told: Any) -> Tally:
    markers = folder.markers()
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in markers)
    reasons = _total(marker.facts["reasons"] for marker in markers)
    facts = {"tally": tally.to_json(), "reasons": reasons, **told}
    folder.finish({**facts, WORK_KEY: ranking.to_json()})
    return tally


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))
