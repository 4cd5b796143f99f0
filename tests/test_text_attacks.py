"""Which pictures poisoned captions find: worked examples by hand, and a slow count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation import text_attacks
from roclip_sanitize.evaluation.counts import Count, Sample
from roclip_sanitize.evaluation.text_attacks import Asked, best_ranks, text_success


def test_five_pictures_by_hand() -> None:
    image_ND = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    wanted_N = np.array([False, True, False, True, False])
    caption_QD = np.array([[1, 0], [0, 1], [-1, 0], [0.8, 0.6]], np.float32)
    # Cosines, wanted ones in brackets:
    # 1.00 (0.80) 0.60 (0.00) -1.00   one picture comes before 0.80
    # 0.00 (0.60) 0.80 (1.00)  0.00   none before 1.00
    # -1.0 (-0.8) -0.6 (0.00)  1.00   one before 0.00
    # 0.80 (1.00) 0.96 (0.60) -0.80   none before 1.00
    assert best_ranks(caption_QD, image_ND, wanted_N).tolist() == [1, 0, 1, 0]


def test_a_wrong_picture_as_similar_comes_first() -> None:
    same_ND = np.tile(np.array([[0.6, 0.8]], np.float32), (5, 1))
    wanted_N = np.array([True, False, False, True, False])
    assert best_ranks(same_ND[:2], same_ND, wanted_N).tolist() == [3, 3]


def asked(*ranks: int) -> Asked:
    """Captions of the first pictures of nine."""
    return Asked(rank_Q=np.array(ranks, np.int64), asked_N=np.arange(9) < len(ranks))


def test_hits_and_mean_rank_by_hand() -> None:
    found = list(text_success("swap", asked=asked(0, 0, 3, 7, 40), clean=asked(9, 10)))
    hits = {one.metric: (one.hits, one.trials) for one in found if isinstance(one, Count)}
    assert hits == {
        "hit_at_1": (2, 5),
        "hit_at_5": (3, 5),
        "hit_at_10": (4, 5),
        "clean_hit_at_1": (0, 2),
        "clean_hit_at_5": (0, 2),
        "clean_hit_at_10": (1, 2),  # rank 9 is the tenth place
    }
    means = {one.metric: float(one.value_N.mean()) for one in found if isinstance(one, Sample)}
    assert means == {"min_rank": 10.0, "clean_min_rank": 9.5}  # (0 + 0 + 3 + 7 + 40) / 5
    assert {one.attack for one in found} == {"swap"}


def test_a_class_that_no_picture_shows_is_refused() -> None:
    row_ND = np.ones((1, 2), np.float32)
    with pytest.raises(DataError, match="no test picture shows the class"):
        best_ranks(row_ND, row_ND, np.array([False]))


@given(
    captions=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=6),
    images=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=1, max_size=8),
)
def test_ranks_are_those_of_a_slow_count(
    captions: list[tuple[int, int]], images: list[tuple[int, int, bool]]
) -> None:
    images = [*images, (1, 1, True)]
    caption_QD = np.array(captions, np.float32).reshape(-1, 2)  # whole numbers: ties are ties
    image_ND = np.array([image[:2] for image in images], np.float32)
    slow = []
    for x, y in captions:
        cosines = [(x * a + y * b, wanted) for a, b, wanted in images]
        order = sorted(cosines, key=lambda one: (-one[0], one[1]))  # of equals the unwanted first
        slow.append([wanted for _, wanted in order].index(True))
    wanted_N = np.array([image[2] for image in images])
    assert best_ranks(caption_QD, image_ND, wanted_N).tolist() == slow


@pytest.mark.parametrize("count", [text_attacks.BLOCK - 1, text_attacks.BLOCK + 1])
def test_blocks_join_without_a_seam(count: int) -> None:
    image_ND = np.array([[1, 0], [0, 1]], np.float32)
    caption_QD = np.tile(image_ND[:1], (count, 1))
    caption_QD[-1] = (0, 1)
    ranks = best_ranks(caption_QD, image_ND, np.array([False, True]))
    assert ranks.tolist() == [1] * (count - 1) + [0]


def test_without_a_caption_that_asks_there_is_no_mean_rank() -> None:
    found = {one.metric for one in text_success("swap", asked=asked(), clean=asked(3))}
    assert "min_rank" not in found
    assert {"hit_at_1", "clean_min_rank"} < found
