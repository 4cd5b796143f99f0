"""Columns: what went in comes out, by row, however the store is split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.scan.columns import Columns, word_number
from tests.test_scan_agreement import columns_of

CAPTIONS = ("Red  Shoe", "red shoe", "牛乳 pack", "a 42", "Blue bag — “new”")


@pytest.fixture(params=[(5,), (2, 0, 3), (0, 5), (1, 1, 1, 1, 1)], ids=str)
def columns(tmp_path: Path, request: pytest.FixtureRequest) -> Columns:
    return columns_of(tmp_path, CAPTIONS, request.param)


def test_names_and_captions_by_row(columns: Columns) -> None:
    rows = np.array([4, 2, 2])
    assert columns.captions(rows) == [CAPTIONS[4], CAPTIONS[2], CAPTIONS[2]]
    assert columns.uids(rows) == [f"{row:032x}" for row in rows]
    assert len(columns) == 5


def test_captions_are_one_where_they_are_equal_after_normalising(columns: Columns) -> None:
    assert columns.caption_N[0] == columns.caption_N[1]
    assert len(set(columns.caption_N.tolist())) == 4


def test_words_of_rows(columns: Columns) -> None:
    words = columns.words(np.array([1, 3]))
    assert set(words[0].indices) == {word_number("red"), word_number("shoe")}
    assert not words[1].nnz  # one letter and a number are no words


def test_words_are_counted_once_per_caption(columns: Columns) -> None:
    assert columns.word_counts_W[word_number("red")] == 2
    assert columns.frequency("shoe") == pytest.approx(2 / 5)
    assert columns.frequency("unheard") == 0
    assert columns.word_counts_W.sum() == 9  # red shoe, red shoe, 牛乳 pack, blue bag new


def test_no_row_asked(columns: Columns) -> None:
    none = np.empty(0, np.int64)
    assert columns.captions(none) == columns.uids(none) == []
    assert columns.words(none).shape[0] == 0
