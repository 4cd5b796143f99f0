"""The index answers as if every row had been compared with every query by hand."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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
from roclip_sanitize.neighbours import (
    Find,
    Neighbours,
    Rows,
    SearchTask,
    best_k,
    codes_of,
    exact_cosines,
    merge,
    numpy_find,
    search_part,
)
from roclip_sanitize.store import EmbeddingStore
from tests.stores import make_store, unit_rows


class Workers(LocalExecutor):
    """In this process, but says that it has several workers."""

    def __init__(self, size: int) -> None:
        self.size = size


class Idle(LocalExecutor):
    """Refuses any work."""

    def map(self, make_worker: Callable[[], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        assert list(tasks) == []
        return iter(())


def few_directions(rows: int, *, width: int = 4, distinct: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Rows of which many are equal: ``distinct`` different ones, drawn with repetition."""
    random = np.random.default_rng(seed)
    return unit_rows(random.normal(size=(distinct, width)))[random.integers(0, distinct, rows)]


def by_hand(
    vectors_ND: NDArray[Any], query: int, task: SearchTask, *, hashes: Sequence[str]
) -> list[tuple[int, float]]:
    """The rows that one row should get: all compared, in exact arithmetic, then sorted."""
    answers = []
    for row, vector_D in enumerate(vectors_ND):
        products = vector_D.astype(np.float64) * vectors_ND[query].astype(np.float64)
        cosine = np.float32(math.fsum(products))
        barred = (
            (task.exclude_self and row == query)
            or (task.exclude_hash and hashes[row] == hashes[query])
            or (task.max_cosine is not None and cosine > np.float32(task.max_cosine))
        )
        if not barred:
            answers.append((row, float(cosine)))
    answers.sort(key=lambda answer: (-answer[1], answer[0]))
    return (answers + [(-1, -math.inf)] * task.k)[: task.k]


def pairs_of(found: Neighbours, query: int) -> list[tuple[int, float]]:
    return list(zip(found.rows_NK[query].tolist(), found.cosine_NK[query].tolist(), strict=True))


def whole(store: EmbeddingStore, **asked: Any) -> list[SearchTask]:
    """One question for every part of a store."""
    return [
        SearchTask(store=store.path, part=part.name, modality="image", start=0, stop=part.rows, **asked)
        for part in store.parts
    ]


def search_all(index: Path, store: EmbeddingStore, *, workers: int = 1, **asked: Any) -> Neighbours:
    """Neighbours of every row of the store."""
    with open_index(index, Workers(workers)) as opened:
        found = list(opened.search(whole(store, **asked)))
    return Neighbours(
        rows_NK=np.concatenate([each.rows_NK for each in found]),
        cosine_NK=np.concatenate([each.cosine_NK for each in found]),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    names = ("*.faiss", "*.npy")
    return {path.name: path.read_bytes() for name in names for path in sorted(folder.glob(name))}


# The arithmetic


def test_equal_cosines_come_in_the_order_of_their_rows() -> None:
    found = best_k(np.array([[7, 3, 5, -1]]), np.array([[0.5, 0.5, 0.9, -np.inf]], np.float32), 5)
    assert found.rows_NK.tolist() == [[5, 3, 7, -1, -1]]
    assert found.cosine_NK.tolist() == [[np.float32(0.9), 0.5, 0.5, -np.inf, -np.inf]]


def test_parts_are_merged_like_one() -> None:
    left = Neighbours(rows_NK=np.array([[4, 9]]), cosine_NK=np.array([[0.75, 0.5]], np.float32))
    right = Neighbours(rows_NK=np.array([[1, -1]]), cosine_NK=np.array([[0.75, -np.inf]], np.float32))
    assert merge([left, right], k=3).rows_NK.tolist() == [[1, 4, 9]]


@given(st.integers(1, 130), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_cosine_has_the_same_bits_in_any_company(width: int, rows: int, queries: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors_MD = unit_rows(random.normal(size=(rows, width)))
    query_QD = unit_rows(random.normal(size=(queries, width)))
    place_QC = np.tile(np.arange(rows), (queries, 1))
    together_QC = exact_cosines(vectors_MD, place_QC, query_QD)
    for query, place in itertools.product(range(queries), range(rows)):
        alone = exact_cosines(
            vectors_MD[place : place + 1], np.zeros((1, 1), np.int64), query_QD[query : query + 1]
        )
        assert alone[0, 0] == together_QC[query, place]


def careless(vectors_MD: NDArray[np.float32], seed: int) -> Find:
    """A search with the worst rounding that float32 allows, and with ties in any order."""
    random = np.random.default_rng(seed)
    error = vectors_MD.shape[1] * 2.0**-24

    def find(query_QD: NDArray[np.float32], fetch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        exact_QM = query_QD.astype(np.float64) @ vectors_MD.T.astype(np.float64)
        score_QM = exact_QM + random.uniform(-error, error, exact_QM.shape)
        place_QC = np.argsort(-score_QM, axis=1)[:, :fetch]
        return np.take_along_axis(score_QM, place_QC, axis=1), place_QC

    return find


@settings(max_examples=50)
@given(
    rows=st.integers(1, 120),
    distinct=st.integers(1, 9),
    k=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 120), max_size=3),
    barred=st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, 0.0, 0.9])),
    seed=st.integers(0, 99),
)
def test_any_split_and_any_rounding_give_the_answer_by_hand(
    rows: int, distinct: int, k: int, cuts: list[int], barred: tuple[bool, bool, float | None], seed: int
) -> None:
    vectors_ND = few_directions(rows, distinct=distinct, seed=seed)
    hashes = [str(row // 3) for row in range(rows)]
    everything = Rows(vectors_ND=vectors_ND, row_N=np.arange(rows), codes={"image_hash": codes_of(hashes)})
    task = SearchTask(
        store=Path(), part="", modality="image", start=0, stop=rows, k=k,
        exclude_self=barred[0], exclude_hash=barred[1], max_cosine=barred[2],
    )  # fmt: skip
    bounds = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    answers = []
    for first, last in itertools.pairwise(bounds):
        part = everything.take(np.arange(first, last))
        answers.append(search_part(part, everything, find=careless(part.vectors_ND, seed), task=task))
    found = merge(answers, k=k)
    for query in range(rows):
        assert pairs_of(found, query) == by_hand(vectors_ND, query, task, hashes=hashes)


def test_the_plain_search_finds_the_best_across_its_blocks() -> None:
    vectors_MD = unit_rows(np.random.default_rng(0).normal(size=(40_000, 2)))
    score_QC, place_QC = numpy_find(vectors_MD)(vectors_MD[:2], 3)
    expected_QM = vectors_MD[:2] @ vectors_MD.T
    assert np.allclose(score_QC, -np.sort(-expected_QM, axis=1)[:, :3])
    assert np.allclose(np.take_along_axis(expected_QM, place_QC, axis=1), score_QC)


# The index


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


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    """1,300 pairs in five parts, one of them empty; every row occurs about three times."""
    image_ND = few_directions(1_300, width=16, distinct=400)
    return make_store(tmp_path / "store", image_ND, image_ND, [600, 100, 0, 550, 50])


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

    facts = measure(ShardedIndex(Careless()), store, modality="image", seed=0)
    assert (facts["recall@1"], facts["recall@10"]) == (0.0, 0.0)


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


def test_other_settings_need_another_folder(store: EmbeddingStore, tmp_path: Path) -> None:
    build_index(IndexSettings(store=store.path), out=tmp_path / "i", executor=LocalExecutor())
    with pytest.raises(MismatchError, match="pca4"):
        build_index(
            IndexSettings(store=store.path, transform="pca4"), out=tmp_path / "i", executor=LocalExecutor()
        )


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


def test_rows_that_do_not_exist_cannot_ask(store: EmbeddingStore, tmp_path: Path) -> None:
    build_index(IndexSettings(store=store.path), out=tmp_path / "i", executor=LocalExecutor())
    task = whole(store, k=1)[1]
    with open_index(tmp_path / "i", LocalExecutor()) as index:
        for wrong in (replace(task, stop=101), replace(task, part="00009")):
            with pytest.raises(ConfigError, match=f"no rows 0 to {wrong.stop} in part {wrong.part}"):
                list(index.search([wrong]))


def test_only_rows_of_the_indexed_store_can_be_left_out(store: EmbeddingStore, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", np.eye(16), np.eye(16), [16])
    build_index(IndexSettings(store=store.path), out=tmp_path / "i", executor=LocalExecutor())
    with open_index(tmp_path / "i", LocalExecutor()) as index:
        (found,) = index.search(whole(other, k=2))
        assert found.rows_NK.shape == (16, 2)
        with pytest.raises(ConfigError, match="exclude_self"):
            list(index.search(whole(other, k=2, exclude_self=True)))


def test_nothing_heavy_loads_before_it_is_used() -> None:
    check = (
        "import sys, roclip_sanitize.index; sys.exit(bool({'faiss', 'torch', 'ray'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
