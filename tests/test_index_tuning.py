"""Transforms that a stage chooses: as many directions as there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.index_tuning import with_what_varies
from roclip_sanitize.store import EmbeddingStore
from tests.searching import Idle, few_directions
from tests.stores import make_store


def store_of(path: Path, image_ND: NDArray[np.floating]) -> EmbeddingStore:
    return make_store(path, image_ND, image_ND, (len(image_ND),))


@pytest.mark.parametrize(
    ("rows", "width", "distinct", "transform"),
    [
        pytest.param(200, 16, 200, "pca8", id="enough of them"),
        pytest.param(9, 16, 9, "pca8", id="just enough"),
        pytest.param(6, 16, 6, "pca5", id="few rows, about their mean"),
        pytest.param(9, 4, 9, "pca4", id="few numbers a row"),
        pytest.param(30, 64, 5, "pca4", id="few rows, and fewer different ones"),
        pytest.param(3_000, 16, 5, "pca4", id="many rows, few different ones"),
        pytest.param(30, 64, 1, "", id="one row, again and again"),
        pytest.param(3_000, 16, 1, "", id="however often"),
        pytest.param(1, 16, 1, "", id="a row alone"),
    ],
)
def test_a_transform_has_as_many_directions_as_there_are(
    tmp_path: Path, rows: int, width: int, distinct: int, transform: str
) -> None:
    drawn = np.random.default_rng(0).normal(size=(rows, width))
    vectors_ND = drawn if distinct == rows else few_directions(rows, width=width, distinct=distinct)
    store = store_of(tmp_path / "store", vectors_ND)
    asked = IndexSettings(store=store.path, transform="pca8")
    told = with_what_varies(asked, out=tmp_path / "index", executor=LocalExecutor())
    assert told.transform == transform
    facts = build_index(told, out=tmp_path / "index", executor=LocalExecutor())
    assert (facts["rows"], facts["transform"]) == (rows, transform)
    again = with_what_varies(asked, out=tmp_path / "index", executor=LocalExecutor())
    assert again == told, "so that the same again finds it done"


def test_whoever_asks_for_directions_is_told_that_there_are_fewer(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", np.eye(6))
    with pytest.raises(ConfigError, match="pca8 wants 8 directions, 6 rows of width 6 have 6"):
        build_index(
            IndexSettings(store=store.path, transform="pca8"),
            out=tmp_path / "index",
            executor=LocalExecutor(),
        )


def test_what_needs_no_look_gets_none(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", np.random.default_rng(0).normal(size=(40, 16)))
    whole = IndexSettings(store=store.path)
    assert with_what_varies(whole, out=tmp_path / "index", executor=Idle()) == whole
    told = IndexSettings(store=store.path, transform="pca8")
    build_index(told, out=tmp_path / "index", executor=LocalExecutor())
    assert with_what_varies(told, out=tmp_path / "index", executor=Idle()) == told, "it was begun as told"


def test_without_any_row_it_is_the_index_that_says_so(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", np.empty((0, 16)))
    told = IndexSettings(store=store.path, transform="pca8")
    assert with_what_varies(told, out=tmp_path / "index", executor=Idle()) == told
    with pytest.raises(DataError, match="has no rows to index"):
        build_index(told, out=tmp_path / "index", executor=LocalExecutor())


def test_what_is_no_number_varies_in_no_direction(tmp_path: Path) -> None:
    image_ND = np.eye(8)
    image_ND[3, 3] = np.nan
    store = store_of(tmp_path / "store", image_ND)
    told = IndexSettings(store=store.path, transform="pca8")
    with pytest.raises(DataError, match=r"store has vectors that are no numbers: make it anew"):
        with_what_varies(told, out=tmp_path / "index", executor=LocalExecutor())
