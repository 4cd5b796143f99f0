"""The index answers as if every row had been compared with every query by hand."""

from __future__ import annotations

import itertools
import math
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import (
    FlatFile,
    IndexSettings,
    build_index,
    indexed_rows,
    inspect_index,
    open_index,
)
from roclip_sanitize.neighbours import Neighbours, SearchTask, best_k
from roclip_sanitize.store import EmbeddingStore
from tests.searching import Idle, Workers, by_hand, few_directions, files_of, pairs_of, search_all, whole
from tests.stores import make_store, unit_rows


@settings(max_examples=8)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 2),
    parts=st.integers(1, 5),
    workers=st.integers(1, 3),
    k=st.integers(1, 50),
    barred=st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, 0.5])),
    seed=st.integers(0, 9),
)
def test_any_number_of_parts_and_workers_gives_the_answer_by_hand(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int], parts: int, workers: int, k: int, barred: tuple[bool, bool, float | None], seed: int,
) -> None:  # fmt: skip
    folder, rows = tmp_path_factory.mktemp("any"), sum(sizes)
    image_ND = few_directions(rows, seed=seed)
    hashes = [str(row // 2) for row in range(rows)]
    store = make_store(folder / "store", image_ND, image_ND, sizes, image_hashes=hashes)
    build_index(IndexSettings(store=store.path, parts=parts), out=folder / "index", executor=Workers(workers))
    asked = {"k": k, "exclude_self": barred[0], "exclude_hash": barred[1], "max_cosine": barred[2]}
    found = search_all(folder / "index", store, workers=workers, **asked)
    stored_ND = np.concatenate([store.vectors(part.name, "image") for part in store.parts])
    for query in range(rows):
        assert pairs_of(found, query) == by_hand(stored_ND, query, whole(store, **asked)[0], hashes=hashes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """1,300 pairs in five parts, one of them empty; every row occurs about three times."""
    image_ND = few_directions(1_300, width=16, distinct=400)
    folder = tmp_path_factory.mktemp("store")
    return make_store(folder / "store", image_ND, image_ND, [600, 100, 0, 550, 50])


@pytest.fixture(scope="module")
def index(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of that store, in one part, as it is."""
    out = tmp_path_factory.mktemp("index")
    build_index(IndexSettings(store=store.path), out=out, executor=LocalExecutor())
    return out


@pytest.mark.parametrize("transform", ["", "pca6"])
def test_the_number_of_parts_changes_no_bit(store: EmbeddingStore, tmp_path: Path, transform: str) -> None:
    settings = IndexSettings(store=store.path, transform=transform)
    found, vectors = [], []
    for parts in (1, 2, 5):
        out = tmp_path / f"index{parts}"
        build_index(replace(settings, parts=parts), out=out, executor=LocalExecutor())
        found.append(search_all(out, store, workers=3, k=12, exclude_self=True))
        vectors.append(
            np.concatenate([FlatFile.open_part(out, f"{part:05d}").vectors() for part in range(parts)])
        )
    for other, other_ND in zip(found[1:], vectors[1:], strict=True):
        assert np.array_equal(vectors[0], other_ND)
        assert np.array_equal(found[0].rows_NK, other.rows_NK)
        assert np.array_equal(found[0].cosine_NK, other.cosine_NK)
    task, hashes = whole(store, k=12, exclude_self=True)[0], [""] * store.rows
    for query in range(0, store.rows, 97):
        assert pairs_of(found[0], query) == by_hand(vectors[0], query, task, hashes=hashes)


@pytest.mark.parametrize("transform", ["", "pca96"])
def test_a_question_may_be_cut_anywhere(tmp_path: Path, transform: str) -> None:
    image_ND = np.random.default_rng(0).normal(size=(600, 256))
    store = make_store(tmp_path / "store", image_ND, image_ND, [600])
    settings = IndexSettings(store=store.path, transform=transform)
    build_index(settings, out=tmp_path / "i", executor=LocalExecutor())
    (task,) = whole(store, k=4)
    with open_index(tmp_path / "i", LocalExecutor()) as index:
        (together,) = index.search([task])
        cuts = [0, 1, 7, 511, 513, 599, 600]  # BLAS rounds a row alone differently
        pieces = list(index.search(replace(task, start=a, stop=b) for a, b in itertools.pairwise(cuts)))
    assert np.array_equal(together.rows_NK, np.concatenate([piece.rows_NK for piece in pieces]))
    assert np.array_equal(together.cosine_NK, np.concatenate([piece.cosine_NK for piece in pieces]))


def test_pca_is_half_whitened_and_of_unit_length(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    image_ND = random.normal(size=(300, 6)) * [5, 4, 3, 2, 1, 0.5] + 2
    store = make_store(tmp_path / "store", image_ND, image_ND, [300])
    build_index(
        IndexSettings(store=store.path, transform="pca3"), out=tmp_path / "i", executor=LocalExecutor()
    )
    stored_ND = store.vectors("00000", "image").astype(np.float64)
    centred_ND = stored_ND - stored_ND.mean(axis=0)
    value_D, direction_DD = np.linalg.eigh(centred_ND.T @ centred_ND)
    expected_ND = unit_rows(centred_ND @ direction_DD[:, :-4:-1] * value_D[:-4:-1] ** -0.25)
    found_ND = FlatFile.open_part(tmp_path / "i", "00000").vectors()
    assert np.allclose(found_ND @ found_ND.T, expected_ND @ expected_ND.T, atol=1e-4)  # signs are free


def test_a_pool_is_a_seeded_sample_named_by_its_rows_in_the_store(tmp_path: Path) -> None:
    image_ND, hashes = few_directions(90, distinct=30), [str(row // 3) for row in range(90)]
    store = make_store(tmp_path / "store", image_ND, image_ND, [40, 0, 30, 20], image_hashes=hashes)
    settings = IndexSettings(store=store.path, pool=25, seed=7)
    drawn = np.sort(np.random.default_rng([7]).choice(90, 25, replace=False, shuffle=False)).tolist()
    stored_ND = np.concatenate([store.vectors(part.name, "image") for part in store.parts])
    asked = {"k": 90, "exclude_self": True, "exclude_hash": True}
    for parts in (1, 3):
        out = tmp_path / f"pool{parts}"
        assert build_index(replace(settings, parts=parts), out=out, executor=LocalExecutor())["rows"] == 25
        assert indexed_rows(out).tolist() == drawn
        found = search_all(out, store, **asked)
        for query in range(90):
            everyone = by_hand(stored_ND, query, whole(store, **asked)[0], hashes=hashes)
            expected = [answer for answer in everyone if answer[0] in drawn]
            assert pairs_of(found, query)[: len(expected) + 1] == [*expected, (-1, -math.inf)]


def test_equal_captions_are_excluded_whatever_their_case(tmp_path: Path) -> None:
    image_ND = unit_rows(np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]]))
    captions = ["Red shoe", "red  SHOE", "Blue shoe", "red shoe"]
    store = make_store(tmp_path / "store", image_ND, image_ND, [2, 2], captions=captions)
    build_index(IndexSettings(store=store.path), out=tmp_path / "i", executor=LocalExecutor())
    found = search_all(tmp_path / "i", store, k=2, exclude_caption=True)
    assert found.rows_NK.tolist() == [[2, -1], [2, -1], [3, 1], [2, -1]]


def test_facts_and_recall_are_kept(store: EmbeddingStore, tmp_path: Path) -> None:
    returned = build_index(
        IndexSettings(store=store.path, transform="pca4"), out=tmp_path / "i", executor=Workers(2)
    )
    facts = inspect_index(tmp_path / "i")
    assert facts == returned
    assert (facts["kind"], facts["metric"], facts["rows"], facts["width"]) == (
        "flat",
        "inner_product",
        1_300,
        16,
    )
    assert (facts["modality"], facts["model"], facts["parts"]) == ("image", store.model, 2)
    assert (facts["recall@1"], facts["recall@10"]) == (1.0, 1.0)
    assert 100 < facts["recall_queries"] <= 256
    assert facts["queries_per_second"] > 0


def test_a_search_that_misses_lowers_the_recall(store: EmbeddingStore) -> None:
    from roclip_sanitize.searcher import ShardedIndex, measure

    class Careless:
        """Finds everything in the reference, and nothing else."""

        def ask(self, questions: Iterable[SearchTask]) -> Iterator[list[Neighbours]]:
            for task in questions:
                rows = task.stop - task.start
                everything = best_k(np.tile(np.arange(10), (rows, 1)), np.ones((rows, 10), np.float32), 10)
                yield [everything if task.reference else Neighbours.none(rows, task.k)]

    facts = measure(ShardedIndex([Careless()]), store, modality="image", seed=0)
    assert (facts["recall@1"], facts["recall@10"]) == (0.0, 0.0)


@pytest.mark.parametrize("questions", [0, 1, 2, 7])
def test_crews_of_the_same_parts_take_turns(questions: int) -> None:
    from roclip_sanitize.searcher import ShardedIndex

    class Crew:
        """Answers with its number and the row that asks."""

        def __init__(self, number: int) -> None:
            self.number = number

        def ask(self, questions: Iterable[SearchTask]) -> Iterator[list[Neighbours]]:
            for task in questions:
                yield [best_k(np.array([[self.number, task.start]]), np.ones((1, 2), np.float32), 2)]

    asked = [
        SearchTask(store=Path("s"), part="00000", modality="image", start=row, stop=row + 1, k=2)
        for row in range(questions)
    ]
    answers = list(ShardedIndex([Crew(-3), Crew(-2), Crew(-1)]).search(iter(asked)))
    told = [sorted(answer.rows_NK[0].tolist()) for answer in answers]
    assert told == [[row % 3 - 3, row] for row in range(questions)]


def test_the_same_command_again_does_no_work(store: EmbeddingStore, tmp_path: Path) -> None:
    settings = IndexSettings(store=store.path, transform="pca4")
    build_index(settings, out=tmp_path / "i", executor=Workers(3))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "i").rglob("*.*")}
    facts = build_index(settings, out=tmp_path / "i", executor=Idle())
    assert facts["parts"] == 3
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "i").rglob("*.*")}


def test_after_a_kill_only_what_is_missing_is_built_and_is_the_same(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    settings, out = IndexSettings(store=store.path, transform="pca4"), tmp_path / "i"
    build_index(settings, out=out, executor=Workers(3))
    before, touched = files_of(out), (out / "part_00000.faiss").stat().st_mtime_ns
    (out / "complete.json").unlink()
    (out / "done" / "00001.json").unlink()
    (out / "part_00001.faiss").write_bytes(b"half a fi")
    with pytest.raises(MismatchError, match="unfinished"):
        inspect_index(out)
    build_index(settings, out=out, executor=LocalExecutor())
    assert files_of(out) == before
    assert (out / "part_00000.faiss").stat().st_mtime_ns == touched


@pytest.mark.parametrize("kept", [0, 20])
def test_a_broken_part_is_one_line(store: EmbeddingStore, index: Path, tmp_path: Path, kept: int) -> None:
    broken = shutil.copytree(index, tmp_path / "index") / "part_00000.faiss"
    broken.write_bytes(broken.read_bytes()[:kept] or b"no index at all")
    with pytest.raises(DataError, match=f"{broken} cannot be read as a FAISS file: [A-Z]"):
        search_all(tmp_path / "index", store)


def test_other_settings_need_another_folder(store: EmbeddingStore, index: Path) -> None:
    with pytest.raises(MismatchError, match="pca4"):
        build_index(IndexSettings(store=store.path, transform="pca4"), out=index, executor=LocalExecutor())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"modality": "sound"}, "modality is 'sound', wanted one of image, text"),
        ({"kind": "ivf"}, "index kind is 'ivf', wanted one of flat"),
        ({"transform": "pca"}, "transform is 'pca', wanted '' or for example 'pca96'"),
        ({"parts": -1}, "parts is -1 and pool is 0, wanted 0 or more"),
    ],
)
def test_settings_are_refused_early(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        IndexSettings(store=Path("store"), **wrong)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"transform": "pca17"}, "pca17 wants 17 directions, 1300 rows of width 16 have 16"),
        ({"pool": 1_301}, "pool is 1301, .* has 1300 rows"),
    ],
)
def test_an_index_cannot_hold_more_than_there_is(
    store: EmbeddingStore, tmp_path: Path, wanted: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        build_index(IndexSettings(store=store.path, **wanted), out=tmp_path / "i", executor=LocalExecutor())


def test_directions_without_content_are_refused(tmp_path: Path) -> None:
    image_ND = few_directions(60, width=8, distinct=3)
    store = make_store(tmp_path / "store", image_ND, image_ND, [60])
    with pytest.raises(ConfigError, match="pca5 wants 5 directions; the 60 sampled rows vary in 2"):
        build_index(
            IndexSettings(store=store.path, transform="pca5"), out=tmp_path / "i", executor=LocalExecutor()
        )


def test_an_empty_store_has_nothing_to_index(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.ones((0, 2)), np.ones((0, 2)), [0, 0])
    with pytest.raises(DataError, match="no rows to index"):
        build_index(IndexSettings(store=store.path), out=tmp_path / "i", executor=LocalExecutor())


# What may ask what


def test_captions_ask_images_only_in_a_common_space(tmp_path: Path) -> None:
    image_ND, text_ND = np.eye(3), np.roll(np.eye(3), 1, axis=0)
    for joint in (True, False):
        store = make_store(tmp_path / f"store{joint}", image_ND, text_ND, [3], joint=joint)
        build_index(IndexSettings(store=store.path), out=tmp_path / f"i{joint}", executor=LocalExecutor())
        (task,) = whole(store, k=1)
        with open_index(tmp_path / f"i{joint}", LocalExecutor()) as index:
            if joint:
                (found,) = index.search([replace(task, modality="text")])
                assert found.rows_NK.tolist() == [[2], [0], [1]]
            else:
                with pytest.raises(MismatchError, match="two spaces are separate"):
                    list(index.search([replace(task, modality="text")]))


def test_a_transform_of_images_does_not_fit_captions(store: EmbeddingStore, tmp_path: Path) -> None:
    build_index(
        IndexSettings(store=store.path, transform="pca4"), out=tmp_path / "i", executor=LocalExecutor()
    )
    with (
        open_index(tmp_path / "i", LocalExecutor()) as index,
        pytest.raises(ConfigError, match="images alone"),
    ):
        list(index.search([replace(task, modality="text") for task in whole(store, k=1)]))


def test_rows_that_do_not_exist_cannot_ask(store: EmbeddingStore, index: Path) -> None:
    task = whole(store, k=1)[1]
    with open_index(index, LocalExecutor()) as opened:
        for wrong in (replace(task, stop=101), replace(task, part="00009")):
            with pytest.raises(ConfigError, match=f"no rows 0 to {wrong.stop} in part {wrong.part}"):
                list(opened.search([wrong]))


def test_only_rows_of_the_indexed_store_can_be_left_out(
    store: EmbeddingStore, index: Path, tmp_path: Path
) -> None:
    other = make_store(tmp_path / "other", np.eye(16), np.eye(16), [16])
    with open_index(index, LocalExecutor()) as opened:
        (found,) = opened.search(whole(other, k=2))
        assert found.rows_NK.shape == (16, 2)
        with pytest.raises(ConfigError, match="exclude_self"):
            list(opened.search(whole(other, k=2, exclude_self=True)))


def test_nothing_heavy_loads_before_it_is_used() -> None:
    check = (
        "import sys, roclip_sanitize.index; sys.exit(bool({'faiss', 'torch', 'ray'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
