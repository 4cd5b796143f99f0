"""Embedding: row i is pair i, what failed is listed, and a lost shard comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import MakeWorker, Result, Task
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.features import CAPTION_WIDTH, PlainEncoder
from roclip_sanitize.images import decode_image, to_square
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.store import EmbeddingStore, metadata_file
from tests.corpora import forged_jpeg, pair_members, picture, read_shard, uid, write_shard, write_tar

RANDOM_CLIP = "open_clip:roclip-rn-64"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EmbedSettings:
    """Three shards: whole, with bad pairs, and no shard at all."""
    folder = tmp_path_factory.mktemp("shards")
    bad = [
        *pair_members("good", 20),
        *pair_members("cut", 21, image=picture(21)[:-99]),
        *pair_members("bomb", 22, image=forged_jpeg(20_000, 20_000)),
        *pair_members("mute", 23, caption=b""),
        *pair_members("fine", 24),
    ]
    (folder / "2.tar").write_bytes(b"no tar")
    shards = (write_shard(folder / "0.tar", range(7)), write_tar(folder / "1.tar", bad), folder / "2.tar")
    return EmbedSettings(shards=shards, encoder="plain", batch_size=3)


@pytest.fixture(scope="module")
def out(settings: EmbedSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    embed_shards(settings, out=path, executor=LocalExecutor())
    return path


class CountingExecutor(LocalExecutor):
    """Counts the tasks that it is given."""

    def __init__(self) -> None:
        self.tasks = 0

    def map(self, make_worker: MakeWorker[Task, Result], tasks: object) -> Iterator[Result]:
        for task in tasks:  # type: ignore[attr-defined]
            self.tasks += 1
            yield make_worker()(task)


def data_of(out: Path) -> dict[str, bytes]:
    """Every file's bytes, but for markers, which tell the seconds."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "done" and path.name != "complete.json"
    }


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


def test_another_encoders_store_is_refused(settings: EmbedSettings, tmp_path: Path) -> None:
    other = {**PlainEncoder.facts.to_json(), "digest": "plain-0"}
    shards = [str(path) for path in settings.shards]
    made_with = {"encoder": other, "shards": shards, "batch_size": 3, "seed": 0}
    StageFolder.create(tmp_path, stage="embed", settings=made_with)
    with pytest.raises(MismatchError, match=r"encoder was .*plain-0.*, now .*plain-1") as caught:
        embed_shards(settings, out=tmp_path, executor=LocalExecutor())
    assert str(caught.value).isprintable()
    assert not (tmp_path / "done").exists()


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch-size is 0, wanted 1 or more"):
        EmbedSettings(shards=(), encoder="plain", batch_size=0)


# Plain features


def test_plain_pictures_that_are_alike_are_near() -> None:
    pixels = np.stack([to_square(decode_image(picture(number)), 16) for number in range(2)])
    dimmed = (pixels[0] * 0.9).astype(np.uint8)
    black = np.zeros_like(dimmed)
    one, other, dim, dark = PlainEncoder().encode_images(np.stack([*pixels, dimmed, black]))
    assert one @ dim > 0.999 > one @ other
    assert dark == pytest.approx(np.full(768, 768**-0.5))


def test_plain_captions_count_words_whatever_their_case() -> None:
    captions = ["A red hat", "red hat, a!", "a blue boat", "4711", "🎩", "4711"]
    text_ND = PlainEncoder().encode_captions(captions)
    assert np.array_equal(text_ND[0], text_ND[1])
    assert np.array_equal(text_ND[3], text_ND[5])
    assert not np.array_equal(text_ND[3], text_ND[4])
    assert np.linalg.norm(text_ND, axis=1) == pytest.approx(1)


# CLIP


@pytest.mark.slow
def test_random_weights_depend_on_nothing_but_the_seed(settings: EmbedSettings, tmp_path: Path) -> None:
    first, again = (open_encoder(RANDOM_CLIP, seed=seed, device="cpu") for seed in (1, 1))
    other = open_encoder(RANDOM_CLIP, seed=2, device="cpu")
    assert first.facts == again.facts
    assert first.facts.digest != other.facts.digest
    assert (first.facts.joint, first.facts.side, first.facts.fit) == (True, 64, "squash")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    captions = ["a hat", "帽子 🎩", "x" * 4_000]
    for left, right in [
        (first.encode_images(pixels), again.encode_images(pixels)),
        (first.encode_captions(captions), again.encode_captions(captions)),
    ]:
        assert np.array_equal(left, right)
        assert left.dtype == np.float32
        assert np.linalg.norm(left, axis=1) == pytest.approx(1, abs=1e-5)
    assert not np.array_equal(first.encode_images(pixels), other.encode_images(pixels))


@pytest.mark.slow
def test_a_store_of_random_clip_is_the_same_twice(settings: EmbedSettings, tmp_path: Path) -> None:
    clip = EmbedSettings(shards=settings.shards, encoder=RANDOM_CLIP, seed=5)
    for name in ("one", "two"):
        embed_shards(clip, out=tmp_path / name, executor=LocalExecutor())
    assert data_of(tmp_path / "one") == data_of(tmp_path / "two")
    store = EmbeddingStore.open(tmp_path / "one")
    store.require_joint("a CLIP")
    assert store.vectors("00000", "image").shape == store.vectors("00000", "text").shape
    with pytest.raises(MismatchError, match="seed was 5, now 6"):
        embed_shards(
            EmbedSettings(shards=settings.shards, encoder=RANDOM_CLIP, seed=6),
            out=tmp_path / "one",
            executor=LocalExecutor(),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("open_clip:ViT-B-33", "open_clip has no model 'ViT-B-33'; did you mean .*ViT-B-32"),
        ("open_clip:ViT-B-32/nowhere", "weights 'nowhere' are no file and no tag of ViT-B-32"),
        ("plane", "encoder 'plane' is neither 'plain', 'open_clip:NAME"),
    ],
)
def test_an_unknown_encoder_is_refused(
    settings: EmbedSettings, tmp_path: Path, encoder: str, message: str
) -> None:
    unknown = EmbedSettings(shards=settings.shards, encoder=encoder)
    with pytest.raises(ConfigError, match=message):
        embed_shards(unknown, out=tmp_path / "out", executor=LocalExecutor())
    assert not (tmp_path / "out").exists()
