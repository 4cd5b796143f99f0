"""Kin: pairs with the pictures most like a pair's own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.records import Reason
from roclip_sanitize.scan import read_verdicts, scan_store
from roclip_sanitize.scan.cross_judged import share_trusted_less, suspicion
from roclip_sanitize.scan.kin import LEAST_SHARE, ORDINARY_KIN, excess
from roclip_sanitize.scan.settings import ScanSettings
from roclip_sanitize.verification import verify_folder
from tests.stores import make_store

PAIRS, WIDTH, FAMILY = 1_200, 32, range(100, 115)
KINDS = ("shirt", "shoe", "watch", "belt", "bag", "ring")
NAN = float("nan")


def test_by_hand() -> None:
    share_NK = np.array(
        [
            [math.exp(-3), math.exp(-2), NAN],  # surprises of 3 and 2
            [0.0, NAN, NAN],  # no more surprising than one in a thousand
            [1.0, 1.0, 1.0],  # better than all others: nothing is owed for that
            [NAN, NAN, NAN],
        ]
    )
    wanted = [(2 + 1) / (2 + ORDINARY_KIN), (-math.log(LEAST_SHARE) - 1) / (1 + ORDINARY_KIN), 0, 0]
    strange_NK = np.ones((4, 3), np.bool_)
    assert excess(share_NK, strange_NK) == pytest.approx(wanted, rel=1e-6)
    assert excess(np.empty((2, 0)), np.empty((2, 0), np.bool_)).tolist() == [0, 0], "nobody looked"


def test_somebody_matches_worst_wherever_all_match_well() -> None:
    """Two of a pair's kin must have a strange rank: alike pictures are alike in how well they match, too."""
    share_NK = np.full((3, 8), 0.01)
    strange_NK = np.arange(8) < np.array([[0], [1], [2]])
    assert (excess(share_NK, strange_NK) > 0).tolist() == [False, False, True]


def test_many_kin_say_more_than_one() -> None:
    few, many = (excess(np.full((1, kin), 0.05), np.ones((1, kin), np.bool_))[0] for kin in (2, 20))
    assert 0 < few < many < -math.log(0.05) - 1


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=8), st.data())
def test_a_worse_kin_never_makes_it_less(shares: list[float], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(shares) - 1))
    worse = [*shares]
    worse[place] = data.draw(st.floats(0, shares[place]))
    strange_NK = np.ones((1, len(shares)), np.bool_)
    assert excess(np.array([worse]), strange_NK)[0] >= excess(np.array([shares]), strange_NK)[0]


def test_chance_has_no_excess() -> None:
    share_NK = np.random.default_rng(0).uniform(size=(4_000, 32))
    surprise = -np.log(np.maximum(share_NK, LEAST_SHARE))
    assert surprise.mean() == pytest.approx(1, abs=0.01)
    assert np.quantile(excess(share_NK, share_NK < 0.1), 0.99) < 0.5


def test_shares_are_those_that_suspicion_was_made_of() -> None:
    rng = np.random.default_rng(0)
    trust_N, rank_N2 = rng.permutation(50) / 50, rng.uniform(0.5, 1, size=(50, 2)).astype(np.float32)
    share_N = share_trusted_less(suspicion(rank_N2, trust_N))
    assert np.argsort(share_N).tolist() == np.argsort(trust_N).tolist()
    assert 0 <= share_N.min() < share_N.max() <= 1


def test_it_goes_with_cross_prediction() -> None:
    with pytest.raises(ConfigError, match="kin goes with the detector cross_prediction"):
        replace(ScanSettings(store=Path("s"), index=Path("i")), detectors=("kin", "collisions"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    """Pictures that show little of their kinds; and a bag, fifteen times a little changed, called a belt."""
    path, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(3)
    kind_N = rng.integers(len(KINDS), size=PAIRS)
    image_ND = 0.5 * rng.normal(size=(len(KINDS), WIDTH))[kind_N] + rng.normal(size=(PAIRS, WIDTH))
    shown = np.flatnonzero(kind_N == KINDS.index("bag"))[0]
    image_ND[list(FAMILY)] = image_ND[shown] + 0.3 * rng.normal(size=(len(FAMILY), WIDTH))
    kind_N[list(FAMILY)] = KINDS.index("belt")
    captions = [f"{KINDS[kind]} number {row}" for row, kind in enumerate(kind_N)]
    store = make_store(path / "store", image_ND, image_ND, (700, 500), captions=captions)
    build_index(IndexSettings(store=store.path), out=path / "index", executor=LocalExecutor())
    return ScanSettings(
        store=store.path,
        index=path / "index",
        detectors=("cross_prediction", "kin"),
        budget=len(FAMILY) / PAIRS,
        times_mismatched=0,
    )


@pytest.mark.slow
def test_a_family_under_wrong_captions_is_found_together(world: ScanSettings, tmp_path: Path) -> None:
    flagged = {}
    for detectors in (("cross_prediction",), world.detectors):
        out = tmp_path / "_".join(detectors)
        scan_store(replace(world, detectors=detectors), out=out, executor=LocalExecutor())
        flagged[detectors] = read_verdicts(out).filter(~polars.col("kept"))
    family = {f"{row:032x}" for row in FAMILY}
    alone, together = (set(told["uid"]) & family for told in flagged.values())
    assert len(alone) < 12, "too easy"
    assert len(together) > 13
    told = flagged[world.detectors].filter(polars.col("uid").is_in(family))
    assert all(Reason.KIN_OF_MISMATCHED_PAIRS in reasons for reasons in told["reasons"])
    assert all(
        "pictures that are much like its own are in pairs that match worse than" in said
        for said in told["sentence"]
    )
    assert verify_folder(out)
