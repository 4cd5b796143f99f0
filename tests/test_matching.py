"""Who is near whom, against a slow reference and in every direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.matching import (
    MATCH_SCHEMA,
    MatchSettings,
    match_limits,
    match_store,
    matches_file,
    read_matches,
)
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.store import EmbeddingStore, Modality
from tests.stores import make_store

ROWS, WIDTH, K = 60, 8, 4
PARTS = [25, 0, 35]
CAPTIONS = [f"caption {row % 20}" for row in range(ROWS)]
HASHES = [f"{row % 15:032x}" for row in range(ROWS)]
MODALITIES: tuple[Modality, ...] = ("image", "text")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    random = np.random.default_rng(0)
    image_ND, text_ND = random.normal(size=(2, ROWS, WIDTH))
    folder = tmp_path_factory.mktemp("matching")
    store = make_store(folder / "store", image_ND, text_ND, PARTS, captions=CAPTIONS, image_hashes=HASHES)
    for modality in MODALITIES:
        settings = IndexSettings(store=store.path, modality=modality, parts=2)
        build_index(settings, out=folder / modality, executor=LocalExecutor())
    return store


def index_of(store: EmbeddingStore, modality: Modality) -> Path:
    return store.path.parent / modality


def match(store: EmbeddingStore, out: Path, answers: Modality = "image", **told: Any) -> polars.DataFrame:
    settings = MatchSettings(store=store.path, index=index_of(store, answers), **told)
    tally = match_store(settings, out=out, executor=LocalExecutor())
    assert (tally.seen, tally.kept) == (store.rows, store.rows)
    return read_matches(out)


def vectors(store: EmbeddingStore, modality: Modality) -> NDArray[np.float64]:
    return np.concatenate([store.vectors(part.name, modality) for part in store.parts]).astype(np.float64)


def reference(
    store: EmbeddingStore, asks: Modality, answers: Modality, *, exclude: tuple[str, ...], most: float
) -> list[tuple[str, int, str]]:
    """All pairs with all pairs, one at a time."""
    asking_ND, answering_ND = vectors(store, asks), vectors(store, answers)
    expected = []
    for row in range(ROWS):
        allowed = [
            (-float(answering_ND[other] @ asking_ND[row]), other)
            for other in range(ROWS)
            if not ("uid" in exclude and other == row)
            and not ("image" in exclude and HASHES[other] == HASHES[row])
            and not ("caption" in exclude and CAPTIONS[other] == CAPTIONS[row])
            and answering_ND[other] @ asking_ND[row] <= most
        ]
        nearest = sorted(allowed)[:K]
        expected += [(f"{row:032x}", rank, f"{other:032x}") for rank, (_, other) in enumerate(nearest, 1)]
    return expected


@pytest.mark.parametrize("asks", MODALITIES)
@pytest.mark.parametrize("answers", MODALITIES)
@pytest.mark.parametrize(
    ("exclude", "most"),
    [((), None), (("uid",), None), (("uid", "image", "caption"), None), (("uid",), 0.5)],
)
def test_equals_a_comparison_of_all_pairs(
    store: EmbeddingStore,
    tmp_path: Path,
    asks: Modality,
    answers: Modality,
    exclude: tuple[Any, ...],
    most: float | None,
) -> None:
    table = match(store, tmp_path, answers, asks=asks, k=K, exclude=exclude, max_cosine=most)
    assert table.schema == polars.DataFrame(schema=MATCH_SCHEMA).schema
    expected = reference(store, asks, answers, exclude=exclude, most=most or np.inf)
    assert table.select("uid", "rank", "match_uid").rows() == expected


def test_cosines_are_those_of_the_vectors(store: EmbeddingStore, tmp_path: Path) -> None:
    table = match(store, tmp_path, k=1)
    image_ND = vectors(store, "image")
    for uid, _, other, cosine in table.rows():
        assert cosine == pytest.approx(image_ND[int(uid, 16)] @ image_ND[int(other, 16)], abs=1e-6)


def test_a_pair_without_admissible_neighbours_has_no_row(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.eye(2), np.eye(2), [2], image_hashes=["same", "same"])
    build_index(IndexSettings(store=store.path), out=tmp_path / "image", executor=LocalExecutor())
    table = match(store, tmp_path / "out", exclude=("uid", "image"))
    assert table.height == 0
    assert StageFolder(tmp_path / "out").markers()[0].facts["matched"] == 0


def test_another_store_of_the_same_model_may_ask(store: EmbeddingStore, tmp_path: Path) -> None:
    image_ND = vectors(store, "image")[[7, 3]]
    asking = make_store(tmp_path / "store", image_ND, image_ND, [2])
    settings = MatchSettings(store=asking.path, index=index_of(store, "image"), k=1, exclude=())
    match_store(settings, out=tmp_path / "out", executor=LocalExecutor())
    assert read_matches(tmp_path / "out")["match_uid"].to_list() == [f"{7:032x}", f"{3:032x}"]


def test_another_store_has_no_pair_of_its_own_in_the_index(store: EmbeddingStore, tmp_path: Path) -> None:
    asking = make_store(tmp_path / "store", np.eye(8)[:2], np.eye(8)[:2], [2])
    settings = MatchSettings(store=asking.path, index=index_of(store, "image"))
    with pytest.raises(ConfigError, match="are not those of the indexed"):
        match_store(settings, out=tmp_path / "out", executor=LocalExecutor())


def test_across_modalities_takes_a_common_space(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.eye(3), np.eye(3), [3], joint=False)
    build_index(IndexSettings(store=store.path), out=tmp_path / "image", executor=LocalExecutor())
    with pytest.raises(MismatchError, match=r"asking .* for images by text"):
        match(store, tmp_path / "out", asks="text")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"asks": "sound"}, "asks is 'sound', wanted one of image, text"),
        ({"k": 0}, "k is 0, wanted 1 or more"),
        ({"exclude": ("uid", "hash")}, "exclude names 'hash', wanted any of uid, image, caption"),
    ],
)
def test_what_cannot_be_asked(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MatchSettings(store=Path("store"), index=Path("index"), **told)


def test_after_a_kill_only_missing_parts_are_matched_to_the_same_bytes(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    match(store, tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "matches").iterdir()}
    written = matches_file(tmp_path, "00000").stat().st_mtime_ns
    for path in (tmp_path / "done" / "00002.json", matches_file(tmp_path, "00002")):
        path.unlink()
    match(store, tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "matches").iterdir()} == files
    assert matches_file(tmp_path, "00000").stat().st_mtime_ns == written


def test_every_second_is_told(store: EmbeddingStore, tmp_path: Path) -> None:
    match(store, tmp_path)
    limits = match_limits(tmp_path)
    assert limits.reached > 0
    assert {"image search", "write"} <= set(limits.rates)


@pytest.mark.slow
def test_ray_workers_write_the_same_bytes(store: EmbeddingStore, tmp_path: Path) -> None:
    match(store, tmp_path / "local")
    settings = MatchSettings(store=store.path, index=index_of(store, "image"))
    match_store(settings, out=tmp_path / "ray", executor=open_executor("ray", workers=2))
    for name in ("00000", "00001", "00002"):
        local, ray = (matches_file(tmp_path / executor, name) for executor in ("local", "ray"))
        assert ray.read_bytes() == local.read_bytes()
