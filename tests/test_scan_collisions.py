"""Collisions: counted by hand, and against sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.scan import collisions
from roclip_sanitize.scan.collisions import Collisions, PictureCaptions, count_collisions, distinct_per_row

SMALL = st.integers(0, 4)


def count(copies: list[list[int]], pictures: list[int], captions: list[int]) -> Collisions:
    picture, caption = np.array(pictures, np.uint64), np.array(captions, np.uint64)
    return count_collisions(
        np.arange(len(copies)),
        np.array(copies, np.int64),
        picture=picture,
        caption=caption,
        captions_of=PictureCaptions.counted(picture, caption),
    )


def test_one_picture_with_three_captions() -> None:
    found = count([[-1]] * 4, pictures=[7, 7, 7, 8], captions=[1, 2, 3, 1])
    assert found.captions_of_picture_N.tolist() == [3, 3, 3, 1]
    assert found.pictures_of_caption_N.tolist() == [1, 1, 1, 1]


def test_a_picture_listed_thrice_with_one_caption_is_one_of_each() -> None:
    found = count([[-1]] * 3, pictures=[7, 7, 7], captions=[1, 1, 1])
    assert found.captions_of_picture_N.tolist() == found.pictures_of_caption_N.tolist() == [1, 1, 1]


def test_near_copies_count_as_one_picture() -> None:
    found = count([[1, 2], [0, 2], [0, 1]], pictures=[1, 2, 3], captions=[1, 2, 3])
    assert found.captions_of_picture_N.tolist() == [3, 3, 3]


def test_near_identical_pictures_with_one_caption() -> None:
    found = count(
        [[1, 2, -1], [0, 2, -1], [0, 1, -1], [0, -1, -1]], pictures=[1, 2, 3, 4], captions=[5, 5, 5, 6]
    )
    assert found.pictures_of_caption_N.tolist() == [3, 3, 3, 1]


def test_copies_of_a_near_copy_are_one_picture() -> None:
    found = count([[1, 2], [0, -1], [0, -1]], pictures=[1, 2, 2], captions=[5, 5, 5])
    assert found.pictures_of_caption_N[0] == 2


def test_nothing_was_looked_for() -> None:
    found = Collisions.none(2)
    assert found.captions_of_picture_N.tolist() == found.pictures_of_caption_N.tolist() == [0, 0]


def test_captions_of_a_picture_and_of_its_near_copies_are_counted_together() -> None:
    """Three captions of one file and two of the same picture encoded again: five, and not three."""
    copies = [[3, 4], [3, 4], [3, 4], [0, 1], [0, 1], [-1, -1]]  # two of the three: there is no room for more
    found = count(copies, pictures=[7, 7, 7, 8, 8, 9], captions=[1, 2, 3, 4, 5, 1])
    assert found.captions_of_picture_N.tolist() == [5, 5, 5, 5, 5, 1]


PAIRS = st.lists(st.tuples(SMALL, SMALL, st.lists(st.integers(-1, 29), min_size=3, max_size=3)), max_size=30)


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@given(pairs=PAIRS)
def test_captions_equal_sets(at_once: int, pairs: list[tuple[int, int, list[int]]]) -> None:
    pictures, captions = [picture for picture, *_ in pairs], [caption for _, caption, _ in pairs]
    copies = [[row if row < len(pairs) else -1 for row in near] for *_, near in pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collisions, "CAPTIONS_AT_ONCE", at_once)
        found = count(copies, pictures, captions) if pairs else Collisions.none(0)
    for row, near in enumerate(copies):
        alike = {pictures[row], *(pictures[other] for other in near if other >= 0)}
        together = {caption for picture, caption, _ in pairs if picture in alike}
        assert found.captions_of_picture_N[row] == len(together)


@given(st.lists(st.lists(SMALL, min_size=3, max_size=3), min_size=1, max_size=9))
def test_distinct_per_row_equals_sets(rows: list[list[int]]) -> None:
    assert distinct_per_row(np.array(rows)).tolist() == [len(set(row)) for row in rows]
