"""Who receives whose caption and whose picture, small enough to check by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.limits import Work
from roclip_sanitize.pairing import PAIR_SCHEMA, PairSettings, pair_limits, pair_store, pairs_file, read_pairs
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.store import EmbeddingStore
from tests.stores import make_store

# Five pairs. Pair 3 is a poison: the picture of a dog, among dogs, with a caption about cats.
CAPTIONS = ["a dog", "the dog", "a cat", "the cat", "A  DOG"]
TEXT_ANGLES = [0, 5, 80, 84, 0]  # dogs near 0 degrees, cats near 80
IMAGE_ANGLES = [2, 9, 78, 3, 10]


def at(angles: Sequence[float]) -> NDArray[np.float64]:
    """Unit vectors of the plane, by their angle in degrees."""
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)


def angle_cosine(degrees: float) -> Any:
    return pytest.approx(np.cos(np.radians(degrees)), abs=1e-3)


def uids(rows: Sequence[int]) -> list[str]:
    return [f"{row:032x}" if row >= 0 else "" for row in rows]


def build(
    folder: Path, store: EmbeddingStore, *, parts: int = 1, pool: int = 0, seed: int = 0
) -> dict[str, Path]:
    """A text and an image index."""
    indexes = {"index_text": folder / "index_text", "index_image": folder / "index_image"}
    for name, path in indexes.items():
        settings = IndexSettings(
            store=store.path,
            modality="text" if name == "index_text" else "image",
            parts=parts,
            pool=pool,
            seed=seed,
        )
        build_index(settings, out=path, executor=LocalExecutor())
    return indexes


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return make_store(tmp_path / "store", at(IMAGE_ANGLES), at(TEXT_ANGLES), [3, 0, 2], captions=CAPTIONS)


@pytest.fixture
def indexes(tmp_path: Path, store: EmbeddingStore) -> dict[str, Path]:
    return build(tmp_path, store, parts=2)


def pair(store: EmbeddingStore, out: Path, **settings: Any) -> polars.DataFrame:
    """Run the stage and read its table."""
    tally = pair_store(PairSettings(store=store.path, **settings), out=out, executor=LocalExecutor())
    assert (tally.seen, tally.kept) == (store.rows, store.rows)
    return read_pairs(out)


def test_the_final_method_gives_each_image_the_caption_that_describes_it(
    store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path
) -> None:
    table = pair(store, tmp_path / "pairs", index_text=indexes["index_text"], method="final")
    assert table.columns == list(PAIR_SCHEMA)
    assert table["uid"].to_list() == uids(range(5))
    assert table["caption_uid"].to_list() == uids([4, 0, 3, 1, 1])
    assert table["caption"].to_list() == ["A  DOG", "a dog", "the cat", "the dog", "the dog"]
    assert table["caption_cosine"].to_list() == [angle_cosine(each) for each in (2, 9, 6, 2, 5)]
    assert table["image_uid"].to_list() == [""] * 5
    assert table["image_cosine"].to_list() == [None] * 5


def test_the_first_method_stays_within_each_modality(
    store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path
) -> None:
    table = pair(store, tmp_path / "pairs", **indexes, method="first")
    assert table["caption_uid"].to_list() == uids([1, 0, 3, 2, 1])
    assert table["caption_cosine"].to_list() == [angle_cosine(each) for each in (5, 5, 4, 4, 5)]
    assert table["image_uid"].to_list() == uids([3, 4, 4, 0, 1])
    assert table["image_cosine"].to_list() == [angle_cosine(each) for each in (1, 1, 68, 1, 1)]


def test_equal_captions_may_be_allowed(
    store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path
) -> None:
    table = pair(store, tmp_path / "pairs", **indexes, method="first", exclude_equal_captions=False)
    assert table["caption_uid"].to_list() == uids([4, 0, 3, 2, 0])


def test_copies_of_a_picture_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    hashes = ["dog", "dog", "cat", "dog", "dog"]
    store = make_store(tmp_path / "store", at(IMAGE_ANGLES), at(TEXT_ANGLES), [5], image_hashes=hashes)
    indexes = build(tmp_path, store)
    table = pair(store, tmp_path / "first", **indexes, method="first")
    assert table["caption_uid"].to_list() == uids([2, 2, 3, 2, 2])
    assert table["image_uid"].to_list() == uids([2, 2, 4, 2, 2])
    table = pair(store, tmp_path / "final", **indexes, method="final")
    assert table["caption_uid"].to_list() == uids([2, 2, 3, 2, 2])


def test_a_pair_without_an_admissible_partner_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", at([0, 1]), at([0, 1]), [2], image_hashes=["same", "same"])
    table = pair(store, tmp_path / "pairs", **build(tmp_path, store), method="first")
    assert (
        table["caption_uid"].to_list()
        == table["caption"].to_list()
        == table["image_uid"].to_list()
        == ["", ""]
    )
    assert table["caption_cosine"].to_list() == table["image_cosine"].to_list() == [None, None]


def test_only_the_pool_gives(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image_ND, text_ND = random.normal(size=(60, 6)), random.normal(size=(60, 6))
    store = make_store(tmp_path / "store", image_ND, text_ND, [20, 0, 40])
    indexes = build(tmp_path, store, parts=2, pool=9, seed=4)
    pool = np.random.default_rng([4]).choice(60, 9, replace=False, shuffle=False)
    table = pair(store, tmp_path / "pairs", **indexes, method="first")
    for column, stored in (("caption_uid", "text"), ("image_uid", "image")):
        vectors_ND = np.concatenate([store.vectors(part.name, stored) for part in store.parts]).astype(float)  # type: ignore[arg-type]
        cosine_NN = vectors_ND @ vectors_ND.T
        np.fill_diagonal(cosine_NN, -2)
        outside = np.setdiff1d(np.arange(60), pool)
        cosine_NN[:, outside] = -2
        assert table[column].to_list() == uids(cosine_NN.argmax(axis=1))
    given = table["caption"].to_list()
    assert given == [f"caption {int(uid, 16)}" for uid in table["caption_uid"]]


def test_the_number_of_index_parts_changes_no_byte(
    store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    pair(store, tmp_path / "pairs2", **indexes, method="first")
    pair(store, tmp_path / "pairs1", **build(tmp_path / "one", store), method="first")
    for part in store.parts:
        both = [pairs_file(tmp_path / name, part.name).read_bytes() for name in ("pairs1", "pairs2")]
        assert both[0] == both[1]


def test_after_a_kill_only_what_is_missing_is_paired_and_is_the_same(
    store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "pairs"
    whole = pair(store, out, **indexes, method="first")
    kept, lost = pairs_file(out, "00000"), pairs_file(out, "00002")
    before, bytes_before = kept.stat().st_mtime_ns, lost.read_bytes()
    (out / "complete.json").unlink()
    (out / "done" / "00002.json").unlink()
    lost.unlink()
    with pytest.raises(MismatchError, match="unfinished"):
        read_pairs(out)
    assert pair(store, out, **indexes, method="first").equals(whole)
    assert (kept.stat().st_mtime_ns, lost.read_bytes()) == (before, bytes_before)


def test_each_part_tells_its_cost(store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path) -> None:
    pair(store, tmp_path / "pairs", **indexes, method="first")
    facts = [marker.facts for marker in StageFolder.open(tmp_path / "pairs", stage="pair").markers()]
    assert [(each["rows"], each["matched"]) for each in facts] == [(3, 3), (0, 0), (2, 2)]
    works = [Work.from_json(each["seconds"]) for each in facts]
    assert [work.pairs for work in works] == [3, 0, 2]
    assert {"text search", "image search", "write"} <= set(works[0].steps)
    assert pair_limits(tmp_path / "pairs").bound


def test_final_pairing_needs_a_common_space(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", at(IMAGE_ANGLES), at(TEXT_ANGLES), [5], joint=False)
    indexes = build(tmp_path, store)
    assert len(pair(store, tmp_path / "first", **indexes, method="first")) == 5
    with pytest.raises(MismatchError, match="final pairing compares images with captions"):
        pair(store, tmp_path / "final", **indexes, method="final")


def test_settings_are_refused_early(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method is 'last', wanted one of first, final"):
        PairSettings(store=tmp_path, index_text=tmp_path, method="last")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give an image index"):
        PairSettings(store=tmp_path, index_text=tmp_path, method="first")


def test_indexes_must_belong_together(
    store: EmbeddingStore, indexes: dict[str, Path], tmp_path: Path
) -> None:
    text, image = indexes["index_text"], indexes["index_image"]
    with pytest.raises(MismatchError, match="is an index of image vectors, wanted text"):
        pair(store, tmp_path / "pairs", index_text=image, method="final")
    other = make_store(tmp_path / "other", at([0]), at([0]), [1])
    with pytest.raises(MismatchError, match=r"wanted .*other"):
        pair(other, tmp_path / "pairs", index_text=text, method="final")
    (tmp_path / "pool").mkdir()
    pool = build(tmp_path / "pool", store, pool=3)["index_image"]
    with pytest.raises(MismatchError, match="hold different pools"):
        pair(store, tmp_path / "pairs", index_text=text, index_image=pool, method="first")
