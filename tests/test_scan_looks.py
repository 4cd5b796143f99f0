"""Looks: how rows are summed, which stores they may be of, and what is no row."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.scan.looks import VectorSource, require_same_pairs, texture_look
from roclip_sanitize.store import (
    EmbeddingStore,
    Modality,
    metadata_file,
    vectors_file,
    write_parquet,
    write_vectors,
)
from tests.stores import as_if_by, make_store

PART_SIZES = (20, 0, 40)
CAPTIONS = [f"{colour} {kind}" for colour in ("red", "blue") for kind in ("bag", "hat", "shoe")] * 10


def make_rows(path: Path, part_sizes: Sequence[int] = PART_SIZES) -> EmbeddingStore:
    image_ND, text_ND = np.random.default_rng(1).normal(size=(2, sum(part_sizes), 8))
    return make_store(path, image_ND, text_ND, part_sizes, captions=CAPTIONS[: len(image_ND)])


def spoil(store: EmbeddingStore, part: str, modality: Modality, row: int, value: float) -> None:
    """Write what is no number into one vector."""
    row_MV = np.array(store.vectors(part, modality))
    row_MV[row, 3] = value
    write_vectors(vectors_file(store.path, part, modality), row_MV)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_sums_are_those_of_all_rows(tmp_path: Path, modality: Modality) -> None:
    store = make_rows(tmp_path / "store")
    row_NV = np.concatenate([store.vectors(part.name, modality) for part in store.parts]).astype(np.float64)
    found = VectorSource(store.path, modality).sums(store.parts)
    np.testing.assert_allclose(found["sum"], row_NV.sum(axis=0))
    np.testing.assert_allclose(found["square"], row_NV.T @ row_NV)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_what_is_no_number_is_told_with_its_row(tmp_path: Path, modality: Modality, value: float) -> None:
    store = make_rows(tmp_path / "store")
    spoil(store, "00002", modality, 17, value)
    wanted = rf"store has {value} in the {modality} vector of row 17 of part 00002, wanted numbers"
    with pytest.raises(DataError, match=wanted) as caught:
        VectorSource(store.path, modality).sums(store.parts)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("where", ["store", "second", "textures"])
def test_a_scan_names_the_store_that_has_it(tmp_path: Path, where: str) -> None:
    stores = {name: make_rows(tmp_path / name) for name in ("store", "second", "textures")}
    as_if_by("textures", stores["textures"])
    build_index(IndexSettings(store=tmp_path / "store"), out=tmp_path / "index", executor=LocalExecutor())
    spoil(stores[where], "00000", "image", 5, np.nan)
    told = ScanSettings(
        store=tmp_path / "store",
        index=tmp_path / "index",
        detectors=("cross_prediction", "traces"),
        second_look=(tmp_path / "second",),
        textures=tmp_path / "textures",
    )
    with pytest.raises(DataError, match=rf"{where} has nan in the image vector of row 5 of part 00000"):
        scan_store(told, out=tmp_path / "scan", executor=LocalExecutor())


def test_textures_are_of_the_encoder_of_that_name(tmp_path: Path) -> None:
    store = make_rows(tmp_path / "plain")
    with pytest.raises(MismatchError, match=r"plain was made by encoder 'by hand', wanted 'textures': embed"):
        texture_look(store.path)
    assert texture_look(as_if_by("textures", store).path).halves == ("picture",)


@pytest.mark.parametrize(("folder", "modality"), [("img_emb", "image"), ("text_emb", "text")])
def test_a_second_look_wants_both_halves_before_anything_is_looked_at(
    tmp_path: Path, folder: str, modality: Modality
) -> None:
    store, second = make_rows(tmp_path / "store"), make_rows(tmp_path / "second")
    require_same_pairs(store, second)
    shutil.rmtree(second.path / folder)
    with pytest.raises(
        MismatchError, match=rf"second holds no {modality} vectors .*: embed with --towers both"
    ):
        require_same_pairs(store, second)


@pytest.mark.parametrize("column", ["caption", "image_hash"])
@pytest.mark.parametrize("modalities", [("image", "text"), ("image",)])
def test_a_second_look_at_what_had_those_names_before_is_refused(
    tmp_path: Path, column: str, modalities: tuple[Modality, ...]
) -> None:
    store, second = make_rows(tmp_path / "store"), make_rows(tmp_path / "second")
    path = metadata_file(second.path, "00002")
    table = read_table(path)
    write_parquet(path, table.with_columns(table[column].reverse()))
    with pytest.raises(MismatchError, match=r"part 00002 of .*second holds 40 pairs, which are not the 40"):
        require_same_pairs(store, second, modalities)


def test_textures_have_no_captions(tmp_path: Path) -> None:
    store, textures = make_rows(tmp_path / "store"), as_if_by("textures", make_rows(tmp_path / "textures"))
    shutil.rmtree(textures.path / "text_emb")
    require_same_pairs(store, textures, ("image",))
    with pytest.raises(MismatchError, match="textures holds no text vectors"):
        require_same_pairs(store, textures)
