"""Cross prediction over a store: by hand, against the one in memory, interrupted, by several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import FOLDINGS, fits, share_worse_ties_half, trust_by_folds, trust_of
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.array_files import load_arrays
from roclip_sanitize.scan.columns import Columns, join_pieces
from roclip_sanitize.scan.cross_files import MOST_LOTS, Files, fold_of, lots_of, packed, strangers, unpacked
from roclip_sanitize.scan.cross_judged import count_strangers, read_judged, suspicion
from roclip_sanitize.scan.cross_rounds import cross_predict
from roclip_sanitize.scan.halves import Halves, read_directions
from roclip_sanitize.scan.looks import looks_at, told_second
from roclip_sanitize.scan.parts import PieceWorker, Places
from roclip_sanitize.scan.results import mismatched_share
from roclip_sanitize.store import (
    EmbeddingStore,
    StorePart,
    metadata_file,
    vectors_file,
    write_parquet,
    write_vectors,
)
from tests.stores import make_store
from tests.test_scan_stage import DyingExecutor, contents

KINDS = ("shoe", "bag", "watch", "shirt")
COLOURS = ("red", "blue", "green")
BRANDS = [letter + other for letter in "abcdef" for other in "uvwxyz"]
PAIRS = 240
SWAPPED = range(8)  # pictures of each other's kinds and colours
COPIES = range(230, 240)  # one picture, honest captions


def make_world(path: Path, part_sizes: Sequence[int]) -> EmbeddingStore:
    """Pictures that show kind and colour, captions that name both, and brands that nothing shows."""
    rng = np.random.default_rng(2)
    kind_N, colour_N = rng.integers(len(KINDS), size=PAIRS), rng.integers(len(COLOURS), size=PAIRS)
    kind_N[list(COPIES)], colour_N[list(COPIES)] = 1, 1
    captions = [
        f"{COLOURS[colour]} {KINDS[kind]} {' '.join(rng.choice(BRANDS, 4, replace=False))}"
        for kind, colour in zip(kind_N, colour_N, strict=True)
    ]
    kind_N[list(SWAPPED)] = (kind_N[list(SWAPPED)] + 2) % len(KINDS)
    colour_N[list(SWAPPED)] = (colour_N[list(SWAPPED)] + 1) % len(COLOURS)
    shown_ND = rng.normal(size=(len(KINDS), 16))[kind_N] + rng.normal(size=(len(COLOURS), 16))[colour_N]
    image_ND = shown_ND + 0.3 * rng.normal(size=(PAIRS, 16))
    image_ND[list(COPIES)] = image_ND[COPIES.start]
    hashes = [f"{COPIES.start if row in COPIES else row:032x}" for row in range(PAIRS)]
    return make_store(path, image_ND, image_ND, part_sizes, captions=captions, image_hashes=hashes)


def predicted(store: EmbeddingStore, work: Path, second: Sequence[Path] = ()) -> Files:
    """Cross prediction alone, without an index."""
    places = Places(store=store.path, work=work)
    StageFolder.create(work, stage="scan-work", settings={})
    for part in store.parts:
        PieceWorker(places)(part)
    join_pieces(places.columns, [part.name for part in store.parts])
    cross_predict(store, places, LocalExecutor(), second=second)
    return Files(places=places, look=looks_at(store.path)[0])


def joined(store: EmbeddingStore, path_of: Callable[[str], Path], name: str) -> NDArray[Any]:
    return np.concatenate([load_arrays(path_of(part.name))[name] for part in store.parts])


class TestByHand:
    def test_suspicion(self) -> None:
        # Places by the lower of both orders: the third, the first, the second.
        rank_N2 = np.array([[0.9, 0.7], [0.8, 0.9], [0.1, 0.9]], np.float32)
        trust_N = trust_of(rank_N2[:, 0], rank_N2[:, 1])
        np.testing.assert_allclose(trust_N * 3, [0, 2, 1])
        np.testing.assert_allclose(suspicion(rank_N2, trust_N), [1, 1 / 6, 5 / 6])

    def test_lots_do_not_grow_in_number(self) -> None:
        parts = [StorePart(name=f"{place:05d}", start=place, rows=1) for place in range(2 * MOST_LOTS + 1)]
        lots = lots_of(parts)
        assert len(lots) <= MOST_LOTS
        assert [part for lot in lots for part in lot.parts] == parts
        assert [len(lot.parts) for lot in lots_of(parts[:3])] == [1, 1, 1]
        assert lots_of([]) == []


def test_symmetric_squares_survive_packing() -> None:
    row_23MW = np.random.default_rng(0).standard_normal((2, 3, 9, 5))
    square_23WW = np.swapaxes(row_23MW, -1, -2) @ row_23MW
    assert packed(square_23WW).shape == (2, 3, 15)
    assert np.array_equal(unpacked(packed(square_23WW)), square_23WW)


@pytest.mark.parametrize("part_sizes", [(240,), (100, 140), (10, 0, 100, 1, 129)])
def test_parts_agree_with_all_at_once(tmp_path: Path, part_sizes: Sequence[int]) -> None:
    store = make_world(tmp_path / "store", part_sizes)
    files = predicted(store, tmp_path / "work")
    order_N2 = joined(store, files.last_ranks, "order")
    image_NP, caption_NE = (
        joined(store, files.halves, half).astype(np.float32) * directions.deviation_E
        for half, directions in zip(("picture", "caption"), read_directions(files), strict=True)
    )
    code_N = Columns(files.places.columns).picture_N
    picture_N = np.unique(code_N, return_inverse=True)[1]
    folds = [fold_of(code_N, folding).astype(np.int64) for folding in range(FOLDINGS)]
    rng = np.random.default_rng(0)  # for references: of so few pairs, all are
    trust_N = trust_by_folds(
        image_NP, caption_NE, picture_N, folds=folds, rng=rng, rank=share_worse_ties_half
    )
    found_N = trust_of(order_N2[:, 0], order_N2[:, 1])
    assert np.corrcoef(found_N, trust_N)[0, 1] > 0.999
    assert set(np.argsort(found_N)[: len(SWAPPED)]) == set(SWAPPED)


def test_captions_without_known_words_are_not_judged(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.eye(6), np.eye(6), (4, 2), captions=[*"abcdef"])
    files = predicted(store, tmp_path / "work")
    found = [read_judged(files.places, part) for part in store.parts]
    assert np.isnan(np.concatenate([suspicion_N for suspicion_N, _ in found])).all()
    assert np.isnan(np.concatenate([rank_N2 for _, rank_N2 in found])).all()


def unheard(row: int) -> str:
    """A word that no other caption has."""
    return "un" + "".join("abcdefghij"[int(digit)] for digit in f"{row:04d}")


@pytest.mark.parametrize("unread", [SWAPPED, range(PAIRS)], ids=["swapped", "all"])
def test_a_caption_without_known_words_is_judged_by_later_looks(
    tmp_path: Path, unread: Sequence[int]
) -> None:
    store = make_world(tmp_path / "store", (100, 0, 140))
    second = (second_store(tmp_path / "second", store).path,)
    for part in store.parts:
        frame, alone = store.metadata(part.name), set(unread)
        captions = [
            unheard(row) if row in alone else caption
            for row, caption in enumerate(frame["caption"], start=part.start)
        ]
        write_parquet(
            metadata_file(store.path, part.name), frame.with_columns(caption=polars.Series(captions))
        )
    files = predicted(store, tmp_path / "work", second=second)
    judged = [read_judged(files.places, part, second=second) for part in store.parts]
    suspicion_N, rank_N2 = (np.concatenate(each) for each in zip(*judged, strict=True))
    assert not np.isnan(suspicion_N).any()
    assert set(np.argsort(-suspicion_N, kind="stable")[: len(SWAPPED)]) == set(SWAPPED)
    assert (suspicion_N[list(SWAPPED)] > 1 / 2).all()
    later = Files(places=files.places, look=looks_at(store.path, second)[1])
    assert rank_N2[list(SWAPPED)] == pytest.approx(joined(store, later.last_ranks, "rank")[list(SWAPPED)])
    counted = count_strangers(files.places, store.parts, second=second)
    assert (counted.pairs, counted.strangers) == (PAIRS, PAIRS)


def test_strangers_are_made_of_captions_that_say_something(tmp_path: Path) -> None:
    store = make_world(tmp_path / "store", (PAIRS,))
    frame = store.metadata("00000")
    captions = [*frame["caption"][:-40], *map(unheard, range(40))]
    write_parquet(metadata_file(store.path, "00000"), frame.with_columns(caption=polars.Series(captions)))
    files = predicted(store, tmp_path / "work")
    met_N = strangers(Columns(files.places.columns).picture_N)
    said_N = np.arange(PAIRS) < PAIRS - 40
    counted = count_strangers(files.places, store.parts)
    assert (counted.pairs, counted.strangers) == (PAIRS - 40, (said_N & said_N[met_N]).sum())


def test_a_part_of_which_nothing_could_be_used_has_no_width(tmp_path: Path) -> None:
    """As embedding writes it."""
    store = make_world(tmp_path / "store", (100, 0, 140))
    write_vectors(vectors_file(store.path, "00001", "image"), np.zeros((0, 0)))
    files = predicted(store, tmp_path / "work")
    assert not np.isnan(read_judged(files.places, store.parts[2])[0]).any()


def test_equal_pictures_tell_nothing(tmp_path: Path) -> None:
    captions = ["red shoe"] * 3 + ["blue bag"] * 3
    store = make_store(tmp_path / "store", np.ones((6, 4)), np.ones((6, 4)), (6,), captions=captions)
    files = predicted(store, tmp_path / "work")
    assert np.isnan(read_judged(files.places, store.parts[0])[0]).all()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    path = tmp_path_factory.mktemp("world")
    make_world(path / "store", (100, 0, 140))
    build_index(IndexSettings(store=path / "store", parts=2), out=path / "index", executor=LocalExecutor())
    detectors = ("cross_prediction", "collisions")
    budget = len(SWAPPED) / PAIRS
    return ScanSettings(store=path / "store", index=path / "index", detectors=detectors, budget=budget)


@pytest.fixture(scope="module")
def scanned(settings: ScanSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scan")
    scan_store(settings, out=out, executor=LocalExecutor())
    return out


def test_swapped_pairs_are_flagged_and_explained(scanned: Path) -> None:
    verdicts = read_verdicts(scanned)
    flagged = verdicts.filter(verdicts["reasons"] == "picture_and_caption_disagree")
    assert flagged["uid"].to_list() == [f"{row:032x}" for row in SWAPPED]
    for told in flagged["sentence"]:
        assert " tell more of this " in told
        assert "; the pictures most like this one say '" in told
    assert (flagged["neighbours"] != "").all()
    scores = read_scores(scanned)
    assert (scores["cross_prediction"][: len(SWAPPED)] > 0.95).all()
    assert scores["agreement"].null_count() == PAIRS


def test_the_share_of_swapped_pairs_is_estimated(scanned: Path) -> None:
    """They are 3.3 % of all. The budget of as many is not lowered."""
    facts = StageFolder.open(scanned, stage="scan").facts
    assert facts["allowed"] == len(SWAPPED)
    assert facts["strangers"]["strangers"] == facts["strangers"]["pairs"] == PAIRS
    share = mismatched_share(scanned)
    assert share is not None
    assert 0.02 < share < 0.15


def test_strangers_are_ranked_as_if_they_were_pairs(tmp_path: Path) -> None:
    """By the last round's regressions, one by one: each picture with the caption that it met."""
    store = make_world(tmp_path / "store", (PAIRS,))
    files, part = predicted(store, tmp_path / "work"), store.parts[0]
    picture_N, last = Columns(files.places.columns).picture_N, files.look.last
    other_N = strangers(picture_N)
    halves, learnt = Halves(files, files.look.rounds[last]), load_arrays(files.learnt(last))
    ((_, picture_NP, caption_NE),) = halves.blocks(part)
    rank_N2 = load_arrays(files.last_ranks(part.name))["strangers"]
    for row in range(0, PAIRS, 17):
        wanted = np.zeros(2)
        for folding in range(FOLDINGS):
            fold = int(fold_of(picture_N[row : row + 1], folding)[0])
            picture_RP, caption_RE = halves.references(folding, fold)
            shown, said = picture_NP[row : row + 1], caption_NE[other_N[row]][None]
            for direction, (told, asked, asked_RE, name) in enumerate(
                ((shown, said, caption_RE, "to_picture"), (said, shown, picture_RP, "to_caption"))
            ):
                by = learnt[name][folding, fold]
                wanted[direction] += (
                    share_worse_ties_half(*fits(told, asked @ by, asked_RE @ by))[0] / FOLDINGS
                )
        assert rank_N2[row] == pytest.approx(wanted, abs=2e-3)


def second_store(path: Path, first: EmbeddingStore, *, seed: int = 3) -> EmbeddingStore:
    """A model's vectors of the same pairs: both halves show the kind, but of those that were swapped."""
    rng = np.random.default_rng(seed)
    frame = first.all_metadata(("caption", "image_hash"))
    said_N = np.array([KINDS.index(caption.split()[1]) for caption in frame["caption"]])
    shown_N = np.where(np.isin(np.arange(PAIRS), SWAPPED), (said_N + 2) % len(KINDS), said_N)
    vectors = [rng.normal(size=(len(KINDS), 16))[kind_N] for kind_N in (shown_N, said_N)]
    vectors = [rows + 0.2 * rng.normal(size=rows.shape) for rows in vectors]
    sizes = [part.rows for part in first.parts]
    image_ND, text_ND = vectors
    captions, hashes = frame["caption"].to_list(), frame["image_hash"].to_list()
    return make_store(path, image_ND, text_ND, sizes, captions=captions, image_hashes=hashes)


@pytest.mark.parametrize("models", [1, 2])
def test_second_look_is_the_mean_of_all(tmp_path: Path, models: int) -> None:
    """Each look again agrees with the arithmetic in memory, started from what the first found."""
    store = make_world(tmp_path / "store", (100, 0, 140))
    second = [second_store(tmp_path / f"second_{n}", store, seed=3 + n).path for n in range(models)]
    first = predicted(store, tmp_path / "work", second=second)
    code_N = Columns(first.places.columns).picture_N
    picture_N = np.unique(code_N, return_inverse=True)[1]
    folds = [fold_of(code_N, folding).astype(np.int64) for folding in range(FOLDINGS)]
    trusts = []
    for look in looks_at(store.path, second):
        files = Files(places=first.places, look=look)
        order_N2 = joined(store, files.last_ranks, "order")
        trusts.append(trust_of(order_N2[:, 0], order_N2[:, 1]))
        if not look.name:
            continue
        image_NP, caption_NE = (
            joined(store, files.halves, half).astype(np.float32) * directions.deviation_E
            for half, directions in zip(("picture", "caption"), read_directions(files), strict=True)
        )
        trust_N = trust_by_folds(
            image_NP,
            caption_NE,
            picture_N,
            folds=folds,
            rng=np.random.default_rng(0),
            trust_N=trusts[0],
            rank=share_worse_ties_half,
        )
        assert np.corrcoef(trusts[-1], trust_N)[0, 1] > 0.999
    assert len(trusts) == 1 + models
    if models > 1:
        assert not np.array_equal(trusts[1], trusts[2]), "each looks in vectors of its own"
    judged = [read_judged(first.places, part, second=second) for part in store.parts]
    suspicion_N, rank_N2 = (np.concatenate(each) for each in zip(*judged, strict=True))
    ranks = [
        joined(store, Files(places=first.places, look=look).last_ranks, "rank")
        for look in looks_at(store.path, second)
    ]
    assert rank_N2 == pytest.approx(np.mean(ranks, axis=0), abs=1e-6, nan_ok=True)
    worst_first = np.argsort(-suspicion_N, kind="stable")
    assert set(worst_first[: len(SWAPPED)]) == set(SWAPPED)
    assert np.corrcoef(np.sum(trusts, axis=0), -suspicion_N)[0, 1] > 0.9


def test_a_second_look_at_other_pairs_is_refused(settings: ScanSettings, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", np.eye(PAIRS), np.eye(PAIRS), (100, 0, 140))
    frame = other.metadata("00000")
    write_parquet(metadata_file(other.path, "00000"), frame.with_columns(uid=frame["uid"].reverse()))
    few = make_store(tmp_path / "few", np.eye(9), np.eye(9), (9,))
    for second, words in ((other, "one by one"), (few, "has 1 parts, wanted the 3")):
        with pytest.raises(MismatchError, match=words):
            scan_store(
                replace(settings, second_look=(second.path,)), out=tmp_path / "out", executor=LocalExecutor()
            )
    with pytest.raises(ConfigError, match="goes with the detector cross_prediction"):
        replace(settings, detectors=("collisions",), second_look=(other.path,))
    with pytest.raises(ConfigError, match=r"second-look names .*other 2 times"):
        replace(settings, second_look=(other.path, few.path, other.path))


def test_stores_of_second_looks_are_told_as_they_ever_were() -> None:
    assert told_second({}) == {}
    assert told_second({"second_look": "a", "second_look_content": "1f"}) == {Path("a"): "1f"}
    several = {"second_look": ["b", "a"], "second_look_content": ["2f", "1f"]}
    assert list(told_second(several).items()) == [(Path("b"), "2f"), (Path("a"), "1f")]


@pytest.mark.parametrize("tasks", [20, 60, 75])
def test_second_look_killed_and_resumed_gives_the_same_bytes(
    settings: ScanSettings, tmp_path: Path, tasks: int
) -> None:
    second = second_store(tmp_path / "second", EmbeddingStore.open(settings.store))
    twice = replace(settings, second_look=(second.path,))
    scan_store(twice, out=tmp_path / "whole", executor=LocalExecutor())
    with pytest.raises(KeyboardInterrupt):
        scan_store(twice, out=tmp_path / "killed", executor=DyingExecutor(tasks))
    scan_store(twice, out=tmp_path / "killed", executor=LocalExecutor())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("tasks", [4, 30, 51])
def test_killed_and_resumed_gives_the_same_bytes(
    settings: ScanSettings, scanned: Path, tmp_path: Path, tasks: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        scan_store(settings, out=tmp_path, executor=DyingExecutor(tasks))
    scan_store(settings, out=tmp_path, executor=LocalExecutor())
    assert contents(tmp_path) == contents(scanned)


class TwoWorkers(LocalExecutor):
    """Two workers that take turns, the last task first."""

    def map(self, make_worker: Callable[[], Callable[[Any], Any]], tasks: Iterable[Any]) -> Iterator[Any]:
        backwards = list(tasks)[::-1]
        workers = [make_worker(), make_worker()] if backwards else []
        for place, task in enumerate(backwards):
            yield workers[place % 2](task)


def test_another_number_of_workers_gives_the_same_bytes(
    settings: ScanSettings, scanned: Path, tmp_path: Path
) -> None:
    scan_store(settings, out=tmp_path, executor=TwoWorkers())
    assert contents(tmp_path) == contents(scanned)


def test_detectors_share_one_budget(settings: ScanSettings, tmp_path: Path) -> None:
    every = ScanSettings(store=settings.store, index=settings.index, budget=settings.budget, neighbours=6)
    scan_store(every, out=tmp_path, executor=LocalExecutor())
    verdicts = read_verdicts(tmp_path)
    flagged = verdicts.filter(verdicts["reasons"].str.contains("disagree"))
    assert flagged["uid"].to_list() == [f"{row:032x}" for row in SWAPPED]
    one = "picture_and_caption_disagree"
    assert set(flagged["reasons"]) == {one, f"{one};neighbours_disagree"}
