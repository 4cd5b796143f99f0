"""Approximate kinds: exact cosines, rows that may be missing, the same answer from any number of workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.index import IndexSettings, build_index, inspect_index, open_index
from roclip_sanitize.index_files import open_faiss
from roclip_sanitize.index_plan import Sizes, chosen
from roclip_sanitize.index_tuning import efforts
from roclip_sanitize.neighbours import Neighbours, Rows, SearchTask, search_part
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.store import EmbeddingStore
from tests.searching import Idle, Workers, files_of, search_all, whole
from tests.stores import make_store, unit_rows

pytestmark = pytest.mark.slow  # every test trains an index

KINDS = ("ivf_flat", "ivf_pq", "hnsw")
ROWS = 800
PARTS = [600, 50, 0, 120, 30]


def clouds(rows: int, *, width: int = 16, clouds: int = 40, seed: int = 0) -> NDArray[np.float32]:
    """Rows around a few centres, as vectors of pictures are."""
    random = np.random.default_rng(seed)
    centre_ND = random.normal(size=(clouds, width))[random.integers(0, clouds, rows)]
    return unit_rows(centre_ND + random.normal(size=(rows, width)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    image_ND = clouds(ROWS)
    return make_store(
        tmp_path_factory.mktemp("clouds") / "store", image_ND, np.roll(image_ND, 1, axis=1), PARTS
    )


def settings(store: EmbeddingStore, kind: str, **more: Any) -> IndexSettings:
    return IndexSettings(store=store.path, kind=kind, **more)


def stored(store: EmbeddingStore) -> NDArray[np.float16]:
    return np.concatenate([store.vectors(part.name, "image") for part in store.parts])


def same(one: Neighbours, other: Neighbours) -> bool:
    return np.array_equal(one.rows_NK, other.rows_NK) and np.array_equal(one.cosine_NK, other.cosine_NK)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """FAISS with so many threads."""
    before = open_faiss().omp_get_max_threads()
    open_faiss().omp_set_num_threads(count)
    try:
        yield
    finally:
        open_faiss().omp_set_num_threads(before)


# What they find


@pytest.mark.parametrize("transform", ["", "pca8"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_has_its_exact_cosine_and_most_is_found(
    store: EmbeddingStore, tmp_path: Path, kind: str, transform: str
) -> None:
    asked = {"k": 10, "exclude_self": True}
    answers = []
    for name in ("flat", kind):
        out = tmp_path / name
        build_index(settings(store, name, transform=transform, parts=2), out=out, executor=Workers(2))
        answers.append(search_all(out, store, workers=2, **asked))
    exact, found = answers
    hits = 0
    for query in range(ROWS):
        cosine_of = dict(zip(exact.rows_NK[query].tolist(), exact.cosine_NK[query].tolist(), strict=True))
        for row, cosine in zip(found.rows_NK[query].tolist(), found.cosine_NK[query].tolist(), strict=True):
            hits += row in cosine_of
            assert cosine == cosine_of.get(row, cosine)
            assert row != query
    assert hits / (10 * ROWS) > 0.9
    assert (found.cosine_NK[:, 1:] <= found.cosine_NK[:, :-1]).all()
    assert inspect_index(tmp_path / kind)["recall@10"] > 0.9


@pytest.mark.parametrize("transform", ["", "pca8"])
def test_looking_into_every_list_is_exact(store: EmbeddingStore, tmp_path: Path, transform: str) -> None:
    exact, approximate = settings(store, "flat", transform=transform), settings(store, "ivf_flat", nprobe=99)
    build_index(exact, out=tmp_path / "flat", executor=Workers(1))
    facts = build_index(replace(approximate, transform=transform), out=tmp_path / "ivf", executor=Workers(2))
    assert (facts["nprobe"], facts["recall@1"], facts["recall@10"]) == (facts["nlist"], 1.0, 1.0)
    asked: dict[str, Any] = {"k": 7, "exclude_self": True, "max_cosine": 0.9}
    assert same(search_all(tmp_path / "flat", store, **asked), search_all(tmp_path / "ivf", store, **asked))


def test_a_query_looks_into_the_nearest_lists_and_no_others(store: EmbeddingStore, tmp_path: Path) -> None:
    build_index(settings(store, "ivf_flat", nprobe=3, parts=1), out=tmp_path / "i", executor=Workers(1))
    trained = open_faiss().read_index(str(tmp_path / "i" / "trained.faiss"))
    centroid_LD = trained.quantizer.reconstruct_n(0, trained.nlist).astype(np.float64)
    vectors_ND = stored(store).astype(np.float64)
    nearness_NL = vectors_ND @ centroid_LD.T
    found = search_all(tmp_path / "i", store, k=5, exclude_self=True)
    for query in range(0, ROWS, 31):
        lists = np.argsort(-nearness_NL[query])[:3]
        (seen,) = np.nonzero(np.isin(nearness_NL.argmax(axis=1), lists))
        seen = seen[seen != query]
        best = seen[np.argsort(-(vectors_ND[seen] @ vectors_ND[query]), kind="stable")][:5]
        assert found.rows_NK[query].tolist() == best.tolist() + [-1] * (5 - len(best))


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_nearest_are_excluded_the_next_are_found(tmp_path: Path, kind: str) -> None:
    image_ND = clouds(600)
    image_ND[:200] = unit_rows(image_ND[0] + 0.01 * image_ND[:200])
    hashes = ["same"] * 200 + [str(row) for row in range(400)]
    store = make_store(tmp_path / "store", image_ND, image_ND, [300, 300], image_hashes=hashes)
    build_index(settings(store, kind, nprobe=600), out=tmp_path / "i", executor=Workers(1))
    found = search_all(tmp_path / "i", store, k=5, exclude_hash=True)
    assert (found.rows_NK[:200] >= 200).all()
    assert np.isfinite(found.cosine_NK).all()


def test_a_search_that_has_no_more_to_offer_is_not_asked_again() -> None:
    vectors_MD = unit_rows(np.eye(50) + 0.1)
    asked = []

    def find(query_QD: NDArray[np.float32], fetch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        asked.append(fetch)
        place_QC = np.full((len(query_QD), fetch), -1)
        place_QC[:, :2] = [[4, 9]]
        return np.where(place_QC < 0, -np.inf, 0.5), place_QC

    rows = Rows(vectors_ND=vectors_MD, row_N=np.arange(100, 150), codes={})
    queries = Rows(vectors_ND=vectors_MD[9:10], row_N=np.array([0]), codes={})
    task = SearchTask(store=Path(), part="", modality="image", start=0, stop=1, k=3)
    for bounded in (True, False):
        found = search_part(rows, queries, find=find, task=task, bounded=bounded)
        assert found.rows_NK.tolist() == [[109, 104, -1]]
    assert asked == [19, 19]


# The same from anyone


@pytest.mark.parametrize("transform", ["", "pca8"])
def test_ivf_flat_answers_alike_in_any_number_of_parts(
    store: EmbeddingStore, tmp_path: Path, transform: str
) -> None:
    found, facts = [], []
    for parts in (1, 2, 5):
        out = tmp_path / f"parts{parts}"
        told = settings(store, "ivf_flat", transform=transform, parts=parts, recall=0.7)
        facts.append(build_index(told, out=out, executor=Workers(parts)))
        found.append(search_all(out, store, workers=3, k=12, exclude_self=True))
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    for name in ("nlist", "nprobe", "recall@1", "recall@10"):
        assert len({each[name] for each in facts}) == 1
    assert facts[0]["nprobe"] < facts[0]["nlist"]


@pytest.mark.parametrize("kind", KINDS)
def test_workers_threads_and_cuts_change_no_bit(store: EmbeddingStore, tmp_path: Path, kind: str) -> None:
    told = settings(store, kind, parts=3, recall=0.7)
    for workers in (1, 2):
        with threads(workers):
            build_index(told, out=tmp_path / f"by{workers}", executor=Workers(workers))
    assert files_of(tmp_path / "by1") == files_of(tmp_path / "by2")
    task = whole(store, k=4)[0]
    cuts = [0, 1, 7, 300, 511, 513, 599, 600]
    with open_index(tmp_path / "by1", Workers(1)) as index, threads(1):
        (together,) = index.search([task])
    with open_index(tmp_path / "by2", Workers(2)) as index, threads(2):
        pieces = list(index.search(replace(task, start=a, stop=b) for a, b in itertools.pairwise(cuts)))
    assert np.array_equal(together.rows_NK, np.concatenate([piece.rows_NK for piece in pieces]))
    assert np.array_equal(together.cosine_NK, np.concatenate([piece.cosine_NK for piece in pieces]))


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_kill_only_what_is_missing_is_built_and_is_the_same(
    store: EmbeddingStore, tmp_path: Path, kind: str
) -> None:
    told, out = settings(store, kind, pool=500, parts=3), tmp_path / "i"
    facts = build_index(told, out=out, executor=Workers(2))
    before, touched = files_of(out), (out / "part_00000.faiss").stat().st_mtime_ns
    (out / "complete.json").unlink()
    (out / "done" / "00001.json").unlink()
    (out / "part_00001.faiss").write_bytes(b"half a fi")
    again = build_index(told, out=out, executor=Workers(1))
    assert files_of(out) == before
    assert (out / "part_00000.faiss").stat().st_mtime_ns == touched
    timeless = {name for name in facts if name != "queries_per_second"}
    assert {name: again[name] for name in timeless} == {name: facts[name] for name in timeless}
    assert (again["rows"], build_index(told, out=out, executor=Idle())) == (500, again)


# How they are laid out, and how far they look


@pytest.mark.parametrize(
    ("rows", "width", "lists", "codes", "sample"),
    [
        (1_000_000, 512, 4_000, 64, 256_000),  # 4 √rows, an eighth of the width, 64 rows a list
        (100_000_000, 768, 40_000, 96, 262_144),  # the sample has a limit
        (10_000, 96, 256, 12, 16_384),  # 39 rows a list at least
        (30, 97, 1, 1, 16_384),  # no part of a prime width is whole
        (1_000, 100, 25, 10, 16_384),  # 12 does not divide 100
    ],
)
def test_sizes_follow_rows_and_width(rows: int, width: int, lists: int, codes: int, sample: int) -> None:
    sizes = Sizes.of("ivf_pq", rows=rows, width=width)
    assert (sizes.lists, sizes.codes, sizes.sample, sizes.efforts) == (lists, codes, sample, (1, lists))


@pytest.mark.parametrize(
    ("rows", "kind"),
    [(250_000, "flat"), (250_001, "ivf_flat"), (10_000_000, "ivf_flat"), (10_000_001, "ivf_pq")],
)
def test_auto_goes_by_the_rows(store: EmbeddingStore, rows: int, kind: str) -> None:
    assert chosen(settings(store, "auto", pool=rows), store).kind == kind
    assert chosen(settings(store, "hnsw", pool=rows), store).kind == "hnsw"


def test_auto_leaves_the_folder_that_its_choice_leaves(store: EmbeddingStore, tmp_path: Path) -> None:
    facts = build_index(settings(store, "auto"), out=tmp_path / "i", executor=Workers(1))
    assert build_index(settings(store, "flat"), out=tmp_path / "i", executor=Idle()) == facts
    assert set(read_json(tmp_path / "i" / "stage.json")["settings"]) == {
        "store", "store_content", "model", "modality", "kind", "transform", "parts", "pool", "seed",
    }  # fmt: skip


def test_efforts_grow_to_the_most() -> None:
    assert list(efforts(1, 20)) == [1, 2, 3, 4, 6, 8, 12, 16, 20]
    assert list(efforts(32, 100)) == [32, 48, 64, 96, 100]
    assert list(efforts(1, 1)) == [1]


def test_more_recall_takes_more_lists(store: EmbeddingStore, tmp_path: Path) -> None:
    looked = {}
    for recall in (0.5, 0.9, 1.0):
        out = tmp_path / str(recall)
        facts = build_index(settings(store, "ivf_flat", recall=recall), out=out, executor=Workers(1))
        looked[recall] = facts["nprobe"]
        assert (facts["recall"], facts["recall_queries"] > 100) == (recall, True)
        assert facts["recall@10"] > recall - 0.05  # on other queries than those that chose
    assert looked[0.5] < looked[0.9] < looked[1.0]


def test_a_question_may_ask_for_another_effort(store: EmbeddingStore, tmp_path: Path) -> None:
    build_index(settings(store, "ivf_flat", nprobe=1), out=tmp_path / "one", executor=Workers(1))
    build_index(settings(store, "ivf_flat", nprobe=6), out=tmp_path / "six", executor=Workers(1))
    one, six = (search_all(tmp_path / name, store, k=10) for name in ("one", "six"))
    assert not same(one, six)
    assert same(search_all(tmp_path / "one", store, k=10, effort=6), six)


def test_recall_is_measured_with_the_vectors_that_will_ask(store: EmbeddingStore, tmp_path: Path) -> None:
    """Captions lie elsewhere than pictures here, so that as many lists find less for them."""
    own = build_index(settings(store, "ivf_flat", nprobe=2), out=tmp_path / "own", executor=Workers(1))
    told = settings(store, "ivf_flat", nprobe=2, queries="text")
    cross = build_index(told, out=tmp_path / "cross", executor=Workers(1))
    assert cross["recall@10"] < own["recall@10"]
    assert cross["queries"] == "text"


# What is refused


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "lsh"}, "index kind is 'lsh', wanted one of flat, ivf_flat, ivf_pq, hnsw, auto"),
        ({"queries": "sound"}, "queries is 'sound', wanted '' or one of image, text"),
        ({"recall": 0.0}, "nprobe is 0 and recall is 0.0, wanted 0 or more and a share above 0"),
        ({"recall": 95.0}, "recall is 95.0"),
        ({"nprobe": -1}, "nprobe is -1"),
    ],
)
def test_settings_are_refused_early(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        IndexSettings(store=Path("store"), **wrong)


def test_codes_need_rows_to_be_learnt_from(tmp_path: Path) -> None:
    image_ND = clouds(255)
    few = make_store(tmp_path / "store", image_ND, image_ND, [255])
    with pytest.raises(ConfigError, match=r"256 codes from as many rows or more, .* has 255"):
        build_index(settings(few, "ivf_pq"), out=tmp_path / "i", executor=Workers(1))


def test_captions_may_be_said_to_ask_only_in_a_common_space(tmp_path: Path) -> None:
    apart = make_store(tmp_path / "store", clouds(50), clouds(50), [50], joint=False)
    with pytest.raises(MismatchError, match="two spaces are separate"):
        build_index(settings(apart, "hnsw", queries="text"), out=tmp_path / "i", executor=Workers(1))
    assert not (tmp_path / "i").exists()


def test_a_transform_of_pictures_does_not_fit_captions(store: EmbeddingStore, tmp_path: Path) -> None:
    told = settings(store, "flat", transform="pca4", queries="text")
    with pytest.raises(ConfigError, match="pca4 fits images alone, not text"):
        build_index(told, out=tmp_path / "i", executor=Workers(1))
    assert not (tmp_path / "i").exists()


def test_other_kinds_need_another_folder(store: EmbeddingStore, tmp_path: Path) -> None:
    build_index(settings(store, "flat"), out=tmp_path / "i", executor=Workers(1))
    with pytest.raises(MismatchError, match="kind was 'flat', now 'hnsw'"):
        build_index(settings(store, "hnsw"), out=tmp_path / "i", executor=Workers(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_of_few_rows_is_indexed_too(tmp_path: Path, kind: str) -> None:
    rows = 256 if kind == "ivf_pq" else 3
    image_ND = clouds(rows, width=8)
    few = make_store(tmp_path / "store", image_ND, image_ND, [0, rows - 1, 1])
    facts = build_index(settings(few, kind, parts=3), out=tmp_path / "i", executor=Workers(2))
    assert (facts["rows"], facts["parts"]) == (rows, 3)
    found = search_all(tmp_path / "i", few, k=1)
    assert (found.rows_NK[:, 0] == np.arange(rows)).mean() > 0.9
