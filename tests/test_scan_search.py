"""One search finds neighbours, near-copies and kin, as a search for each would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import search as searching
from roclip_sanitize.scan.collisions import NEAR_COPIES
from roclip_sanitize.scan.kin import KIN
from roclip_sanitize.scan.search import Search, What, rows_file, search_parts
from roclip_sanitize.store import EmbeddingStore
from tests.stores import make_store

PAIRS, SIZES = 300, (120, 0, 180)
CROWD = range(100, 145)  # near-copies of one picture, more than there is room for, in two parts
FEW = range(200, 205)
NEAR = 0.998


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    image_ND = rng.normal(size=(PAIRS, 24))
    for copies in (CROWD, FEW):
        image_ND[list(copies)] = image_ND[copies.start] + 0.01 * rng.normal(size=(len(copies), 24))
    make_store(folder / "store", image_ND, image_ND, SIZES)
    build_index(IndexSettings(store=folder / "store"), out=folder / "index", executor=LocalExecutor())
    return folder


def found(run: Path, out: Path, search: Search) -> dict[str, NDArray[np.int64]]:
    store = EmbeddingStore.open(run / "store")
    folder = StageFolder.create(out, stage="scan-work", settings={})
    search_parts(
        search,
        store=store,
        index=run / "index",
        picture=np.arange(PAIRS, dtype=np.uint64),
        folder=folder,
        executor=LocalExecutor(),
    )
    assert [marker.name for marker in folder.markers()] == [
        f"{search.name}_{part.name}" for part in store.parts
    ]
    folder.verify()
    return {
        what: np.concatenate([np.load(rows_file(out, what, part.name)) for part in store.parts])
        for what in get_args(What)
        if (out / what).exists()
    }


@pytest.mark.parametrize("block_rows", [2_048, 50])
def test_all_are_what_each_search_finds_by_itself(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(searching, "BLOCK_ROWS", block_rows)
    asked = Search(neighbours=9, copies=True, kin=True, near_copy_cosine=NEAR)
    both = found(run, tmp_path / "all", asked)
    alone = found(run, tmp_path / "neighbours", Search(neighbours=9, near_copy_cosine=NEAR))
    copies = found(run, tmp_path / "copies", Search(copies=True, near_copy_cosine=NEAR))
    assert np.array_equal(both["neighbours"], alone["neighbours"])
    assert np.array_equal(both["copies"], copies["copies"])
    assert set(copies) == {"copies"}, "nobody asked for neighbours beside"
    for name, less in {
        "kin": replace(asked, neighbours=0, copies=False),
        "less": replace(asked, copies=False),
    }.items():
        assert np.array_equal(both["kin"], found(run, tmp_path / name, less)["kin"])


def test_by_hand(run: Path, tmp_path: Path) -> None:
    both = found(run, tmp_path, Search(neighbours=9, copies=True, near_copy_cosine=NEAR))
    copies_N = (both["copies"] >= 0).sum(axis=1)
    assert (copies_N[list(CROWD)] == NEAR_COPIES).all()
    assert (copies_N[list(FEW)] == len(FEW) - 1).all()
    assert copies_N.sum() == len(CROWD) * NEAR_COPIES + len(FEW) * (len(FEW) - 1)
    assert (both["neighbours"] >= 0).all(), "a crowd of near-copies takes no neighbour's room"
    for row in (*CROWD, *FEW):
        mine = CROWD if row in CROWD else FEW
        assert set(both["copies"][row][both["copies"][row] >= 0]) <= set(mine) - {row}
        assert not set(both["neighbours"][row]) & set(mine)


def test_what_copies_alone_see_beside(run: Path, tmp_path: Path) -> None:
    seen = found(run, tmp_path, Search(copies=True, near_copy_cosine=NEAR, beside=5))
    assert seen["neighbours"].shape == (PAIRS, 5)
    assert (seen["neighbours"][list(CROWD)] == -1).all(), "their copies are all that it sees"
    assert (seen["neighbours"][:100] >= 0).all()


def test_kin_are_much_alike_and_each_picture_counts_once(tmp_path: Path) -> None:
    angle_N = np.radians([0, 20, 25, 40, 90, 20])  # cosines to the first: .94, .91, .77, 0, .94
    image_ND = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    make_store(tmp_path / "store", image_ND, image_ND, (6,))
    build_index(IndexSettings(store=tmp_path / "store"), out=tmp_path / "index", executor=LocalExecutor())
    store = EmbeddingStore.open(tmp_path / "store")
    search_parts(
        Search(kin=True, near_copy_cosine=NEAR),
        store=store,
        index=tmp_path / "index",
        picture=np.array([0, 1, 2, 3, 4, 1], np.uint64),
        folder=StageFolder.create(tmp_path / "work", stage="scan-work", settings={}),
        executor=LocalExecutor(),
    )
    kin_NK = np.load(rows_file(tmp_path / "work", "kin", store.parts[0].name))
    assert kin_NK.shape == (6, KIN)
    assert [sorted(row[row >= 0].tolist()) for row in kin_NK[[0, 3, 4]]] == [[1, 2], [1, 2], []]
