"""A training belongs to what its inputs hold: pairs, the weights that it starts from, its tables."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.encoder_facts import MODEL_FILE, MODEL_FOLDER, WEIGHTS_FILE
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.training.inputs import WORDNET_FILES, inputs_of
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.train import model_facts, train_clip
from tests.squares import write_square_shards
from tests.trainings import BATCH, HERE, VIT, Killed, write_table

SHARD = Path("pairs.tar")


def told(tmp_path: Path, **settings: Any) -> dict[str, str]:
    """What a training is made of whose shards are not there."""
    return inputs_of(TrainSettings(shards=(SHARD,), **settings), cache=tmp_path, read=lambda shards: "pairs")


def base(folder: Path, *, content: str) -> str:
    """Stands for a trained model."""
    write_json(folder / MODEL_FOLDER / MODEL_FILE, {"model": VIT, "fit": "squash", "digest": content})
    return str(folder)


def test_shards_that_are_gone_tell_nothing(tmp_path: Path) -> None:
    assert told(tmp_path) == {}


def test_a_model_tells_by_its_digest_however_it_is_named(tmp_path: Path) -> None:
    model = base(tmp_path / "base", content="one")
    folder = Path(model) / MODEL_FOLDER
    for spec in (model, str(folder), str(folder / WEIGHTS_FILE)):
        assert told(tmp_path, pretrained=spec) == {"pretrained weights": "one"}
    base(tmp_path / "base", content="other")
    assert told(tmp_path, pretrained=model) == {"pretrained weights": "other"}
    shutil.rmtree(model)
    assert told(tmp_path, pretrained=model) == {}, "without it a finished training is what it was"


def test_a_file_of_weights_tells_by_its_bytes_and_a_tag_by_its_name(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    found = []
    for data in (b"one", b"other", b"one"):
        weights.write_bytes(data)
        found.append(told(tmp_path, pretrained=f"open_clip:ViT-B-32/{weights}"))
    assert found[0] == found[2] != found[1]
    assert told(tmp_path, pretrained="open_clip:ViT-B-32/laion2b_s34b_b79k") == {}


def test_weights_without_a_digest_tell_by_their_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "base" / MODEL_FILE, {"model": VIT, "fit": "squash"})
    found = []
    for data in (b"one", b"other"):
        (tmp_path / "base" / WEIGHTS_FILE).write_bytes(data)
        found.append(told(tmp_path, pretrained=str(tmp_path / "base"))["pretrained weights"])
    assert found[0] != found[1]


def test_a_table_tells_by_what_it_holds(tmp_path: Path) -> None:
    found = []
    for number, giver in enumerate(("b", "c", "b")):
        write_table(tmp_path / str(number), [("a", giver, ""), ("b", "a", ""), ("c", "a", "")])
        found.append(told(tmp_path, method="roclip", pairs=tmp_path / str(number)))
    assert found[0] == found[2] != found[1]
    assert told(tmp_path, method="roclip", pairs=tmp_path / "gone") == {}


def test_synonyms_tell_by_their_bytes(tmp_path: Path) -> None:
    table, wordnet = tmp_path / "words.txt", tmp_path / "wordnet"
    wordnet.mkdir()
    found = []
    for text in ("sofa\tcouch\n", "sofa\tlounge\n"):
        table.write_text(text)
        (wordnet / WORDNET_FILES[0]).write_text(text)
        found += [
            told(tmp_path, augmentation="paper", synonyms=path)["synonyms"] for path in (table, wordnet)
        ]
    assert found[0] != found[2]
    assert found[1] != found[3]
    assert told(tmp_path, augmentation="paper", synonyms=tmp_path / "none") == {}


# The stage


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("squares"), shards=1, pairs=32)


def new_base(folder: Path, *, seed: int) -> None:
    from roclip_sanitize.encoder import new_clip, save_clip

    save_clip(folder / MODEL_FOLDER, new_clip(VIT, seed=seed), name=VIT, fit="squash")


def cleaning(shards: tuple[Path, ...], folder: Path) -> TrainSettings:
    """A training that goes on from a base."""
    return TrainSettings(
        shards=shards, pretrained=str(folder), method="par", epochs=1, batch_size=BATCH, warmup=2
    )


@pytest.mark.slow
def test_a_finished_training_belongs_to_the_weights_it_started_from(
    shards: tuple[Path, ...], tmp_path: Path
) -> None:
    settings, out = cleaning(shards, tmp_path / "base"), tmp_path / "out"
    new_base(tmp_path / "base", seed=0)
    tally = train_clip(settings, out=out, executor=HERE)
    assert train_clip(settings, out=out, executor=HERE) == tally
    new_base(tmp_path / "base", seed=1)
    with pytest.raises(MismatchError, match="was made of other pretrained weights than are there now"):
        train_clip(settings, out=out, executor=HERE)
    shutil.rmtree(tmp_path / "base")
    assert train_clip(settings, out=out, executor=HERE) == tally
    new = tmp_path / "new"
    with pytest.raises(ConfigError, match="is no CLIP"):
        train_clip(settings, out=new, executor=HERE)


@pytest.mark.slow
def test_a_model_that_the_weights_are_not_of_is_refused(shards: tuple[Path, ...], tmp_path: Path) -> None:
    new_base(tmp_path / "base", seed=0)
    settings = replace(cleaning(shards, tmp_path / "base"), model=VIT)
    assert model_facts(settings, HERE)["model"] == VIT
    with pytest.raises(ConfigError, match=r"model is 'ViT-B-32', but .*base is of 'roclip-vit-64'"):
        train_clip(replace(settings, model="ViT-B-32"), out=tmp_path / "out", executor=HERE)


@pytest.mark.slow
def test_a_training_does_not_go_on_from_other_weights(
    shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise Killed

    settings, out = cleaning(shards, tmp_path / "base"), tmp_path / "out"
    new_base(tmp_path / "base", seed=0)
    with monkeypatch.context() as patched:
        patched.setattr("roclip_sanitize.training.train._run_in_turn", killed)
        with pytest.raises(Killed):
            train_clip(settings, out=out, executor=HERE)
    assert (
        StageFolder(out).inputs["pretrained weights"]
        == read_json(tmp_path / "base" / MODEL_FOLDER / MODEL_FILE)["digest"]
    )
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "step_000000001.json").write_text("{}")  # it has begun
    new_base(tmp_path / "base", seed=1)
    with pytest.raises(MismatchError, match="was made of other pretrained weights than are there now"):
        train_clip(settings, out=out, executor=HERE)
