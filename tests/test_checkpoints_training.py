"""Trainings that are stopped, killed, spoilt or given to other ranks, and what they leave all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from roclip_sanitize.errors import DataError, MismatchError, Stopped
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.trained import is_trained, model_folder, snapshots
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.stopping import StopFile
from roclip_sanitize.training.train import train_all, train_clip
from tests.squares import write_square_shards
from tests.trainings import (
    BATCH,
    HERE,
    MID_WINDOW,
    PAIRS,
    RESNET,
    STEPS,
    WINDOW,
    digest,
    make_trainer,
    settings_for,
    square_cache,
    square_table,
)

if TYPE_CHECKING:
    from roclip_sanitize.training.loop import Trainer

pytestmark = pytest.mark.slow

PER_EPOCH = PAIRS // BATCH
HELD_OUT = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("squares"), shards=2, pairs=PAIRS // 2)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("held_out"), shards=1, pairs=HELD_OUT, first=1_000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of caches."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cache(shards: tuple[Path, ...], root: Path) -> Path:
    return square_cache(shards, root)


class StopsAt(StopFile):
    """Somebody asks for a stop after so many steps."""

    def __init__(self, trainer: Trainer, step: int) -> None:
        super().__init__(trainer.out)
        self._trainer, self._step = trainer, step

    def asked(self) -> bool:
        return self._trainer.state.step >= self._step


def stop_at(step: int, trainer: Trainer) -> None:
    """Train until somebody asks for a stop."""
    trainer.keeper.stop = StopsAt(trainer, step)
    assert not trainer.run()
    assert trainer.state.step == step
    if trainer.ranks.rank == 0:
        assert trainer.keeper.stop.answered() == {"step": step, "steps": trainer.total_steps}
        trainer.keeper.stop.path.unlink()  # as the driver does


def log_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# Going on


@pytest.mark.parametrize(
    ("told", "with_table"),
    [
        pytest.param({"method": "clip", "model": RESNET, "augmentation": "strong"}, False, id="clip"),
        pytest.param({"pairing": "final", **WINDOW}, False, id="final version"),
        pytest.param({"pairing": "first", "pool_size": 24, **WINDOW}, False, id="first version"),
        pytest.param({"pairing": "first", **WINDOW}, True, id="table"),
    ],
)
def test_a_run_that_was_stopped_ends_bit_for_bit_as_an_undisturbed_one(
    told: dict[str, Any], with_table: bool, shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    table = square_table(tmp_path / "pairs") if with_table else None
    settings = settings_for(shards, **told, pairs=table)
    make_trainer(settings, cache=cache, out=tmp_path / "whole").run()

    out = tmp_path / "resumed"
    stop_at(MID_WINDOW, make_trainer(settings, cache=cache, out=out))
    assert not is_trained(out)
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == [
        f"step_{MID_WINDOW:09d}.json",
        f"step_{MID_WINDOW:09d}.pt",
    ]
    resumed = make_trainer(settings, cache=cache, out=out)
    assert resumed.run()
    assert resumed.state.step == STEPS
    assert digest(out) == digest(tmp_path / "whole")
    assert not (out / "checkpoints").exists()


def test_a_damaged_checkpoint_costs_steps_and_no_more(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(shards, method="clip", checkpoint_seconds=0.0, checkpoints=str(tmp_path / "kept"))
    make_trainer(settings, cache=cache, out=tmp_path / "whole").run()
    stop_at(8, make_trainer(settings, cache=cache, out=tmp_path / "out"))
    newest = tmp_path / "kept" / "step_000000008.pt"
    newest.write_bytes(newest.read_bytes()[:-5_000])
    make_trainer(settings, cache=cache, out=tmp_path / "out").run()
    assert "step_000000008.pt is damaged: going on from step 7" in capsys.readouterr().err
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert not (tmp_path / "kept").exists()


def test_a_checkpoint_of_other_settings_is_refused(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    settings = settings_for(shards)
    stop_at(1, make_trainer(settings, cache=cache, out=tmp_path))
    with pytest.raises(MismatchError, match=r"step_000000001\.pt belongs to a run with other settings"):
        make_trainer(replace(settings, lr=2e-3), cache=cache, out=tmp_path).run()


def test_a_kill_right_after_publishing_leaves_no_checkpoint(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    settings = settings_for(shards)
    trainer = make_trainer(settings, cache=cache, out=tmp_path)
    stop_at(1, trainer)
    trainer.keeper.save(model_folder(tmp_path))
    train_clip(settings, out=tmp_path, executor=HERE, cache=cache.parent)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("method", ["clip", "consensus"])
def test_a_checkpoint_of_other_pairs_is_refused(method: Any, tmp_path: Path) -> None:
    shards = write_square_shards(tmp_path / "squares", shards=2, pairs=PAIRS // 2)
    settings, out = settings_for(shards, method=method), tmp_path / "out"
    stop_at(1, make_trainer(settings, cache=square_cache(shards, tmp_path / "cache"), out=out))
    write_square_shards(tmp_path / "squares", shards=2, pairs=PAIRS // 2 - 8, first=700)
    with pytest.raises(MismatchError, match=r"step_000000001\.pt is of a run on other pairs than the shards"):
        make_trainer(settings, cache=square_cache(shards, tmp_path / "cache"), out=out).run()


def test_a_finished_run_belongs_to_its_pairs_and_to_copies_of_them(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    copies = tuple(Path(shutil.copy(shard, tmp_path)) for shard in shards)
    settings, out = settings_for(copies, method="clip", epochs=1), tmp_path / "out"
    tally = train_clip(settings, out=out, executor=HERE)
    for shard in shards:
        shutil.copy(shard, tmp_path)  # of another time
    assert train_clip(settings, out=out, executor=HERE) == tally
    shutil.copy(shards[0], copies[1])
    with pytest.raises(MismatchError, match="was made of other training pairs than are there now: choose an"):
        train_clip(settings, out=out, executor=HERE)
    copies[1].unlink()
    assert train_clip(settings, out=out, executor=HERE) == tally, "without them it is what it was"


def test_the_log_of_steps_to_be_made_again_is_cut_off(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    settings = settings_for(shards)
    stop_at(1, make_trainer(settings, cache=cache, out=tmp_path))
    kept = {"step": 1, "loss": 1.0}
    lines = [json.dumps(line) for line in (kept, {"step": 2, "loss": 0.5})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 3, "lo')
    make_trainer(settings, cache=cache, out=tmp_path).run()
    first, *others = log_lines(tmp_path)
    assert first == kept
    assert [line["step"] for line in others] == [STEPS], "the last step, made again"


class Asking(LocalExecutor):
    """Somebody asks a run to stop while the gang starts."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        (self._out / "stop").touch()
        super().gang(member, folder=folder)


@pytest.mark.parametrize("which", [0, 1])
def test_runs_of_one_gang_stop_as_a_whole(
    which: int, shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    settings = settings_for(shards, method="clip", epochs=1)
    outs = [tmp_path / "first", tmp_path / "second"]
    runs = {out: replace(settings, seed=seed) for seed, out in enumerate(outs)}
    with pytest.raises(Stopped, match=f"^stopped at step 0 of {PER_EPOCH}; the same command goes on"):
        train_all(runs, executor=Asking(outs[which]), cache=cache.parent)
    assert [(out / "complete.json").exists() for out in outs] == [number < which for number in range(2)]
    assert [(out / "log.jsonl").exists() for out in outs] == [number <= which for number in range(2)]
    train_all(runs, executor=HERE, cache=cache.parent)
    assert all((out / "complete.json").exists() and not (out / "stop").exists() for out in outs)


# Numbers that are none


def spoil(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.state.model.logit_scale.fill_(float("nan"))


def test_a_loss_that_is_no_number_stops_the_run(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(settings_for(shards, lr=1e9, warmup=0), cache=cache, out=tmp_path)
    with pytest.raises(
        DataError,
        match=r"the loss became nan at step \d+: lower --lr \(now 1000000000\.0\) and start in another "
        r"folder, from its beginning; the last good checkpoint is none$",
    ):
        trainer.run()
    assert not (tmp_path / "model").exists()


def test_the_last_good_state_outlives_a_loss_that_is_no_number(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    told = settings_for(shards, method="clip", checkpoint_seconds=0.0)
    stop_at(PER_EPOCH + 2, make_trainer(told, cache=cache, out=tmp_path))
    trainer = make_trainer(told, cache=cache, out=tmp_path)
    trainer.keeper.resume()
    trainer.step()
    spoil(trainer)
    assert trainer.keeper.before_step()
    ((_, snapshot),) = snapshots(tmp_path)
    message = (
        rf"the loss became nan at step {PER_EPOCH + 3}: lower --lr .* --pretrained {snapshot}; "
        rf"the last good checkpoint is {tmp_path}/checkpoints/step_{PER_EPOCH + 2:09d}\.pt$"
    )
    with pytest.raises(DataError, match=message):
        trainer.step()
    assert trainer.keeper.checkpoints.steps() == [PER_EPOCH + 1, PER_EPOCH + 2]


def test_no_weights_are_published_that_are_no_numbers(
    shards: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(settings_for(shards), cache=cache, out=tmp_path)
    spoil(trainer)
    with pytest.raises(DataError, match="some weights became no numbers at step 0"):
        trainer.keeper.publish()
    assert not is_trained(tmp_path)


# Snapshots and the best weights


def test_a_method_may_ask_for_more_snapshots(shards: tuple[Path, ...], cache: Path, tmp_path: Path) -> None:
    trainer = make_trainer(settings_for(shards, method="clip", epochs=1), cache=cache, out=tmp_path)
    trainer.keeper.snapshot_steps = frozenset({2, 5, PER_EPOCH})
    trainer.run()
    assert [samples // BATCH for samples, _ in snapshots(tmp_path)] == [2, 5], "the last one is the model"


def test_the_loss_on_held_out_pairs_is_that_of_the_snapshots(
    shards: tuple[Path, ...], held_out: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    from roclip_sanitize.encoder import load_clip
    from roclip_sanitize.training.ranks import Ranks
    from roclip_sanitize.training.validation import HeldOut

    told = settings_for(shards, method="clip", epochs=3, val_shards=held_out, publish="best")
    train_clip(told, out=tmp_path, executor=HERE, cache=cache.parent)
    found = {line["step"]: line["val_loss"] for line in log_lines(tmp_path) if "val_loss" in line}
    assert list(found) == [PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]
    assert digest(tmp_path) == digest(tmp_path, "best")
    best = read_json(tmp_path / "best" / "val.json")
    assert best["step"] == min(found, key=lambda step: found[step])
    assert read_json(tmp_path / "complete.json")["val_tally"]["seen"] == HELD_OUT

    device = torch.device("cpu")
    pairs = HeldOut(
        square_cache(held_out, cache.parent),
        batch_size=BATCH,
        ranks=Ranks(),
        device=device,
        precision="float32",
    )
    for samples, folder in [*snapshots(tmp_path), (best["samples"], tmp_path / "best")]:
        model, _, _ = load_clip(str(folder))
        assert pairs.loss(model) == pytest.approx(found[samples // BATCH], abs=1e-4)


def test_the_best_weights_are_kept_and_published(tmp_path: Path) -> None:
    from roclip_sanitize.training.validation import Best

    def write(loss: float, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "weights.safetensors").write_text(f"weights of {loss}")
        (folder / "model.json").write_text(f"facts of {loss}")

    for step, loss in enumerate([2.0, 1.0, 1.5, float("nan"), 1.0]):
        Best(tmp_path).note(loss, step=step, samples=step, save=partial(write, loss))
    assert read_json(tmp_path / "best" / "val.json") == {"step": 1, "samples": 1, "val_loss": 1.0}
    Best(tmp_path).publish(tmp_path / "model")
    assert (tmp_path / "model" / "weights.safetensors").read_text() == "weights of 1.0"
    assert (tmp_path / "model" / "model.json").read_text() == "facts of 1.0"


def test_too_few_held_out_pairs(shards: tuple[Path, ...], cache: Path, tmp_path: Path) -> None:
    lone = square_cache(write_square_shards(tmp_path / "lone", shards=1, pairs=1), cache.parent)
    with pytest.raises(DataError, match=r"^1 usable held-out pairs are too few: wanted 2 or more$"):
        make_trainer(settings_for(shards), cache=cache, out=tmp_path, held_out=lone)


# Another number of ranks


def rank_member(
    rank: int, size: int, settings: TrainSettings, cache: Path, held_out: Path, out: Path
) -> None:
    """What each of two processes runs: one training to its middle, another one from there."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=size
    )

    def trainer(name: str) -> Trainer:
        where = {"cache": cache, "held_out": held_out, "out": out / name}
        return make_trainer(settings, rank=rank, size=size, **where)

    stop_at(MID_WINDOW, trainer("two, then one"))
    assert trainer("one, then two").run()
    torch.distributed.destroy_process_group()


def test_a_run_goes_on_with_another_number_of_ranks(
    shards: tuple[Path, ...], held_out: tuple[Path, ...], cache: Path, tmp_path: Path
) -> None:
    from roclip_sanitize.encoder import load_clip

    settings = settings_for(shards, lr=1e-4, **WINDOW)
    val = square_cache(held_out, cache.parent)

    def trainer(name: str) -> Trainer:
        return make_trainer(settings, cache=cache, held_out=val, out=tmp_path / name)

    trainer("one").run()
    stop_at(MID_WINDOW, trainer("one, then two"))
    spawn(rank_member, (2, settings, cache, val, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    trainer("two, then one").run()

    alone, _, _ = load_clip(str(tmp_path / "one" / "model"))
    losses = [line.get("val_loss", line.get("loss")) for line in log_lines(tmp_path / "one")]
    for name in ("one, then two", "two, then one"):
        other, _, _ = load_clip(str(tmp_path / name / "model"))
        for key, value in alone.state_dict().items():
            assert torch.allclose(other.state_dict()[key], value, atol=2e-5), (name, key)
        found = [line.get("val_loss", line.get("loss")) for line in log_lines(tmp_path / name)]
        assert found == pytest.approx(losses, abs=1e-3)


def test_copies_of_a_run_are_independent(shards: tuple[Path, ...], cache: Path, tmp_path: Path) -> None:
    """A checkpoint is all that a resume needs: it may be carried elsewhere."""
    settings = settings_for(shards, method="clip", epochs=1)
    stop_at(3, make_trainer(settings, cache=cache, out=tmp_path / "here"))
    shutil.copytree(tmp_path / "here" / "checkpoints", tmp_path / "there" / "checkpoints")
    for name in ("here", "there"):
        make_trainer(settings, cache=cache, out=tmp_path / name).run()
    assert digest(tmp_path / "here") == digest(tmp_path / "there")
