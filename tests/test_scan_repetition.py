"""Repetition: crowds counted by hand and one by one, and a crowd that no other detector finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.scan import ScanSettings, read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.repetition import crowd, suspicion
from roclip_sanitize.verification import verify_folder
from tests.stores import make_store

CROWD = range(60, 70)  # ten pictures, alike but no copies, that say the same
SERIES = range(70, 73)  # a shop's three
PAIRS = 73


def test_a_crowd_by_hand() -> None:
    caption = np.array([7, 7, 7, 8, 9], np.uint64)
    neighbours_NK = np.array([[1, 2, 3], [0, 3, -1], [4, -1, -1]])
    assert crowd(np.array([0, 1, 3]), neighbours_NK, caption).tolist() == [3, 2, 1]


def test_a_row_that_is_not_there_has_no_caption() -> None:
    """Row -1 is the last one, were it looked up."""
    assert crowd(np.array([0]), np.array([[-1, -1]]), np.array([5, 5], np.uint64)).tolist() == [1]


@given(
    arrays(np.int64, (6, 3), elements=st.integers(-1, 5)), arrays(np.uint64, 6, elements=st.integers(0, 2))
)
def test_against_counting_one_by_one(
    neighbours_NK: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    caption: np.ndarray[tuple[int], np.dtype[np.uint64]],
) -> None:
    wanted = [
        1 + sum(int(other >= 0 and caption[other] == caption[row]) for other in neighbours_NK[row])
        for row in range(6)
    ]
    assert crowd(np.arange(6), neighbours_NK, caption).tolist() == wanted


@given(st.integers(2, 20))
def test_a_crowd_is_suspicious_from_the_least_on(least: int) -> None:
    score_N = suspicion(np.arange(1, 42, dtype=np.int32), least=least)
    assert (score_N[: least - 1] == 0).all()
    assert (score_N[least - 1 :] > 0.5).all()
    assert (np.diff(score_N[least - 1 :]) > 0).all()
    assert score_N.max() < 1


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan for repetition alone, of pairs in three parts, with room for a fifth of them."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    image_ND = rng.normal(size=(PAIRS, 16))
    for rows in (CROWD, SERIES):
        image_ND[rows] = 4 * rng.normal(size=16) + rng.normal(size=(len(rows), 16))
    captions = [f"thing number {row}" for row in range(PAIRS)]
    for rows in (CROWD, SERIES):
        for row in rows:
            captions[row] = "A  Cake" if row % 2 else "a cake"  # which is the same
    make_store(root / "store", image_ND, image_ND, (20, 44, 9), captions=captions)
    build_index(IndexSettings(store=root / "store", parts=2), out=root / "index", executor=LocalExecutor())
    told = ScanSettings(
        store=root / "store", index=root / "index", detectors=("repetition",), neighbours=12, budget=0.2
    )
    scan_store(told, out=root / "scan", executor=LocalExecutor())
    return root / "scan"


def test_a_crowd_is_set_aside_and_a_series_is_not(scanned: Path) -> None:
    verdicts = read_verdicts(scanned)
    flagged = verdicts.filter(~polars.col("kept"))
    assert flagged["uid"].to_list() == [f"{row:032x}" for row in CROWD]
    assert set(flagged["reasons"]) == {"caption_repeated"}
    assert set(flagged["sentence"]) == {"9 of the 12 pictures most like this one have exactly its caption"}


def test_its_score_is_in_the_tables(scanned: Path) -> None:
    scores = read_scores(scanned)
    assert scores["repetition"][CROWD.start] == pytest.approx(10 / 17)
    assert scores["repetition"].sum() == pytest.approx(10 * 10 / 17)
    assert scores["agreement"].null_count() == PAIRS, "nobody asked for it"


def test_its_verdicts_are_verified(scanned: Path) -> None:
    said = [str(check) for check in verify_folder(scanned)]
    assert any("10 pairs are set aside, as counted; 10 of them by the budget" in line for line in said)
