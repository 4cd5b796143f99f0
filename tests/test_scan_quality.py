"""Detection quality on tables made by hand."""

from __future__ import annotations

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.scan import detection_quality
from roclip_sanitize.scan.quality import auroc

SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
UIDS = [f"{place:032x}" for place in range(6)]


def tables(agreement: list[float | None], kept: list[bool]) -> tuple[polars.DataFrame, polars.DataFrame]:
    ones = [1] * 6
    scores = polars.DataFrame(
        {"uid": UIDS, "agreement": agreement, "captions_of_picture": ones, "pictures_of_caption": ones}
    )
    return scores, polars.DataFrame({"uid": UIDS, "kept": kept})


def test_a_perfect_scan() -> None:
    scores, verdicts = tables([0.1, 0.2, 0.3, 0.4, 0.8, 0.9], [True] * 4 + [False] * 2)
    found = detection_quality(scores, verdicts, {UIDS[4]: "patch", UIDS[5]: "targeted"})
    values = {(one.metric, one.attack, one.detector): one.value for one in found}
    assert values["auroc", "patch", "agreement"] == values["auroc", "targeted", "agreement"] == 1.0
    assert values["auroc", "patch", "captions_of_picture"] == 0.5  # all counts equal: no better than chance
    assert values["poison_recall", "patch", None] == values["poison_recall", "targeted", None] == 1.0
    assert values["clean_lost", None, None] == 0.0


def test_half_found_and_one_clean_pair_in_four_lost() -> None:
    scores, verdicts = tables([0.1, 0.2, 0.3, 0.85, 0.8, 0.9], [True, True, True, False, True, False])
    found = detection_quality(scores, verdicts, dict.fromkeys(UIDS[4:], "patch"))
    values = {(one.metric, one.detector): (one.value, one.n) for one in found}
    assert values["auroc", "agreement"] == (7 / 8, 2)  # of 2 × 4 comparisons one is lost
    assert values["poison_recall", None] == (0.5, 2)
    assert values["clean_lost", None] == (0.25, 4)


def test_scores_that_a_scan_did_not_give_are_left_out() -> None:
    scores, verdicts = tables([None] * 6, [True] * 6)
    found = detection_quality(scores, verdicts, dict.fromkeys(UIDS[4:], "patch"))
    assert {one.detector for one in found} == {"captions_of_picture", "pictures_of_caption", None}


def test_a_pair_without_a_score_is_neutral() -> None:
    scores, verdicts = tables([0.1, 0.2, 0.3, None, 0.4, 0.9], [True] * 6)
    found = detection_quality(scores, verdicts, dict.fromkeys(UIDS[4:], "patch"))
    assert found[0].value == 7 / 8


def test_poisons_that_were_never_scanned_do_not_count() -> None:
    scores, verdicts = tables([0.1, 0.2, 0.3, 0.4, 0.8, 0.9], [True] * 5 + [False])
    found = detection_quality(scores, verdicts, {UIDS[5]: "patch", "f" * 32: "patch"})
    assert {one.n for one in found if one.attack == "patch"} == {1}


def test_a_cover_sample_is_neither_found_nor_lost() -> None:
    """One is as suspicious as a poison and set aside, one is kept: nothing changes."""
    scores, verdicts = tables([0.1, 0.95, 0.3, 0.85, 0.8, 0.9], [True, False, True, False, True, False])
    found = detection_quality(scores, verdicts, dict.fromkeys(UIDS[4:], "patch"), covers={UIDS[1], UIDS[2]})
    values = {(one.metric, one.detector): (one.value, one.n) for one in found}
    assert values["auroc", "agreement"] == (3 / 4, 2)  # of 2 × 2 comparisons one is lost
    assert values["poison_recall", None] == (0.5, 2)
    assert values["clean_lost", None] == (0.5, 2)


@given(st.lists(SCORES, min_size=1), st.lists(SCORES, min_size=1))
def test_auroc_counts_comparisons_won(poison: list[float], clean: list[float]) -> None:
    won = sum((one > other) + (one == other) / 2 for one in poison for other in clean)
    assert auroc(np.array(poison), np.array(clean)) == pytest.approx(won / len(poison) / len(clean))


def test_no_poison_no_quality() -> None:
    scores, verdicts = tables([0.1] * 6, [True] * 6)
    with pytest.raises(MismatchError, match="0 of 6 pairs are poisons"):
        detection_quality(scores, verdicts, {})
