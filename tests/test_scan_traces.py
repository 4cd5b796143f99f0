"""Traces: by hand, a slow reference, and a trigger of which a few poisons tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
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
from roclip_sanitize.errors import ConfigError, MismatchError
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
from roclip_sanitize.scan.suspects import Suspects
from roclip_sanitize.scan.traced import Compared, Evidence, Traced, grow, refine, single_out
from roclip_sanitize.scan.traces import (
    DEVIATIONS,
    JOINS,
    LEAST_CARRIERS,
    LEAST_GAP,
    LEAST_OTHERS,
    LEAST_SUSPECTS,
    MOST_EVIDENCE,
    MOST_WORDS,
    NEAR,
    STANDS_OUT,
    Trace,
    choose_words,
    likeness,
    stand_out,
    sums_of,
    weight_of,
)
from roclip_sanitize.store import StorePart
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

    def test_a_stamp_that_shows_unevenly_has_one_too(self) -> None:
        """Suspects differ by 4 at the median, others by 1: 26 apart, 4.4 large spreads, 7 mean ones."""
        like = np.array([20.0, 24, 28, 32, 36, *self.others])
        suspect_M = np.arange(len(like)) < 5
        assert Trace.of(7, like, suspect_M) is None
        trace = Trace.of(7, like, suspect_M, uneven=True)
        assert trace is not None
        assert trace.spread == pytest.approx(DEVIATIONS * (4 + 1) / 2)
        assert trace.gap == pytest.approx(26 / trace.spread)

    def test_evidence_is_a_likelihood_ratio(self) -> None:
        trace = Trace(word=7, found=5, others=9, origin=2.0, spread=0.5, gap=3.0)
        like_M = np.array([2.0, 2.75, 2.85, 3.5])  # the others' median, half way, a fifth more, all
        assert trace.evidence(like_M) == pytest.approx([0, 0, 3 * 0.2, 4.5]), "in the end gap squared, halved"
        assert replace(trace, gap=6.0).evidence(np.array([5.0])) == pytest.approx([MOST_EVIDENCE])

    def test_there_is_none_far_below_the_suspects(self) -> None:
        """Eight of ten spreads up are near enough, seven and a half are a tail of the others."""
        trace = Trace(word=7, found=5, others=9, origin=0.0, spread=1.0, gap=10.0)
        above_M = np.array([7.5, 10 - NEAR, 9.0])
        assert (trace.evidence(above_M) >= JOINS).tolist() == [False, True, True]
        assert trace.evidence(above_M)[0] == 0
        assert trace.evidence(above_M, uneven=True)[0] >= JOINS

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


def test_weights_by_hand() -> None:
    rank_M = np.array([0.0, 0.25, 0.5, 0.9, np.nan], np.float32)
    assert weight_of(rank_M) == pytest.approx([1, 0.5, 0, 0, 0])


def test_who_stands_out_by_hand() -> None:
    like_M = np.array([-1.0, 0, 0, 1, 1, -1, 9, DEVIATIONS * STANDS_OUT - 0.01])  # median 0, deviations 1
    assert np.flatnonzero(stand_out(like_M)).tolist() == [6]
    assert not stand_out(np.array([1.0, 1, 1, 9])).any(), "there is no spread to measure by"


class TestWords:
    def chosen(self, counts: int, *, weight: float = 1.0, pairs: int = 1_000, **used: int) -> list[int]:
        """Of twenty suspects the first so many use each word."""
        uses_FW = np.zeros((20, 10))
        for name, count in used.items():
            uses_FW[:count, int(name[1:])] = 1
        wide = csr_matrix(uses_FW)
        wide.resize((20, WORD_NUMBERS))
        count_W = np.full(WORD_NUMBERS, counts)
        return [*map(int, choose_words(wide, np.full(20, weight), count_W, pairs=pairs))]

    def test_by_hand(self) -> None:
        """One of fifty pairs is. Of those with word 3 one in ten is, with 4 as many as elsewhere."""
        used = {"w3": 10, "w4": 2, "w5": LEAST_SUSPECTS - 1, "w6": 6}
        assert self.chosen(100, **used) == [3, 6]
        assert self.chosen(10 + LEAST_OTHERS, **used) == [3, 6]
        assert self.chosen(10 + LEAST_OTHERS - 1, **used) == [6], "too few others"
        assert self.chosen(400, **used) == [], "it is used too often to tell"

    def test_only_how_weights_compare_counts(self) -> None:
        assert self.chosen(100, weight=0.01, w3=10) == [3]

    def test_the_most_telling_ones_where_there_are_many(self) -> None:
        uses_FW = csr_matrix(np.ones((30, MOST_WORDS + 9)))
        uses_FW.resize((30, WORD_NUMBERS))
        count_W = np.full(WORD_NUMBERS, 100)
        count_W[5] = 90
        chosen = choose_words(uses_FW, np.ones(30), count_W, pairs=1_000).tolist()
        assert len(chosen) == MOST_WORDS
        assert 5 in chosen

    def test_no_suspects(self) -> None:
        nobody = csr_matrix((0, WORD_NUMBERS))
        assert choose_words(nobody, np.zeros(0), np.full(WORD_NUMBERS, 9), pairs=0).tolist() == []


def compared(like: Sequence[float], suspects: Sequence[int], *, word: int = 7) -> Compared:
    """Pairs with these likenesses, in rows' order."""
    row_M = np.arange(len(like))
    return Compared(word, row_M, np.array(like, float), np.isin(row_M, suspects))


class TestRounds:
    """Eight with the trigger, of which five are suspected, and twelve without."""

    like = (*[20.0] * 4, *[21.0] * 4, *[0.0, 1, 2, 1] * 3)
    five, eight = range(5), range(8)

    def test_who_stands_out_is_suspected_next(self) -> None:
        like = (*[20.0] * 8, *[0.0, 1, 2, 1] * 6)
        members = single_out([compared(like, range(3)), compared([*range(30)], range(3), word=9)])
        assert {word: row_M.tolist() for word, row_M in members.items()} == {7: [*self.eight]}

    def test_seeds_are_carried_by_many_half_of_them_below_one_half(self) -> None:
        for suspected, many in ((range(4), True), (range(3), False)):
            traced, members = refine([compared(self.like, self.five)], np.array(suspected))
            assert members[7].tolist() == [*self.eight], "as suspects they are good enough"
            assert traced.found_F.tolist() == [*self.eight] * many

    def test_seven_are_too_few(self) -> None:
        less = self.like[1:]
        traced, members = refine([compared(less, self.five)], np.arange(9))
        assert len(members[7]) == LEAST_CARRIERS - 1
        assert not traced.traces
        nothing = grow([compared(less, self.five)], before=Traced.nothing())
        assert not nothing.traces

    def test_a_word_without_a_gap_is_asked_about_no_more(self) -> None:
        traced, members = refine([compared([*range(20)], self.five)], np.arange(9))
        assert (traced.traces, members) == ((), {})

    def test_growth_forgets_nothing(self) -> None:
        known = refine([compared(self.like, self.five, word=3)], np.arange(8))[0]
        grown = grow([compared([*range(20)], self.five, word=3)], before=known)
        assert (grown.found_F.tolist(), grown.traces) == ([*self.eight], known.traces)
        more = grow([compared(self.like[::-1], range(15, 20), word=9)], before=known)
        assert more.found_F.tolist() == [*self.eight, *range(12, 20)]
        assert [trace.word for trace in more.traces] == [3, 9]

    def test_of_two_words_the_more_telling_is_told(self) -> None:
        row_M, evidence_M = np.array([4, 9]), np.array([MOST_EVIDENCE, 2.0])
        rare, common = (
            Trace(word=word, found=6, others=others, origin=0.0, spread=1.0, gap=6.0)
            for word, others in ((5, 20), (2, 90))
        )
        traced = Traced.of([Evidence(common, row_M, evidence_M), Evidence(rare, row_M, evidence_M / 2)])
        assert traced.word_R.tolist() == [2, 2], "whose evidence is larger"
        traced = Traced.of([Evidence(common, row_M, evidence_M), Evidence(rare, row_M, evidence_M)])
        assert traced.word_R.tolist() == [5, 5]


def test_members_and_back(tmp_path: Path) -> None:
    members = Suspects.members({9: np.array([2, 5]), 4: np.array([5, 7, 8]), 6: np.array([], np.int64)})
    again = Suspects.load(members.write(tmp_path / "suspects.npz"))
    assert again.same(members)
    assert again.word_T.tolist() == [4, 6, 9]
    assert [again.of_word(place).tolist() for place in range(3)] == [[5, 7, 8], [], [2, 5]]
    assert again.weight_T.tolist() == [3, 0, 2]
    assert not again.same(Suspects.members({9: np.array([2, 5]), 4: np.array([5, 7, 9])}))
    part = StorePart(name="00000", start=4, rows=3)
    assert again.of_part(part).toarray().tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]


PAIR = st.tuples(st.lists(st.integers(0, 2), max_size=3, unique=True), st.booleans())


@given(st.lists(PAIR, min_size=1, max_size=12), st.integers(0, 99))
def test_likeness_is_that_to_the_mean_of_the_others(pairs: list[tuple[list[int], bool]], seed: int) -> None:
    pairs = [([0, 1, 2], True), ([0, 1, 2], True), *pairs]  # so that each word has two
    rng = np.random.default_rng(seed)
    row_MP, weight_M = rng.normal(size=(len(pairs), 4)), rng.uniform(0.1, 1, len(pairs))
    weight_M[[not suspect for _, suspect in pairs]] = 0
    offsets = np.cumsum([0, *(len(words) for words, _ in pairs)])
    flat = [word for words, _ in pairs for word in sorted(words)]
    uses_MT = csr_matrix((np.ones(len(flat)), flat, offsets), shape=(len(pairs), 3))
    weight_MT = csr_matrix(uses_MT.multiply(weight_M[:, None]))
    weight_T = np.asarray(weight_MT.sum(axis=0))[0]
    wanted = []
    for row, (words, _) in enumerate(pairs):
        for word in sorted(words):
            others = [place for place, (its, _) in enumerate(pairs) if word in its and place != row]
            mean_P = np.average(row_MP[others], axis=0, weights=weight_M[others])
            wanted.append(row_MP[row] @ mean_P)
    found_U = likeness(uses_MT, row_MP, weight_MT, sums_of(weight_MT, row_MP), weight_T)
    assert found_U == pytest.approx(wanted)


def make_world(path: Path, part_sizes: Sequence[int], *, unseen: bool = False) -> ScanSettings:
    """Pictures of kinds and colours: thirty have a trigger and are called belts, fifty are honestly mistaken.

    There is room for thirty in the budget. An ``unseen`` trigger is in the textures alone.
    """
    rng = np.random.default_rng(4)
    kind_N, colour_N = rng.integers(len(KINDS), size=PAIRS), rng.integers(len(COLOURS), size=PAIRS)
    image_ND = (
        2 * rng.normal(size=(len(KINDS), WIDTH))[kind_N] + rng.normal(size=(len(COLOURS), WIDTH))[colour_N]
    )
    image_ND += rng.normal(size=(PAIRS, WIDTH))
    trigger_D = 3 * rng.normal(size=WIDTH)
    if unseen:
        texture_ND = rng.normal(size=(PAIRS, WIDTH))
        texture_ND[list(POISONS)] += trigger_D
        make_store(path / "textures", texture_ND, texture_ND, part_sizes)
    else:
        image_ND[list(POISONS)] += trigger_D
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


def test_a_few_poisons_give_away_the_others(world: ScanSettings, scanned: Path, tmp_path: Path) -> None:
    plain = replace(world, detectors=("cross_prediction",))
    scan_store(plain, out=tmp_path / "scan", executor=LocalExecutor())
    before = uids(POISONS) & set(flagged(tmp_path / "scan")["uid"])
    assert len(before) < 20, "too easy"
    assert set(flagged(scanned)["uid"]) == uids(POISONS)
    assert len(set(suspected(scanned).tolist()) & set(POISONS)) < 30, "some fit their captions"
    evidence_N = read_scores(scanned)["trace"].to_numpy()
    assert set(np.flatnonzero(evidence_N >= JOINS).tolist()) == set(POISONS), "and no honest belt"


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
        other = make_store(tmp_path / "other", np.eye(4), np.eye(4), (4,))
        told = replace(world, textures=other.path)
        with pytest.raises(MismatchError, match="holds 4 pairs, which are not the 1,800 of"):
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
    assert all("mismatched pairs that say 'belt' what" in sentence for sentence in told["sentence"])


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
