"""Embedding: row i is pair i, what failed is listed, and a lost shard comes back as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.embed import (
    SHARDS_IN_A_ROW,
    STEPS,
    EmbedSettings,
    EmbedWorker,
    ShardRow,
    embed_limits,
    embed_shards,
    in_rows,
)
from roclip_sanitize.errors import ConfigError, MismatchError, ShardMissing, StorageError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.features import CAPTION_WIDTH, PlainEncoder
from roclip_sanitize.images import decode_image, to_square
from roclip_sanitize.limits import Work
from roclip_sanitize.runfiles import Marker, StageFolder, read_json
from roclip_sanitize.shards import shard_tasks
from roclip_sanitize.store import EmbeddingStore, Towers, metadata_file
from tests.corpora import read_shard, uid
from tests.embedding import CountingExecutor, data_of, three_shards


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EmbedSettings:
    return three_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def out(settings: EmbedSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    embed_shards(replace(settings, threads=1), out=path, executor=LocalExecutor())
    return path


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


# The store


def test_row_i_is_pair_i(settings: EmbedSettings, out: Path) -> None:
    """A slow reference: one pair at a time."""
    store, encoder = EmbeddingStore.open(out), PlainEncoder()
    pairs, _ = read_shard(settings.shards[0])
    metadata = store.metadata("00000")
    assert metadata.rows() == [(p.uid, p.key, "0.tar", p.caption, p.image_hash) for p in pairs]
    for row, pair in enumerate(pairs):
        pixels = to_square(decode_image(pair.image), 16)
        image = encoder.encode_images(pixels[None])[0].astype(np.float16)
        text = encoder.encode_captions([pair.caption])[0].astype(np.float16)
        assert np.array_equal(store.vectors("00000", "image")[row], image)
        assert np.array_equal(store.vectors("00000", "text")[row], text)


def test_a_store_knows_its_parts(settings: EmbedSettings, out: Path) -> None:
    store = EmbeddingStore.open(out)
    assert [(part.name, part.start, part.rows) for part in store.parts] == [
        ("00000", 0, 7),
        ("00001", 7, 2),
        ("00002", 9, 0),
    ]
    assert store.rows == len(store.all_metadata()) == 9
    assert store.shards == [str(path) for path in settings.shards]
    assert (store.model, store.joint) == (PlainEncoder.facts.digest, False)
    with pytest.raises(MismatchError, match="the test compares images with captions, but"):
        store.require_joint("the test")


def test_vectors_are_unit_rows_of_float16(out: Path) -> None:
    store = EmbeddingStore.open(out)
    for part, modality, width in [("00000", "image", 768), ("00001", "text", CAPTION_WIDTH)]:
        vectors_ND = store.vectors(part, modality)  # type: ignore[arg-type]
        assert vectors_ND.dtype == np.float16
        assert vectors_ND.shape[1] == width
        assert np.linalg.norm(vectors_ND.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)


def test_failures_are_counted_and_listed_by_uid(out: Path) -> None:
    store = EmbeddingStore.open(out)
    failed = {"empty_caption": 1, "image_too_large": 1, "image_undecodable": 1, "unreadable_shard": 1}
    assert store.tally.failed == failed
    assert (store.tally.seen, store.tally.kept) == (13, 9)
    listed = store.failures("00001").select("uid", "key", "shard", "reason").rows()
    assert set(listed) == {
        (uid(21), "cut", "1.tar", "image_undecodable"),
        (uid(22), "bomb", "1.tar", "image_too_large"),
        (uid(23), "mute", "1.tar", "empty_caption"),
    }
    assert store.failures("00000").is_empty()
    assert store.failures("00002")["detail"].to_list() == ["2.tar is no tar: truncated header"]


def test_batches_do_not_show(settings: EmbedSettings, out: Path, tmp_path: Path) -> None:
    whole = EmbedSettings(shards=settings.shards, encoder="plain", batch_size=100)
    embed_shards(whole, out=tmp_path, executor=LocalExecutor())
    stored = data_of(tmp_path)
    assert {name: data for name, data in data_of(out).items() if name != "stage.json"} == {
        name: data for name, data in stored.items() if name != "stage.json"
    }


@pytest.mark.parametrize("threads", [0, 2, 5])
def test_threads_do_not_show(settings: EmbedSettings, out: Path, tmp_path: Path, threads: int) -> None:
    embed_shards(replace(settings, threads=threads), out=tmp_path, executor=LocalExecutor())
    assert data_of(tmp_path) == data_of(out)


def test_the_way_shards_were_dealt_out_does_not_show(
    settings: EmbedSettings, out: Path, tmp_path: Path
) -> None:
    executor = CountingExecutor()
    executor.size = 2
    embed_shards(settings, out=tmp_path, executor=executor)
    assert executor.tasks == 3
    assert data_of(tmp_path) == data_of(out)


@pytest.mark.parametrize(
    ("shards", "workers", "rows"),
    [
        pytest.param(3, 1, [3], id="one worker overlaps all"),
        pytest.param(20, 1, [16, 4], id="but not for ever"),
        pytest.param(3, 2, [1, 1, 1], id="several share few"),
        pytest.param(19, 2, [2] * 9 + [1], id="and end together"),
        pytest.param(0, 2, [], id="nothing"),
    ],
)
def test_shards_are_dealt_out_in_rows(shards: int, workers: int, rows: list[int]) -> None:
    tasks = shard_tasks([Path(f"{number}.tar") for number in range(shards)])
    dealt = list(in_rows(tasks, workers=workers))
    assert [len(row.tasks) for row in dealt] == rows
    assert [task for row in dealt for task in row.tasks] == tasks
    assert max(rows, default=0) <= SHARDS_IN_A_ROW


def test_fast_pixels_make_another_store(settings: EmbedSettings, out: Path, tmp_path: Path) -> None:
    fast = replace(settings, decode="fast")
    tally = embed_shards(fast, out=tmp_path, executor=LocalExecutor())
    assert tally.failed == EmbeddingStore.open(out).tally.failed
    assert StageFolder(tmp_path).settings == {**StageFolder(out).settings, "decode": "fast"}
    with pytest.raises(MismatchError, match="decode was None, now 'fast'"):
        embed_shards(fast, out=out, executor=LocalExecutor())


@pytest.mark.parametrize(("towers", "absent"), [("image", "text_emb"), ("text", "img_emb")])
def test_one_tower_makes_the_same_rows_without_the_other(
    settings: EmbedSettings, out: Path, tmp_path: Path, towers: Towers, absent: str
) -> None:
    embed_shards(replace(settings, towers=towers), out=tmp_path, executor=LocalExecutor())
    whole = {name: data for name, data in data_of(out).items() if not name.startswith((absent, "stage"))}
    assert {name: data for name, data in data_of(tmp_path).items() if name != "stage.json"} == whole
    assert StageFolder(tmp_path).settings["towers"] == towers
    with pytest.raises(MismatchError, match=r"holds no (image|text) vectors"):
        EmbeddingStore.open(tmp_path).vectors("00000", "text" if towers == "image" else "image")
    StageFolder(tmp_path).verify()


# What bounds it


def test_every_shard_tells_what_its_steps_took(settings: EmbedSettings, out: Path) -> None:
    works = [Work.from_json(marker.facts["seconds"]) for marker in StageFolder(out).markers()]
    assert [work.pairs for work in works] == [7, 5, 1]
    assert all(set(work.steps) <= set(STEPS) and work.wall > 0 for work in works)
    limits = embed_limits(out)
    assert set(limits.rates) == set(STEPS)
    assert limits.bound in STEPS
    assert 0 < limits.share <= 1
    assert limits.reached == pytest.approx(13 / sum(work.wall for work in works))


def test_a_shard_from_before_there_were_clocks_is_left_out(settings: EmbedSettings, tmp_path: Path) -> None:
    embed_shards(settings, out=tmp_path, executor=LocalExecutor())
    folder = StageFolder(tmp_path)
    for marker in folder.markers():
        facts = {name: fact for name, fact in marker.facts.items() if name != "seconds"}
        folder.commit(marker.name, files=[tmp_path / name for name in marker.files], facts=facts)
    assert embed_limits(tmp_path).lines() == []


# What goes wrong in a thread


class BrokenEncoder(PlainEncoder):
    """Encodes two batches, then no more."""

    def __init__(self) -> None:
        self._left = 2

    def encode_images(self, image_NSS3: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not self._left:
            raise FloatingPointError("the model gave in")
        self._left -= 1
        return super().encode_images(image_NSS3)


def test_a_shard_that_is_gone_costs_only_itself(settings: EmbedSettings, tmp_path: Path) -> None:
    """It is missed by the reading thread, while the shard before it is still being embedded."""
    first, gone = settings.shards[0], tmp_path / "gone.tar"
    with pytest.raises(ShardMissing, match=r"gone\.tar does not exist"):
        embed_shards(replace(settings, shards=(first, gone)), out=tmp_path / "out", executor=LocalExecutor())
    assert [marker.name for marker in StageFolder(tmp_path / "out").markers()] == ["00000"]


def test_a_model_that_fails_ends_all_threads(settings: EmbedSettings, tmp_path: Path) -> None:
    worker = EmbedWorker(replace(settings, threads=3), tmp_path)
    worker._encoder = BrokenEncoder()
    with pytest.raises(FloatingPointError, match="the model gave in"):
        worker(ShardRow(tuple(shard_tasks(settings.shards))))
    assert StageFolder(tmp_path).markers() == []


def test_a_disk_that_refuses_ends_all_threads(settings: EmbedSettings, tmp_path: Path) -> None:
    (tmp_path / "img_emb").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="img_emb"):
        embed_shards(settings, out=tmp_path, executor=LocalExecutor())


# Once more


def test_a_finished_store_costs_no_work(settings: EmbedSettings, out: Path) -> None:
    executor, before = CountingExecutor(), data_of(out)
    tally = embed_shards(settings, out=out, executor=executor)
    assert executor.tasks == 0
    assert data_of(out) == before
    assert read_json(out / "complete.json")["tally"] == tally.to_json()
    StageFolder(out).verify()


def test_a_lost_shard_comes_back_as_it_was(settings: EmbedSettings, out: Path) -> None:
    before, executor = data_of(out), CountingExecutor()
    for path in [*out.rglob("*00001.*")]:
        path.unlink()
    assert set(before) - set(data_of(out)) == {
        f"{folder}/{name}_00001.{kind}"
        for folder, name, kind in [
            ("img_emb", "img_emb", "npy"),
            ("text_emb", "text_emb", "npy"),
            ("metadata", "metadata", "parquet"),
            ("failures", "failures", "parquet"),
        ]
    }
    embed_shards(settings, out=out, executor=executor)
    assert executor.tasks == 1
    assert data_of(out) == before


def test_files_without_a_marker_are_written_again(settings: EmbedSettings, out: Path) -> None:
    before = data_of(out)
    (out / "done" / "00000.json").unlink()
    metadata_file(out, "00000").write_bytes(b"half a tab")
    embed_shards(settings, out=out, executor=LocalExecutor())
    assert data_of(out) == before


def test_a_row_of_shards_tried_again_goes_on_where_it_was(settings: EmbedSettings, tmp_path: Path) -> None:
    """As when a worker dies: its row is given to another one."""
    first, *_ = tasks = shard_tasks(settings.shards)
    EmbedWorker(settings, tmp_path)(ShardRow((first,)))
    answers = EmbedWorker(settings, tmp_path)(ShardRow(tuple(tasks)))
    assert [answer.name for answer in answers if isinstance(answer, Marker)] == ["00001", "00002"]
    assert len(StageFolder(tmp_path).markers()) == 3


def test_another_encoders_store_is_refused(settings: EmbedSettings, tmp_path: Path) -> None:
    other = {**PlainEncoder.facts.to_json(), "digest": "plain-0"}
    shards = [str(path) for path in settings.shards]
    made_with = {"encoder": other, "shards": shards, "batch_size": 3, "seed": 0}
    made = StageFolder.create(tmp_path, stage="embed", settings=made_with)
    made.commit("00000", files=[], facts={})
    with pytest.raises(MismatchError, match=r"encoder was .*plain-0.*, now .*plain-1") as caught:
        embed_shards(settings, out=tmp_path, executor=LocalExecutor())
    assert str(caught.value).isprintable()
    assert [marker.name for marker in made.markers()] == ["00000"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch-size is 0, wanted 1 or more"),
        ({"threads": -1}, "threads is -1, wanted 0"),
        ({"decode": "quick"}, "decode is 'quick', wanted one of exact, fast"),
        ({"towers": "eiffel"}, "towers is 'eiffel', wanted one of both, image, text"),
        ({"precision": "half"}, "precision is 'half', wanted one of auto, float32, bfloat16"),
        ({"precision": "float32"}, "encoder 'plain' multiplies no matrices"),
        ({"compiled": True}, "encoder 'plain' multiplies no matrices: .* nothing to compile"),
    ],
    ids=str,
)
def test_settings_without_a_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmbedSettings(shards=(), encoder="plain", **wrong)
