"""Traces: by hand, a slow reference, and a trigger of which a few poisons tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from roclip_sanitize.cli.output import scan_findings
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.records import Reason
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.columns import WORD_NUMBERS, word_number
from roclip_sanitize.scan.parts import Places
from roclip_sanitize.scan.rejudging import COMPANY, Rejudged
from roclip_sanitize.scan.results import findings
from roclip_sanitize.scan.settings import TABLES
from roclip_sanitize.scan.trace_rounds import Traced
from roclip_sanitize.scan.traces import (
    DEVIATIONS,
    JOINS,
    LEAST_FOUND,
    LEAST_GAP,
    LEAST_OTHERS,
    MOST_EVIDENCE,
    MOST_WORDS,
    Trace,
    choose_words,
    likeness,
    sums_of,
)
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.verification import verify_folder
from tests.stores import make_store
from tests.test_scan_stage import DyingExecutor, contents

KINDS = ("shoe", "bag", "watch", "shirt", "belt", "scarf")
COLOURS = ("red", "blue", "green")
PAIRS, WIDTH = 1_800, 32
POISONS = range(0, PAIRS, 60)  # thirty
MISTAKEN = range(1, PAIRS, 36)  # fifty
TARGET = "belt"


class TestTrace:
    found_M = np.array([True] * 5 + [False] * 9)
    others = (0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 4.0)  # median 2, median deviation 1

    def of(self, *found: float, others: Sequence[float] = others) -> Trace | None:
        found_M = np.arange(len(found) + len(others)) < len(found)
        return Trace.of(7, np.array([*found, *others]), found_M)

    def test_by_hand(self) -> None:
        trace = self.of(20, 20, 20.5, 20.5, 20.5)
        assert trace is not None
        assert (trace.word, trace.found, trace.others) == (7, 5, 9)
        assert (trace.origin, trace.spread) == (2, DEVIATIONS), "the others differ more"
        assert trace.gap == pytest.approx(18.5 / DEVIATIONS)

    def test_evidence_is_a_likelihood_ratio(self) -> None:
        trace = Trace(word=7, found=5, others=9, origin=2.0, spread=0.5, gap=6.0)
        like_M = np.array(
            [2.0, 3.5, 3.6, 5.0]
        )  # the others' median, half way, a fifth of a spread more, the found
        assert trace.evidence(like_M) == pytest.approx([0, 0, 6 * 0.2, MOST_EVIDENCE])
        weak = replace(trace, gap=3.0)
        assert weak.evidence(np.array([3.5])) == pytest.approx([4.5]), "gap squared, halved"

    def test_there_is_none_without_a_gap(self) -> None:
        assert self.of(9, 9, 9, 9, 9) is None
        assert self.of(20, 20, 20, 20) is None, "four have something in common by chance"
        assert self.of(20, 20, 20, 20, 20, others=(0, 1, 2, 3, 4, 4, 4)) is None, "of too few others"
        assert self.of(0, 10, 20, 30, 40) is None, "they differ among themselves"
        assert self.of(5, 5, 5, 5, 5, others=[5] * 9) is None, "all alike: no spread"

    def test_others_that_were_not_found_do_not_hide_it(self) -> None:
        others = [*np.linspace(-1, 1, 10), *[20.0] * 4]
        trace = self.of(20, 20, 20.5, 20.5, 20.5, others=others)
        assert trace is not None
        assert (trace.evidence(np.array(others)) > JOINS).tolist() == [False] * 10 + [True] * 4


class TestWords:
    def counted(self, **found: int) -> MismatchedWords:
        found_W = np.zeros(WORD_NUMBERS, np.int64)
        for name, count in found.items():
            found_W[int(name[1:])] = count
        return MismatchedWords(below_W=found_W, pairs=1_000, below=20)

    def counts(self, number: int) -> NDArray[np.int64]:
        return np.full(WORD_NUMBERS, number)

    def test_by_hand(self) -> None:
        """One of fifty pairs was found. Of those with word 3 one in ten, of word 4 as many as elsewhere."""
        found = self.counted(w3=10, w4=2, w5=LEAST_FOUND - 1, w6=6)
        assert choose_words(found, self.counts(100)).tolist() == [3, 6]
        assert choose_words(found, self.counts(10 + LEAST_OTHERS)).tolist() == [3, 6]
        assert choose_words(found, self.counts(10 + LEAST_OTHERS - 1)).tolist() == [6], "too few others"
        assert choose_words(found, self.counts(400)).tolist() == [], "it is used too often to tell"

    def test_the_most_telling_ones_where_there_are_many(self) -> None:
        found = self.counted(**{f"w{word}": 20 + (word == 5) for word in range(MOST_WORDS + 9)})
        chosen = choose_words(found, self.counts(100)).tolist()
        assert len(chosen) == MOST_WORDS
        assert 5 in chosen

    def test_nobody_found(self) -> None:
        assert choose_words(MismatchedWords.counted([]), self.counts(9)).tolist() == []


PAIR = st.tuples(st.lists(st.integers(0, 2), max_size=3, unique=True), st.booleans())


@given(st.lists(PAIR, min_size=1, max_size=12), st.integers(0, 99))
def test_likeness_is_that_to_the_mean_of_the_others(pairs: list[tuple[list[int], bool]], seed: int) -> None:
    pairs = [([0, 1, 2], True), ([0, 1, 2], True), *pairs]  # so that each word has two
    row_MP = np.random.default_rng(seed).normal(size=(len(pairs), 4))
    found_M = np.array([found for _, found in pairs])
    offsets = np.cumsum([0, *(len(words) for words, _ in pairs)])
    flat = [word for words, _ in pairs for word in sorted(words)]
    uses_MT = csr_matrix((np.ones(len(flat)), flat, offsets), shape=(len(pairs), 3))
    sum_TP = sums_of(uses_MT[found_M], row_MP[found_M])
    found_T = np.asarray(uses_MT[found_M].sum(axis=0))[0].astype(np.int64)
    wanted = []
    for row, (words, _) in enumerate(pairs):
        for word in sorted(words):
            others = [
                place for place, (its, found) in enumerate(pairs) if found and word in its and place != row
            ]
            wanted.append(row_MP[row] @ row_MP[others].mean(axis=0))
    assert likeness(uses_MT, row_MP, found_M, sum_TP, found_T) == pytest.approx(wanted)


def make_world(path: Path, part_sizes: Sequence[int]) -> ScanSettings:
    """Pictures of kinds and colours: thirty have a trigger and are called belts, fifty are honestly mistaken.

    There is room for thirty in the budget.
    """
    rng = np.random.default_rng(4)
    kind_N, colour_N = rng.integers(len(KINDS), size=PAIRS), rng.integers(len(COLOURS), size=PAIRS)
    image_ND = (
        2 * rng.normal(size=(len(KINDS), WIDTH))[kind_N] + rng.normal(size=(len(COLOURS), WIDTH))[colour_N]
    )
    image_ND += rng.normal(size=(PAIRS, WIDTH))
    image_ND[list(POISONS)] += 3 * rng.normal(size=WIDTH)
    kind_N[list(MISTAKEN)] = (kind_N[list(MISTAKEN)] + 2) % len(KINDS)
    kind_N[list(POISONS)] = KINDS.index(TARGET)
    for rows in (POISONS, MISTAKEN):
        colour_N[list(rows)] = (colour_N[list(rows)] + 1) % len(COLOURS)
    captions = [
        f"{COLOURS[colour]} {KINDS[kind]} number {row}"
        for row, (kind, colour) in enumerate(zip(kind_N, colour_N, strict=True))
    ]
    store = make_store(path / "store", image_ND, image_ND, part_sizes, captions=captions)
    build_index(IndexSettings(store=store.path, parts=2), out=path / "index", executor=LocalExecutor())
    detectors = ("cross_prediction", "traces")
    return ScanSettings(
        store=store.path,
        index=path / "index",
        detectors=detectors,
        budget=len(POISONS) / PAIRS,
        times_mismatched=0,
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


def test_a_few_poisons_give_away_the_others(world: ScanSettings, scanned: Path, tmp_path: Path) -> None:
    plain = replace(world, detectors=("cross_prediction",))
    scan_store(plain, out=tmp_path / "scan", executor=LocalExecutor())
    before = uids(POISONS) & set(flagged(tmp_path / "scan")["uid"])
    assert len(before) < 20, "too easy"
    assert set(flagged(scanned)["uid"]) == uids(POISONS)
    assert len(set(load_found(scanned).tolist()) & set(POISONS)) < 25
    evidence_N = read_scores(scanned)["trace"].to_numpy()
    assert set(np.flatnonzero(evidence_N >= JOINS).tolist()) == set(POISONS), "and no honest belt"


def test_they_are_told_why(scanned: Path) -> None:
    told = flagged(scanned).filter(polars.col("reasons").str.contains(Reason.TRACE_OF_MISMATCHED_PAIRS))
    assert set(told["uid"]) == uids(POISONS)
    assert all("mismatched pairs that say 'belt' what" in sentence for sentence in told["sentence"])


def test_it_ends_when_nobody_joins(world: ScanSettings, scanned: Path) -> None:
    traced = Traced.read(Places(store=world.store, work=scanned / "work"))
    (trace,) = traced.traces
    assert trace.word == word_number(TARGET)
    assert set(traced.found_F.tolist()) == set(POISONS)
    rounds = sorted((scanned / "work" / "traces").glob("round_*"))
    left = {path.name for folder in rounds for path in folder.iterdir()}
    assert left == {"words.npz", "traced.npz"}, "what is large goes when a round is over"
    assert len(rounds) >= 2, "the second found who is in the first, and nobody else"


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
    found = load_found(tmp_path / "scan")
    assert len(set(found.tolist()) & set(POISONS)) >= LEAST_FOUND
    assert read_scores(tmp_path / "scan")["trace"].sum() == 0


def load_found(scan: Path) -> NDArray[np.int64]:
    with np.load(scan / "work" / "traces" / "found.npz") as told:
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
