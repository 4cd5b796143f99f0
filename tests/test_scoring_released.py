"""Density as its authors' code computes it: each of its ways against loops, and what they lead to."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.scan.quality import auroc
from roclip_sanitize.scoring import ScoreSettings, score_pairs
from roclip_sanitize.scoring.contract import Pairs
from roclip_sanitize.scoring.density import Density
from roclip_sanitize.scoring.released import RELEASED, batches, dimension, score_batch
from tests.test_scoring import on_a_circle, pairs_of, store_of, unit

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


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_scored_as_loops_score_it(measure: str) -> None:
    rng = np.random.default_rng(2)
    batch = pairs_of(unit(rng.normal(size=(24, 6))), unit(rng.normal(size=(24, 6))))
    found = score_batch(MEASURES, batch, neighbours=5)[measure]  # type: ignore[index]
    assert found == pytest.approx([slow(measure, batch, own, 5) for own in range(24)], rel=2e-3)


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


@given(st.integers(2, 12))
def test_dimensions_about_reference_rows_are_small(k: int) -> None:
    """Whatever the neighbours are: a distance of 0 among them says so."""
    rng = np.random.default_rng(k)
    distance_MK = np.sort(rng.uniform(0.5, 1.5, (50, k + 1)), axis=1)
    distance_MK[:, 0] = 0
    assert (dimension(distance_MK) <= k / -math.log(1e-4) + 0.01).all()


def test_copies_score_a_thousand() -> None:
    """Three pictures in one place, with their captions: a radius of 0, and 0 / 0."""
    same = on_a_circle(0, 0, 0, 0, 90)
    found = score_batch(("slof",), pairs_of(same), neighbours=3)["slof"]
    assert found[:4].tolist() == [1000.0] * 4


def test_too_small_a_batch_says_nothing() -> None:
    assert np.isnan(score_batch(("dao",), pairs_of(on_a_circle(0, 10)), neighbours=2)["dao"]).all()
    assert not np.isnan(score_batch(("dao",), pairs_of(on_a_circle(0, 10)), neighbours=1)["dao"]).any()


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_batches_hold_every_pair_once_whatever_their_order(pairs: int, size: int, seed: int) -> None:
    uids = [f"{number:032x}" for number in range(pairs)]
    cut = batches(uids, size=size, seed=seed)
    assert sorted(np.concatenate(cut).tolist()) == list(range(pairs))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    turned = batches(uids[::-1], size=size, seed=seed)
    assert [{uids[place] for place in batch} for batch in cut] == [
        {uids[::-1][place] for place in batch} for batch in turned
    ]


def test_at_the_edge_it_finds_one_poison_more() -> None:
    """A pair's own radius is the (k+1)-th distance there, so that 17 poisons of one kind are alone to k = 16.

    Captions are far from all pictures.
    """
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(4, 32))
    clean = modes[rng.integers(0, 4, 983)] + 0.7 * rng.normal(size=(983, 32))
    poison = rng.normal(size=(1, 32)) + 0.05 * rng.normal(size=(17, 32))
    image_MD = np.pad(unit(np.concatenate([clean, poison])), ((0, 0), (0, 32))).astype(np.float32)
    text_MD = np.pad(unit(rng.normal(size=(1_000, 32))), ((0, 0), (32, 0))).astype(np.float32)
    batch = pairs_of(image_MD, text_MD)
    found = {
        "released": score_batch(("kdistance",), batch, neighbours=16)["kdistance"],
        "formula": Density("kdistance", batch, neighbours=16)(batch),
    }
    area = {
        name: float(auroc(score[983:].astype(float), score[:983].astype(float)))
        for name, score in found.items()
    }
    assert area["released"] > 0.99
    assert area["formula"] < 0.5


def test_the_stage_scores_all_pairs_the_same_again(tmp_path: Path) -> None:
    store_of(tmp_path / "store")
    told = ScoreSettings(store=tmp_path / "store", detectors=tuple(RELEASED), reference=20, neighbours=4)
    for out in ("one", "again"):
        score_pairs(told, out=tmp_path / out, executor=LocalExecutor())
    tables = [
        [polars.read_parquet(path) for path in sorted((tmp_path / out / "scores").iterdir())]
        for out in ("one", "again")
    ]
    for mine, theirs in zip(*tables, strict=True):
        assert mine.equals(theirs)
        assert mine.select(list(RELEASED)).null_count().sum_horizontal().item() == 0
