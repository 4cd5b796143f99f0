"""Scans: of the same pairs as their store, and every verdict is what the scores and the budget make it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.long_tail import labels_of
from roclip_sanitize.scan.looks import told_second
from roclip_sanitize.scan.parts import LABEL_COLUMN
from roclip_sanitize.scan.rejudging import Rejudged
from roclip_sanitize.sources import missing_sources, source_path
from roclip_sanitize.storage import exists
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.verification.contract import CLOSE, compare_input, require_equal, require_equal_counts
from roclip_sanitize.verification.scan_facts import (
    require_cut,
    verify_ends,
    verify_estimate,
    verify_looks,
    verify_reasons,
    verify_traces,
)
from roclip_sanitize.whereabouts import store_of

if TYPE_CHECKING:
    import polars

COUNTED = frozenset({Reason.MANY_CAPTIONS_ONE_PICTURE.value, Reason.MANY_PICTURES_ONE_CAPTION.value})


def verify_scan(folder: StageFolder) -> Iterator[str]:
    """Check every part. Memory: 13 bytes of every pair, and one part's tables."""
    yield from _verify_inputs(folder)
    yield from verify_looks(folder)
    yield from verify_estimate(folder)
    rejudged, rows, by_budget = Rejudged(folder), 0, 0
    removed, counted = Counter[str](), Counter[str]()
    for marker in folder.markers():
        verdicts = _verdicts(folder, marker)
        _require_verdicts(rejudged, marker, verdicts, where=folder.path)
        _require_scores(rejudged, marker, where=folder.path)
        reasons = [text.split(";") for text in verdicts["reasons"] if text]
        _require_counts(folder, marker, reasons)
        rows += len(verdicts)
        removed.update(each[0] for each in reasons)
        counted.update(reason for each in reasons for reason in each)
        by_budget += sum(COUNTED.isdisjoint(each) for each in reasons)
    yield f"{rows:,} verdicts are what the scores of the same pairs make them"
    told = Tally.from_json(folder.facts["tally"])
    require_equal_counts(told.quarantined, removed, what="pairs quarantined as", where=folder.path)
    yield (
        f"{removed.total():,} pairs are set aside, as counted; {by_budget:,} of them by the budget of "
        f"{folder.settings['budget']:.1%}{_lowered(folder, rows, rejudged.allowed)}, which allows "
        f"{rejudged.allowed:,}"
    )
    yield from verify_reasons(folder, counted)
    yield from verify_ends(folder, rejudged)
    yield from verify_traces(folder)
    if label := folder.settings.get("label"):
        yield _guarded(folder, rejudged, label)


def _guarded(folder: StageFolder, rejudged: Rejudged, label: str) -> str:
    """What the guard of rare classes spared, as counted."""
    ends, facts, where = rejudged.ends, folder.facts, folder.path
    require_equal(facts["spared"], ends.spared, what="pairs spared", where=where)
    require_equal(sorted(facts["label_cuts"]), sorted(ends.of_label), what="labels", where=where)
    for name, cut in ends.of_label.items():
        require_cut(facts["label_cuts"][name], cut, what=f"cut of label {name!r}", folder=folder)
    return (
        f"{ends.spared:,} pairs of {len(ends.of_label):,} labels ({label}) are spared, as counted: none "
        f"loses more to the budget than {folder.settings['times_per_label']:g} times what all lose"
    )


def _lowered(folder: StageFolder, rows: int, allowed: int) -> str:
    """What made the budget smaller than it was told, if anything did."""
    if allowed >= int(folder.settings["budget"] * rows):
        return ""
    times = folder.settings["times_mismatched"]
    return f", lowered to {times:g} times a careful estimate of mismatched pairs, or to those with a trace"


def _verify_inputs(folder: StageFolder) -> Iterator[str]:
    """What it was made from is still what it was."""
    for name, stage, path, content in _inputs(folder.settings):
        yield compare_input(name, path, content, stage=stage, where=folder.path)
    if exists(path := store_of(folder)):
        store = EmbeddingStore.open(path)
        _require_pairs_of_store(folder, store)
        if label := folder.settings.get("label"):
            yield _verify_labels(folder, store, label)


def _inputs(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Path, str]]:
    """What a scan was made from: its name there, which stage made it, where it lay, its content then."""
    for name, stage in (("store", "embed"), ("index", "index")):
        yield name, stage, Path(settings[name]), settings[f"{name}_content"]
    for path, content in told_second(settings).items():
        yield "second_look", "embed", path, content
    if textures := settings.get("textures"):
        yield "textures", "embed", Path(textures), settings["textures_content"]


def _verify_labels(folder: StageFolder, store: EmbeddingStore, label: str) -> str:
    """Compare labels with what the shards say, if they are still there: they decide who is spared."""
    shards = [source_path(shard) for shard in store.shards]
    if missing := missing_sources(shards):
        return f"{len(missing):,} of its shards are gone, and labels were not compared"
    for part, shard in zip(store.parts, shards, strict=True):
        uids = store.metadata(part.name, ("uid",))["uid"].to_list()
        path = table_file(folder.path, "scores", part.name)
        same = _column(path, LABEL_COLUMN).to_list() == labels_of(shard, uids, label)
        require_equal(same, True, what=f"labels ({label}) as in {shard}", where=path)
    return f"{store.rows:,} labels ({label}) are what {len(shards):,} shards say"


def _require_pairs_of_store(folder: StageFolder, store: EmbeddingStore) -> None:
    names = [part.name for part in store.parts]
    require_equal([marker.name for marker in folder.markers()], names, what="parts", where=folder.path)
    for name in names:
        path = table_file(folder.path, "verdicts", name)
        same = _column(path, "uid").equals(store.metadata(name, ("uid",))["uid"])
        require_equal(same, True, what=f"same pairs as part {name} of {store.path}", where=path)
    for marker in folder.markers():
        told, failed = Tally.from_json(marker.facts["tally"]).failed, store.failures(marker.name)["reason"]
        require_equal_counts(told, Counter(failed), what="pairs failed as", where=folder.path)


def _column(path: Path, name: str) -> polars.Series:
    return read_table(path, columns=[name])[name]


def _verdicts(folder: StageFolder, marker: Marker) -> polars.DataFrame:
    scores, verdicts = (table_file(folder.path, what, marker.name) for what in ("scores", "verdicts"))
    frame = read_table(verdicts, columns=["uid", "kept", "reasons"])
    require_equal(len(frame), marker.facts["rows"], what="verdicts", where=verdicts)
    same = _column(scores, "uid").equals(frame["uid"])
    require_equal(same, True, what=f"same pairs as {verdicts.name}", where=scores)
    return frame


def _require_verdicts(rejudged: Rejudged, marker: Marker, verdicts: polars.DataFrame, *, where: Path) -> None:
    path = table_file(where, "verdicts", marker.name)
    for wanted, (uid, kept, reasons) in zip(rejudged.verdicts(marker), verdicts.iter_rows(), strict=True):
        if (kept, reasons) != (wanted.kept, ";".join(wanted.reasons)):
            raise MismatchError(
                f"{path}: {uid}: found {_said(kept, reasons)}, but its scores make it "
                f"{_said(wanted.kept, ';'.join(wanted.reasons))}"
            )


def _require_scores(rejudged: Rejudged, marker: Marker, *, where: Path) -> None:
    """Compare what orders pairs, and their places; scans of earlier versions lack some of it."""
    path = table_file(where, "scores", marker.name)
    wanted, table = rejudged.derived(marker), read_table(path)
    for name in (name for name in wanted if name in table.columns):
        told_N = table[name].fill_null(math.nan).to_numpy()
        differing_N = ~np.isclose(told_N, wanted[name], rtol=CLOSE, atol=CLOSE, equal_nan=True)
        if differing_N.any():
            place = int(differing_N.argmax())
            raise MismatchError(
                f"{path}: {table['uid'][place]}: {name} is {told_N[place]:.6f}, but its scores make it "
                f"{wanted[name][place]:.6f}"
            )


def _said(kept: bool, reasons: str) -> str:
    return ("kept" if kept else "set aside") + (f" for {reasons}" if reasons else "")


def _require_counts(folder: StageFolder, marker: Marker, reasons: list[list[str]]) -> None:
    where = folder.path
    counted = Counter(reason for each in reasons for reason in each)
    require_equal_counts(marker.facts["reasons"], counted, what="reason", where=where)
    first = Counter(each[0] for each in reasons)
    told = Tally.from_json(marker.facts["tally"]).quarantined
    require_equal_counts(told, first, what="pairs quarantined as", where=where)
