"""Embedding with one encoder or another: each makes a store of its own, and says how it was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.features import PlainEncoder
from roclip_sanitize.images import decode_image, to_square
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.store import EmbeddingStore
from tests.corpora import picture
from tests.embedding import data_of, three_shards
from tests.test_evaluate_streaming import pretend_training

RANDOM_CLIP = "open_clip:roclip-rn-64"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EmbedSettings:
    return three_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def plain(settings: EmbedSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of plain features."""
    path = tmp_path_factory.mktemp("plain")
    embed_shards(settings, out=path, executor=LocalExecutor())
    return path


# Precision and compiling


class HalfEncoder(PlainEncoder):
    """Plain features that say what a CLIP on a GPU says."""

    facts = replace(PlainEncoder.facts, name="half", precision="bfloat16")


@pytest.fixture
def on_a_gpu(settings: EmbedSettings, monkeypatch: pytest.MonkeyPatch) -> EmbedSettings:
    """Settings whose encoder computes in bfloat16 as long as nobody asks otherwise."""

    def opened(spec: str, *, seed: int, precision: str, compiled: bool) -> PlainEncoder:
        encoder = HalfEncoder()
        asked = {"auto": "bfloat16"}.get(precision, precision)
        encoder.facts = replace(encoder.facts, precision=asked)  # type: ignore[arg-type]
        return encoder

    monkeypatch.setattr("roclip_sanitize.embed.open_encoder", opened)
    return replace(settings, encoder="half")


def test_a_store_tells_its_precision(plain: Path, on_a_gpu: EmbedSettings, tmp_path: Path) -> None:
    embed_shards(on_a_gpu, out=tmp_path, executor=LocalExecutor())
    assert StageFolder(tmp_path).settings["precision"] == "bfloat16"
    assert "precision" not in StageFolder(tmp_path).settings["encoder"]
    assert "precision" not in StageFolder(plain).settings  # plain features multiply no matrices


def test_a_store_goes_on_in_its_own_precision_only(on_a_gpu: EmbedSettings, tmp_path: Path) -> None:
    embed_shards(on_a_gpu, out=tmp_path, executor=LocalExecutor())
    before = data_of(tmp_path)
    (tmp_path / "done" / "00001.json").unlink()
    without_gpu = replace(on_a_gpu, precision="float32")
    line = r"was begun in bfloat16, and would go on in float32 here: embed with --precision bfloat16, or into"
    with pytest.raises(MismatchError, match=line) as caught:
        embed_shards(without_gpu, out=tmp_path, executor=LocalExecutor())
    assert str(caught.value).isprintable()
    assert not (tmp_path / "done" / "00001.json").exists()
    embed_shards(replace(on_a_gpu, precision="bfloat16"), out=tmp_path, executor=LocalExecutor())
    assert data_of(tmp_path) == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_store_from_before_precisions_were_told_goes_on(
    on_a_gpu: EmbedSettings, tmp_path: Path, precision: Any
) -> None:
    embed_shards(on_a_gpu, out=tmp_path, executor=LocalExecutor())
    told = read_json(tmp_path / "stage.json")
    del told["settings"]["precision"]
    write_json(tmp_path / "stage.json", told)
    (tmp_path / "done" / "00001.json").unlink()
    embed_shards(replace(on_a_gpu, precision=precision), out=tmp_path, executor=LocalExecutor())
    assert read_json(tmp_path / "stage.json") == told
    assert EmbeddingStore.open(tmp_path).rows == 9


def test_a_compiled_encoders_store_is_not_completed_by_another(
    on_a_gpu: EmbedSettings, tmp_path: Path
) -> None:
    embed_shards(replace(on_a_gpu, compiled=True), out=tmp_path, executor=LocalExecutor())
    with pytest.raises(MismatchError, match="compiled was True, now None"):
        embed_shards(on_a_gpu, out=tmp_path, executor=LocalExecutor())


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


def test_nothing_is_no_rows_of_the_same_width() -> None:
    plain = PlainEncoder()
    found = (plain.encode_images(np.zeros((0, 16, 16, 3), np.uint8)), plain.encode_captions([]))
    assert [rows.shape for rows in found] == [(0, 768), (0, 512)]
    assert {rows.dtype for rows in found} == {np.dtype(np.float32)}


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
        (
            "plane",
            r"encoder 'plane' is none of 'plain', 'textures', 'open_clip:NAME\[/WEIGHTS\]' and a training's "
            "folder: "
            "neither plane nor its model/ has a model.json",
        ),
    ],
)
def test_an_unknown_encoder_is_refused(
    settings: EmbedSettings, tmp_path: Path, encoder: str, message: str
) -> None:
    unknown = EmbedSettings(shards=settings.shards, encoder=encoder)
    with pytest.raises(ConfigError, match=message):
        embed_shards(unknown, out=tmp_path / "out", executor=LocalExecutor())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_is_named_by_its_folder_its_model_or_its_weights(
    settings: EmbedSettings, tmp_path: Path
) -> None:
    training = pretend_training(tmp_path / "model", seed=0)  # a name that its model has, too
    meant = (training, training / "model", training / "model" / "weights.safetensors")
    for told in meant:  # into one store: its encoder is the same by any of them
        embed_shards(replace(settings, encoder=str(told)), out=tmp_path / "store", executor=LocalExecutor())
    assert EmbeddingStore.open(tmp_path / "store").encoder == str(training / "model")


@pytest.mark.slow
def test_broken_weights_are_one_line(tmp_path: Path) -> None:
    training = pretend_training(tmp_path / "trained", seed=0)
    weights = training / "model" / "weights.safetensors"
    weights.write_bytes(b"no weights at all")
    with pytest.raises(DataError, match=f"{weights} holds no weights: SafetensorError: "):
        open_encoder(str(training))
    other = tmp_path / "weights.pt"
    other.write_bytes(b"no weights at all")
    with pytest.raises(DataError, match=f"{other} holds no weights: "):
        open_encoder(f"open_clip:roclip-vit-64/{other}")


@pytest.mark.slow
@pytest.mark.parametrize("told", ["plain", "nowhere"])
def test_what_is_no_clip_cannot_be_trained_further(told: str) -> None:
    from roclip_sanitize.encoder import load_clip

    with pytest.raises(
        ConfigError, match=f"'{told}' is no CLIP, wanted a training's folder or open_clip:NAME"
    ):
        load_clip(told)
