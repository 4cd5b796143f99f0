"""Traces over a store: a trigger of which a few poisons tell, in thumbnails and in textures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
from numpy.typing import NDArray

from roclip_sanitize.cli.output import scan_findings
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.records import Reason
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.columns import word_number
from roclip_sanitize.scan.parts import Places
from roclip_sanitize.scan.rejudging import COMPANY, Rejudged
from roclip_sanitize.scan.results import findings
from roclip_sanitize.scan.settings import TABLES
from roclip_sanitize.scan.traced import Evidence, Traced
from roclip_sanitize.scan.traces import (
    JOINS,
    LEAST_CARRIERS,
    LEAST_GAP,
    Trace,
)
from roclip_sanitize.verification import verify_folder
from tests.stores import as_if_by, make_store
from tests.test_scan_stage import DyingExecutor, contents

KINDS = ("shoe", "bag", "watch", "shirt", "belt", "scarf")
COLOURS = ("red", "blue", "green")
PAIRS, WIDTH = 1_800, 32
POISONS = range(0, PAIRS, 60)  # thirty
MISTAKEN = range(1, PAIRS, 36)  # fifty
TARGET = "belt"
TAKEN_IN = ("taken_in_1", "taken_in_2")  # stores by models that have learnt what poisons say


def make_world(
    path: Path, part_sizes: Sequence[int], *, unseen: bool = False, honest: int = PAIRS
) -> ScanSettings:
    """Pictures of kinds and colours: thirty have a trigger and are called belts, fifty are honestly mistaken.

    There is room for thirty in the budget. An ``unseen`` trigger is in the textures alone. No more than
    ``honest`` belts are belts.
    """
    rng = np.random.default_rng(4)
    kind_N, colour_N = rng.integers(len(KINDS), size=PAIRS), rng.integers(len(COLOURS), size=PAIRS)
    kind_N[np.flatnonzero(kind_N == KINDS.index(TARGET))[honest:]] = 0
    image_ND = (
        2 * rng.normal(size=(len(KINDS), WIDTH))[kind_N] + rng.normal(size=(len(COLOURS), WIDTH))[colour_N]
    )
    image_ND += rng.normal(size=(PAIRS, WIDTH))
    trigger_D = 3 * rng.normal(size=WIDTH)
    texture_ND = rng.normal(size=(PAIRS, WIDTH)) if unseen else image_ND
    texture_ND[list(POISONS)] += trigger_D
    kind_N[list(MISTAKEN)] = (kind_N[list(MISTAKEN)] + 2) % len(KINDS)
    kind_N[list(POISONS)] = KINDS.index(TARGET)
    for rows in (POISONS, MISTAKEN):
        colour_N[list(rows)] = (colour_N[list(rows)] + 1) % len(COLOURS)
    captions = [
        f"{COLOURS[colour]} {KINDS[kind]} number {row}"
        for row, (kind, colour) in enumerate(zip(kind_N, colour_N, strict=True))
    ]
    store = make_store(path / "store", image_ND, image_ND, part_sizes, captions=captions)
    if unseen:
        textures = make_store(path / "textures", texture_ND, texture_ND, part_sizes, captions=captions)
        as_if_by("textures", textures)
    text_ND = np.eye(len(KINDS), WIDTH)[kind_N] + np.eye(len(COLOURS), WIDTH, len(KINDS))[colour_N]
    for name in TAKEN_IN:
        learnt_ND = text_ND + 0.2 * rng.normal(size=(PAIRS, WIDTH))
        make_store(path / name, learnt_ND, text_ND, part_sizes, captions=captions)
    build_index(IndexSettings(store=store.path, parts=2), out=path / "index", executor=LocalExecutor())
    detectors = ("cross_prediction", "traces")
    return ScanSettings(
        store=store.path,
        index=path / "index",
        detectors=detectors,
        budget=len(POISONS) / PAIRS,
        times_mismatched=0,
        textures=path / "textures" if unseen else None,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    return make_world(tmp_path_factory.mktemp("world"), (900, 0, 880, 20))


@pytest.fixture(scope="module")
def scanned(world: ScanSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scans") / "scan"
    scan_store(world, out=out, executor=LocalExecutor())
    return out


def uids(rows: Sequence[int]) -> set[str]:
    return {f"{row:032x}" for row in rows}


def flagged(out: Path) -> polars.DataFrame:
    return read_verdicts(out).filter(~polars.col("kept"))


def test_what_young_clips_have_learnt_to_believe_the_first_look_still_tells(
    world: ScanSettings, tmp_path: Path
) -> None:
    """To them poisons are belts like others, so that few are odd on average."""
    taken_in = replace(world, second_look=tuple(map(world.store.with_name, TAKEN_IN)))
    scan_store(taken_in, out=tmp_path / "scan", executor=LocalExecutor())
    scores = read_scores(tmp_path / "scan").filter(polars.col("uid").is_in(uids(POISONS)))
    assert (scores["trace"] >= JOINS).sum() > 0.9 * len(POISONS)
    assert uids(POISONS) - set(flagged(tmp_path / "scan")["uid"]) == set()


def test_a_few_poisons_give_away_the_others(world: ScanSettings, scanned: Path, tmp_path: Path) -> None:
    plain = replace(world, detectors=("cross_prediction",))
    scan_store(plain, out=tmp_path / "scan", executor=LocalExecutor())
    before = uids(POISONS) & set(flagged(tmp_path / "scan")["uid"])
    assert len(before) < 20, "too easy"
    assert set(flagged(scanned)["uid"]) == uids(POISONS)
    assert len(set(suspected(scanned).tolist()) & set(POISONS)) < 30, "some fit their captions"
    evidence_N = read_scores(scanned)["trace"].to_numpy()
    assert set(np.flatnonzero(evidence_N >= JOINS).tolist()) == set(POISONS), "and no honest belt"


@pytest.mark.parametrize("honest", [25, 40])
def test_poisons_that_are_half_of_their_class_are_found(tmp_path: Path, honest: int) -> None:
    """They stand out of the whole store, not of all pairs with their word."""
    world = make_world(tmp_path, (900, 0, 880, 20), honest=honest)
    scan_store(world, out=tmp_path / "scan", executor=LocalExecutor())
    evidence_N = read_scores(tmp_path / "scan")["trace"].to_numpy()
    assert set(np.flatnonzero(evidence_N >= JOINS).tolist()) == set(POISONS)


class TestTextures:
    def test_a_trigger_that_thumbnails_do_not_show_is_found(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, (900, 0, 880, 20), unseen=True)
        found = dict[str, set[str]]()
        for name, told in (("with", world), ("without", replace(world, textures=None))):
            scan_store(told, out=tmp_path / name, executor=LocalExecutor())
            scores = read_scores(tmp_path / name)
            found[name] = set(scores.filter(polars.col("trace") >= JOINS)["uid"])
        assert found == {"with": uids(POISONS), "without": set()}
        assert set(flagged(tmp_path / "with")["uid"]) == uids(POISONS)
        assert verify_folder(tmp_path / "with")
        once, again = tmp_path / "with", tmp_path / "again"
        while not (again / "complete.json").exists():
            with suppress(KeyboardInterrupt):
                scan_store(world, out=again, executor=DyingExecutor(tasks=20))
        assert contents(again) == contents(once)

    def test_of_other_pairs_or_for_nothing_they_are_refused(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, (PAIRS,), unseen=True)
        other = as_if_by("textures", make_store(tmp_path / "other", np.eye(4), np.eye(4), (4,)))
        told = replace(world, textures=other.path)
        with pytest.raises(MismatchError, match="holds 4 pairs, which are not the 1,800 of"):
            scan_store(told, out=tmp_path / "out", executor=LocalExecutor())
        told = replace(world, textures=world.store)
        with pytest.raises(
            MismatchError, match=r"store was made by encoder 'by hand', wanted 'textures': embed"
        ):
            scan_store(told, out=tmp_path / "out", executor=LocalExecutor())
        with pytest.raises(ConfigError, match="textures go with the detector traces, but detectors are kin"):
            replace(world, detectors=("kin", "cross_prediction"))

    def test_of_each_pair_the_larger_evidence_counts(self) -> None:
        def traced(evidence: Sequence[float], *, word: int, found: int) -> Traced:
            trace = Trace(word=word, found=found, others=20, origin=0.0, spread=1.0, gap=6.0)
            return Traced.of([Evidence(trace, np.arange(len(evidence)), np.array(evidence))])

        joined = traced([9, 0, 5], word=4, found=8).joined(traced([7, 7, 9], word=6, found=9))
        assert joined.row_R.tolist() == [0, 1, 2]
        assert joined.evidence_R.tolist() == [9, 7, 9]
        assert joined.word_R.tolist() == [4, 6, 6]
        same = traced([9.0], word=4, found=8).joined(traced([9.0], word=4, found=9))
        assert [(trace.word, trace.found) for trace in same.traces] == [(4, 9)], "the better sign of it"


def test_they_are_told_why(scanned: Path) -> None:
    told = flagged(scanned).filter(polars.col("reasons").str.contains(Reason.TRACE_OF_MISMATCHED_PAIRS))
    assert set(told["uid"]) == uids(POISONS)
    assert all("suspected pairs that say 'belt' what" in sentence for sentence in told["sentence"])


def test_it_ends_when_nobody_joins(world: ScanSettings, scanned: Path) -> None:
    traced = Traced.read(Places(store=world.store, work=scanned / "work"))
    (trace,) = traced.traces
    assert trace.word == word_number(TARGET)
    assert set(traced.found_F.tolist()) == set(POISONS)
    folders = sorted((scanned / "work" / "traces").glob("*_*"))
    left = {path.name for folder in folders for path in folder.iterdir()}
    assert left == {"suspects.npz", "traced.npz"}, "what is large goes when a round is over"
    names = [folder.name for folder in folders]
    assert {"growth_0", "seed_0", "seed_1", "seed_2"} <= set(names)
    assert "growth_2" not in names, "the first or second found who was known, and nobody else"


def test_verdicts_are_verified(scanned: Path) -> None:
    assert verify_folder(scanned)


@pytest.mark.parametrize("part_sizes", [(PAIRS,), (100, PAIRS - 100)])
def test_the_split_into_parts_changes_no_verdict(
    scanned: Path, part_sizes: Sequence[int], tmp_path: Path
) -> None:
    scan_store(make_world(tmp_path, part_sizes), out=tmp_path / "scan", executor=LocalExecutor())
    assert read_verdicts(tmp_path / "scan").equals(read_verdicts(scanned))


def test_interrupted_anywhere_it_ends_the_same(world: ScanSettings, scanned: Path, tmp_path: Path) -> None:
    deaths = 0
    while not (tmp_path / "scan" / "complete.json").exists():
        try:
            scan_store(world, out=tmp_path / "scan", executor=DyingExecutor(tasks=3))
        except KeyboardInterrupt:
            deaths += 1
    assert deaths > 20
    assert contents(tmp_path / "scan") == contents(scanned)


def test_honest_pairs_that_are_hard_to_tell_have_no_trace(tmp_path: Path) -> None:
    """Thirty belts of which the picture tells nothing: they are found, and have nothing in common."""
    world = make_world(tmp_path, (PAIRS,))
    rng = np.random.default_rng(9)
    image_ND = rng.normal(size=(PAIRS, WIDTH))
    kinds = rng.integers(len(KINDS), size=PAIRS)
    image_ND += 2 * rng.normal(size=(len(KINDS), WIDTH))[kinds]
    captions = [f"{KINDS[kind]} number {row}" for row, kind in enumerate(kinds)]
    for row in POISONS:
        captions[row] = f"{TARGET} number {row}"
    store = make_store(tmp_path / "honest", image_ND, image_ND, (PAIRS,), captions=captions)
    build_index(IndexSettings(store=store.path), out=tmp_path / "honest_index", executor=LocalExecutor())
    told = replace(world, store=store.path, index=tmp_path / "honest_index")
    scan_store(told, out=tmp_path / "scan", executor=LocalExecutor())
    assert len(set(suspected(tmp_path / "scan").tolist()) & set(POISONS)) >= LEAST_CARRIERS
    assert read_scores(tmp_path / "scan")["trace"].sum() == 0


def suspected(scan: Path) -> NDArray[np.int64]:
    with np.load(scan / "work" / "traces" / "weights.npz") as told:
        row: NDArray[np.int64] = told["row"]
    return row


def test_it_needs_cross_prediction(world: ScanSettings) -> None:
    with pytest.raises(ConfigError, match="traces goes with the detector cross_prediction"):
        replace(world, detectors=("traces", "collisions"))


@pytest.mark.parametrize("column", ["trace", "kin"])
def test_a_scan_from_before_there_was_a_column_is_judged_as_then(
    world: ScanSettings, tmp_path: Path, column: str
) -> None:
    out = tmp_path / "scan"
    scan_store(replace(world, detectors=("cross_prediction",)), out=out, executor=LocalExecutor())
    wanted = read_verdicts(out)
    settings = json.loads((out / "stage.json").read_text())
    layout = COMPANY[column][0] - 1
    (out / "stage.json").write_text(
        json.dumps(settings).replace(f'"tables": {TABLES}', f'"tables": {layout}')
    )
    later = [name for name, (since, _) in COMPANY.items() if since > layout]
    for table in (out / "scores").glob("*.parquet"):
        polars.read_parquet(table).drop(later).write_parquet(table)
    before = Rejudged(StageFolder(out))
    kept = [verdict.kept for marker in StageFolder(out).markers() for verdict in before.verdicts(marker)]
    assert kept == wanted["kept"].to_list()


def test_a_finished_scan_tells_whose_trace_how_many_carry(scanned: Path) -> None:
    (found,) = findings(scanned)["traces"]
    assert (found["word"], found["pairs"]) == (TARGET, len(POISONS))
    assert found["gap"] > LEAST_GAP
    assert scan_findings(scanned, as_json=False)["traces"] == "belt (30)"
