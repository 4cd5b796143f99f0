"""Training on coloured squares: what comes out loads, resumes bit for bit, and is the same on two ranks.

Whatever opens a model imports open_clip, which takes seconds: those tests are slow, and import it late.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.limits import Work
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.trained import snapshots
from roclip_sanitize.training.data import TrainingData, build_cache
from roclip_sanitize.training.methods.roclip import Roclip
from roclip_sanitize.training.pool import PairPool
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.train import train_clip, train_limits
from tests.squares import uid_of, write_square_shards
from tests.trainings import (
    BATCH,
    HERE,
    PAIRS,
    RESNET,
    VECTORS,
    VIT,
    WINDOW,
    digest,
    make_steps,
    make_trainer,
    rank_member,
    require_same_steps,
    settings_for,
    square_cache,
    square_table,
)

if TYPE_CHECKING:
    from roclip_sanitize.training.loop import Trainer


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("squares"), shards=2, pairs=PAIRS // 2)


@pytest.fixture(scope="module")
def cache(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return square_cache(shards, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return square_table(tmp_path_factory.mktemp("table") / "pairs")


def pool_of(trainer: Trainer) -> PairPool:
    method = trainer.method
    assert isinstance(method, Roclip)
    return method.pool


# The cache


@pytest.mark.slow
def test_the_cache_holds_every_pair_once(cache: Path) -> None:
    data = TrainingData(cache)
    assert data.rows == PAIRS
    assert data.uids() == [uid_of(number) for number in range(PAIRS)]
    images, tokens = data.read(np.array([95, 0, 50, 0]))  # both shards, out of order, one twice
    assert images.shape == (4, 64, 64, 3)
    assert [images.dtype, tokens.dtype] == [np.dtype(np.uint8), np.dtype(np.int64)]
    one_by_one = [data.read(np.array([row])) for row in (95, 0, 50, 0)]
    assert np.array_equal(images, np.concatenate([image for image, _ in one_by_one]))
    assert np.array_equal(tokens, np.concatenate([token for _, token in one_by_one]))


@pytest.mark.slow
def test_a_shard_that_was_written_anew_is_decoded_anew(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    copies = tuple(Path(shutil.copy(shard, tmp_path)) for shard in shards)

    def built() -> Path:
        return build_cache(copies, model=VIT, side=64, fit="squash", root=tmp_path / "cache", executor=HERE)

    first = built()
    shutil.copy(copies[1], copies[0])
    second = built()
    assert first != second
    assert TrainingData(second).uids()[: PAIRS // 2] == TrainingData(cache).uids()[PAIRS // 2 :]


@pytest.mark.slow
def test_a_second_run_decodes_nothing(shards: tuple[Path, ...], cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    again = build_cache(shards, model=VIT, side=64, fit="squash", root=cache.parent, executor=HERE)
    assert again == cache
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


# The stage


@pytest.fixture(scope="module")
def trained(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    tally = train_clip(settings_for(shards, epochs=4, **WINDOW), out=out, executor=HERE)
    assert (tally.seen, tally.kept) == (PAIRS, PAIRS)
    return out


@pytest.mark.slow
def test_open_clip_loads_the_weights(trained: Path, shards: tuple[Path, ...]) -> None:
    import open_clip

    from roclip_sanitize.encoders import open_encoder

    encoder = open_encoder(str(trained / "model"), device="cpu")
    weights = str(trained / "model" / "weights.safetensors")
    model = open_clip.create_model(VIT, pretrained=weights).eval()
    captions = ["a red square", "a blue square, item 7"]
    with torch.inference_mode():
        wanted = model.encode_text(open_clip.get_tokenizer(VIT)(captions), normalize=True)
    assert np.abs(encoder.encode_captions(captions) - wanted.numpy()).max() < 1e-6
    assert encoder.facts.digest == digest(trained)


@pytest.mark.slow
def test_a_run_leaves_a_log_and_a_snapshot_after_each_epoch_but_the_last(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    samples = read_json(trained / "complete.json")["samples"]
    assert [line["samples"] for line in lines] == [20 * BATCH, samples]
    told = {"step", "total_steps", "samples", "loss", "loss_mean", "kind", "learning_rate", "logit_scale"}
    told |= {"samples_per_second", "seconds"}
    assert [set(line) - {"agreement"} for line in lines] == [told, told], "which matching steps note too"
    seen = [samples for samples, _ in snapshots(trained)]
    last_window = samples - 2 * BATCH  # the training ends with it: after it comes the model itself
    assert seen == [samples // 4, samples // 2, samples * 3 // 4, last_window]
    assert not (trained / "checkpoints").exists()


@pytest.mark.slow
def test_every_pair_is_in_the_limits_once(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    work = Work.total(Work.from_json(line["seconds"]) for line in lines)
    assert work.pairs == read_json(trained / "complete.json")["samples"]
    assert set(work.steps) == {"read", "augment", "model", "optimiser"}
    assert sum(work.steps.values()) <= work.wall, "parts follow each other, and snapshots are in between"
    assert train_limits(trained).bound == "model"


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(trained: Path, shards: tuple[Path, ...]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    train_clip(settings_for(shards, epochs=4, **WINDOW), out=trained, executor=HERE)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.slow
def test_training_goes_on_from_trained_weights(
    trained: Path, shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    told = TrainSettings(  # names no model: that of the weights counts
        shards=shards,
        pretrained=str(trained / "model"),
        epochs=1,
        batch_size=BATCH,
        lr=1e-9,
        warmup=0,
        wd=0.0,
    )
    train_clip(told, out=tmp_path, executor=HERE, cache=cache.parent)
    assert read_json(tmp_path / "model" / "model.json")["model"] == VIT
    from roclip_sanitize.encoders import open_encoder

    old, new = (open_encoder(str(out / "model"), device="cpu") for out in (trained, tmp_path))
    captions = ["a red square", "a green square"]
    assert np.allclose(old.encode_captions(captions), new.encode_captions(captions), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", [VIT, RESNET])
def test_the_same_seed_gives_the_same_weights(
    model: str, shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    digests = []
    for number, seed in enumerate((3, 3, 4)):
        out = tmp_path / str(number)
        make_trainer(settings_for(shards, model=model, seed=seed, **WINDOW), cache=cache, out=out).run()
        digests.append(digest(out))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
def test_too_few_pairs_for_a_batch(shards: tuple[Path, ...], cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"96 usable pairs are fewer than batch-size \(97\)"):
        make_trainer(settings_for(shards, batch_size=97), cache=cache, out=tmp_path)


# A matching step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pairing", "learns"), [pytest.param("final", False, id="final"), pytest.param("first", True, id="first")]
)
def test_captions_sit_out_the_matching_steps_of_the_final_version(
    pairing: str, learns: bool, shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    told = settings_for(shards, model=RESNET, pairing=pairing, wd=0.5, **WINDOW)
    trainer = make_trainer(told, cache=cache, out=tmp_path)
    assert [trainer.step().kind for _ in range(3)] == ["ordinary"] * 3  # AdamW now has momentum to move by
    before = {name: value.clone() for name, value in trainer.state.model.state_dict().items()}
    assert trainer.step().kind == "matching"
    changed = {
        name for name, value in trainer.state.model.state_dict().items() if not value.equal(before[name])
    }
    captions = {name for name in before if not name.startswith("visual.") and name != "logit_scale"}
    assert captions
    assert "logit_scale" in changed
    assert any(name.startswith("visual.") for name in changed)
    assert bool(changed & captions) == learns


@pytest.mark.slow
def test_the_pool_fills_in_ordinary_steps_and_matching_waits_for_it(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    told = settings_for(shards, match_from=0.0, match_every=64, match_for=64, pool_size=40)
    trainer = make_trainer(told, cache=cache, out=tmp_path)
    steps = [(trainer.step().kind, pool_of(trainer).filled) for _ in range(4)]
    assert steps == [("ordinary", 16), ("matching", 32), ("matching", 40), ("matching", 40)]


@pytest.mark.slow
def test_a_table_matches_from_the_first_step(
    shards: tuple[Path, ...], cache: Path, table: Path, tmp_path: Path
) -> None:
    told = settings_for(shards, pairs=table, match_from=0.0, match_every=64, match_for=64)
    trainer = make_trainer(told, cache=cache, out=tmp_path)
    assert trainer.step().kind == "matching"
    assert pool_of(trainer).filled == 0


# In parts


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"method": "clip"}, id="clip"),
        pytest.param({"pairing": "final", "match_from": 0.0, "match_every": 64, "match_for": 64}, id="final"),
        pytest.param({"pairing": "both", "match_from": 0.0, "match_every": 64, "match_for": 64}, id="both"),
    ],
)
@pytest.mark.parametrize("parts", [2, 5])
def test_steps_in_parts_are_those_of_a_whole(
    parts: int, told: dict[str, Any], shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    settings = settings_for(shards, lr=1e-5, **told)
    whole = make_steps(settings, cache, tmp_path)
    require_same_steps(make_steps(replace(settings, accum_freq=parts), cache, tmp_path), whole)


@pytest.mark.slow
def test_parts_leave_batchnorm_statistics_of_one_pass(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    told = settings_for(shards, model=RESNET, accum_freq=4)
    trainer = make_trainer(told, cache=cache, out=tmp_path)
    trainer.step()
    norm = trainer.state.model.visual.bn1
    assert norm.momentum == 0.1
    assert norm.running_mean.abs().max() > 0


# Two ranks


RANK_CASES: dict[str, dict[str, Any]] = {
    "in parts": {"pairing": "first", "match_from": 0.0, "match_every": 64, "match_for": 64, "accum_freq": 3},
    "clip": {"method": "clip"},
    "final": {"pairing": "final", "match_from": 0.0, "match_every": 64, "match_for": 64},
    "first": {"pairing": "first", "match_from": 0.0, "match_every": 64, "match_for": 64},
    "table": {"pairing": "final", "match_from": 0.05, "match_every": 64, "match_for": 64},
}


@pytest.mark.slow
def test_two_ranks_make_the_steps_of_one(
    shards: tuple[Path, ...], cache: Path, table: Path, tmp_path: Path
) -> None:
    cases = {
        name: settings_for(shards, lr=1e-5, **told, pairs=table if name == "table" else None)
        for name, told in RANK_CASES.items()
    }
    spawn(rank_member, (2, cases, cache, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2)]
    for name, told in cases.items():
        alone = make_steps(told, cache, tmp_path)
        for rank in ranks:
            require_same_steps(rank[name], alone)
        kept = [rank[name]["kept"] for rank in ranks]
        assert all(torch.equal(*(each[part] for each in kept)) for part in VECTORS if part in kept[0])


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"batch-size \(15\) is no multiple of the 2 workers"):
        make_trainer(settings_for(shards, batch_size=15), cache=cache, out=tmp_path, rank=0, size=2)
