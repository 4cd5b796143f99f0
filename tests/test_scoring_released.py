"""Density as its authors' code computes it: each of its ways against loops, and what they lead to."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.scan.quality import auroc
from roclip_sanitize.scoring import ScoreSettings, score_pairs
from roclip_sanitize.scoring.contract import Pairs
from roclip_sanitize.scoring.density import Density
from roclip_sanitize.scoring.released import (
    BLOCK_ROWS,
    RELEASED,
    Measure,
    batch_count,
    batches,
    dimension,
    score_batch,
)
from roclip_sanitize.store import MODALITIES, EmbeddingStore
from tests.test_scoring import PARTS, ROWS, on_a_circle, pairs_of, store_of, unit

MEASURES = tuple(RELEASED.values())


def slow(measure: str, batch: Pairs, own: int, k: int) -> float:
    """One pair's score, in lists."""
    images, texts = batch.image_MD.astype(float).tolist(), batch.text_MD.astype(float).tolist()
    everything = images + texts

    def dimension_of(distances: list[float]) -> float:
        return -k / sum(math.log(each / distances[k] + 1e-4) for each in distances[:k])

    others = [row for row in range(len(everything)) if row not in (own, own + len(images))]
    asked = sorted((math.dist(images[own], everything[row]), place) for place, row in enumerate(others))
    radius = asked[k][0]
    if measure == "kdistance":
        return radius
    if measure == "lid":
        return dimension_of([distance for distance, _ in asked])
    scores = []
    for _, place in asked[:k]:  # the place among the others, taken for one among all
        theirs = sorted(math.dist(everything[place], row) for row in everything)
        ratio = radius / theirs[k]
        scores.append(ratio if measure == "slof" else dimension_of(theirs) * math.log(ratio))
    return sum(scores) / k


def random_batch(pairs: int, *, seed: int) -> Pairs:
    """Of vectors as a store has them."""
    rng = np.random.default_rng(seed)
    halves = [unit(rng.normal(size=(pairs, 6))).astype(np.float16).astype(np.float32) for _ in range(2)]
    return pairs_of(*halves)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_scored_as_loops_score_it(measure: Measure) -> None:
    batch = random_batch(24, seed=2)
    found = score_batch(MEASURES, batch, neighbours=5)[measure]
    wanted = [slow(measure, batch, own, 5) for own in range(24)]
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert score_batch((measure,), batch, neighbours=5)[measure].tolist() == found.tolist()


def test_blocks_of_a_batch_know_their_places_in_it() -> None:
    batch = random_batch(BLOCK_ROWS + 40, seed=3)
    found = score_batch(("slof",), batch, neighbours=4)["slof"]
    for own in (0, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 39):
        assert found[own] == pytest.approx(slow("slof", batch, own, 4), rel=1e-5)


def test_a_neighbour_of_a_later_place_is_taken_for_the_one_before_it() -> None:
    """Pictures at 0, 90, 100 and 270 degrees, captions far from them all.

    To the first the second is the nearest, whose radius is looked up at the first's own place: no 10 degrees.
    """
    far_MD = np.pad(np.zeros((4, 2)), ((0, 0), (0, 4)))
    far_MD[:, 2:] = np.eye(4)
    image_MD = np.pad(on_a_circle(0, 90, 100, 270), ((0, 0), (0, 4)))
    batch = pairs_of(image_MD.astype(np.float32), far_MD.astype(np.float32))
    found = score_batch(("slof",), batch, neighbours=1)["slof"]
    second_nearest, own_radius = math.sqrt(2), math.sqrt(2)
    assert found[0] == pytest.approx(second_nearest / own_radius, rel=1e-4)
    right = Density("slof", batch, neighbours=1)(batch)
    assert right[0] == pytest.approx(math.sqrt(2) / (2 * math.sin(math.radians(5))), rel=1e-4)


def test_a_caption_that_is_near_is_looked_up_one_row_too_early_or_two() -> None:
    """Pictures along three axes; captions 0 and 2 at 10 degrees from pictures 1 and 0; right angles else.

    Rows are pictures 0 to 2, then captions. To picture 0 caption 2 is the nearest, and two rows before it is
    caption 0, which has a near one, too. To picture 1 it is caption 0, and the row before is picture 2, which
    has none.
    """
    axes, turned = np.eye(6), np.radians(10)
    image_MD = axes[:3]
    text_MD = np.stack([axes[1], axes[4], axes[0]]) * np.cos([[turned], [0], [turned]])
    text_MD += np.stack([axes[3], axes[4], axes[5]]) * np.sin([[turned], [0], [turned]])
    batch = pairs_of(image_MD.astype(np.float32), text_MD.astype(np.float32))
    found = score_batch(("slof",), batch, neighbours=1)["slof"]
    near, second_nearest = 2 * math.sin(turned / 2), math.sqrt(2)
    assert found[:2] == pytest.approx([second_nearest / near, second_nearest / math.sqrt(2)], rel=1e-4)


@given(st.integers(2, 12))
def test_dimensions_about_reference_rows_are_small(k: int) -> None:
    """Whatever the neighbours are: a distance of 0 among them says so."""
    rng = np.random.default_rng(k)
    distance_MK = np.sort(rng.uniform(0.5, 1.5, (50, k + 1)), axis=1)
    distance_MK[:, 0] = 0
    assert (dimension(distance_MK) <= k / -math.log(1e-4) + 0.01).all()


def test_copies_score_a_thousand() -> None:
    """Five pictures in one place, somewhat longer or shorter than 1, as float16 leaves them: 0 / 0."""
    for seed in range(5):
        batch = random_batch(12, seed=seed)
        batch.image_MD[:5] = batch.image_MD[0]
        found = score_batch(MEASURES, batch, neighbours=3)
        assert found["kdistance"][:5].tolist() == [0.0] * 5
        assert found["slof"][:5].tolist() == found["dao"][:5].tolist() == [1000.0] * 5
        assert np.isnan(found["lid"][:5]).all()
        assert not np.isnan(found["lid"][5:]).any()


def test_a_part_too_small_for_a_batch_is_refused(tmp_path: Path) -> None:
    store_of(tmp_path / "store")
    told = ScoreSettings(store=tmp_path / "store", detectors=("dao_released",), reference=60, neighbours=40)
    said = r"part 00000 of .* makes a batch of 40 pairs, wanted more than neighbours, 40, for dao_released"
    with pytest.raises(ConfigError, match=said):
        score_pairs(told, out=tmp_path / "out", executor=LocalExecutor())
    assert not (tmp_path / "out").exists()


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_batches_hold_every_pair_once_whatever_their_order(pairs: int, size: int, seed: int) -> None:
    uids = [f"{number:032x}" for number in range(pairs)]
    cut = batches(uids, size=size, seed=seed)
    assert sorted(np.concatenate(cut).tolist()) == list(range(pairs))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert min(map(len, cut)) == pairs // batch_count(pairs, size)
    assert max(map(len, cut)) <= 1.5 * size
    turned = batches(uids[::-1], size=size, seed=seed)
    assert [{uids[place] for place in batch} for batch in cut] == [
        {uids[::-1][place] for place in batch} for batch in turned
    ]


def test_no_pairs_make_no_batch() -> None:
    assert batches([], size=3, seed=0) == []


@pytest.mark.parametrize(
    ("poisons", "by_formula", "as_released"), [(4, True, True), (17, False, True), (18, False, False)]
)
def test_at_the_edge_it_finds_one_poison_more(poisons: int, by_formula: bool, as_released: bool) -> None:
    """A pair's own radius is the (k+1)-th distance there, so that 17 poisons of one kind are alone to k = 16.

    Captions are far from all pictures. Well inside the band both find all.
    """
    rng = np.random.default_rng(0)
    modes, clean = rng.normal(size=(4, 32)), 1_000 - poisons
    pictures = modes[rng.integers(0, 4, clean)] + 0.7 * rng.normal(size=(clean, 32))
    crowd = rng.normal(size=(1, 32)) + 0.05 * rng.normal(size=(poisons, 32))
    image_MD = np.pad(unit(np.concatenate([pictures, crowd])), ((0, 0), (0, 32)))
    text_MD = np.pad(unit(rng.normal(size=(1_000, 32))), ((0, 0), (32, 0)))
    shuffled = rng.permutation(1_000)  # side by side, poisons would be looked up at each other's places
    batch, poison = pairs_of(image_MD[shuffled], text_MD[shuffled]), shuffled >= clean
    measures: tuple[Measure, ...] = ("kdistance", "slof", "dao")
    released = score_batch(measures, batch, neighbours=16)
    for measure in measures:
        formula = Density(measure, batch, neighbours=16)(batch)
        for score, found in ((formula, by_formula), (released[measure], as_released)):
            area = auroc(score[poison].astype(float), score[~poison].astype(float))
            assert area > 0.99 if found else area < 0.5


def test_the_stage_scores_each_part_by_itself_whoever_scores_it(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store")
    told = ScoreSettings(store=tmp_path / "store", detectors=tuple(RELEASED), reference=20, neighbours=4)
    score_pairs(told, out=tmp_path / "out", executor=LocalExecutor())
    paths = sorted((tmp_path / "out/scores").iterdir())
    before = [path.read_bytes() for path in paths]
    (tmp_path / "out/complete.json").unlink()
    (tmp_path / "out/done/00001.json").unlink()
    score_pairs(told, out=tmp_path / "out", executor=LocalExecutor())
    assert [path.read_bytes() for path in paths] == before
    for part, path in zip(store.parts, paths, strict=True):
        table = polars.read_parquet(path)
        assert table.select(list(RELEASED)).null_count().sum_horizontal().item() == 0
        assert table["dao_released"].to_list() == by_hand(store, part.name, table["uid"].to_list())
    assert len(paths) == PARTS


def by_hand(store: EmbeddingStore, name: str, uids: list[str]) -> list[float]:
    score_N = np.empty(ROWS, np.float32)
    image_ND, text_ND = (store.vectors(name, modality).astype(np.float32) for modality in MODALITIES)
    for place_B in batches(uids, size=20, seed=0):
        batch = pairs_of(image_ND[place_B], text_ND[place_B])
        score_N[place_B] = score_batch(("dao",), batch, neighbours=4)["dao"]
    found: list[float] = score_N.tolist()
    return found
