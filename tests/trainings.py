"""Small trainings on coloured squares.

Whatever opens a model imports open_clip, which takes seconds: tests that do are slow, and import it late.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars
import pytest
import torch

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.pairing import PAIR_SCHEMA, pairs_file
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.store import write_parquet
from roclip_sanitize.training.data import build_cache
from roclip_sanitize.training.settings import TrainSettings
from tests.squares import COLOURS, uid_of

if TYPE_CHECKING:
    from roclip_sanitize.training.loop import Trainer

HERE = LocalExecutor()
VIT, RESNET = "roclip-vit-64", "roclip-rn-64"
PAIRS, BATCH, EPOCHS = 96, 16, 2
STEPS = PAIRS // BATCH * EPOCHS
WINDOW: dict[str, Any] = {  # steps 3, 4, 5 match, and 7, 8, 9, and 11
    "match_from": 0.25,
    "match_every": 64,
    "match_for": 48,
}
MID_WINDOW = 4
RANK_STEPS = 3
VECTORS = ("image_PD", "caption_PD")  # of what a method keeps, if it has a pool


class Killed(Exception):
    """What a test ends a training with."""


class Watched(LocalExecutor):
    """Ends the run when so many embeddings have been made."""

    def __init__(self, most: int) -> None:
        self._left = most

    def map(self, make_worker: Any, tasks: Any) -> Any:
        listed = list(tasks)
        if "Embed" in repr(make_worker) and listed:
            self._left -= 1
            if self._left < 0:
                raise Killed
        return super().map(make_worker, listed)


def settings_for(shards: tuple[Path, ...], **told: Any) -> TrainSettings:
    """Of a training that takes a second or two."""
    known = {"model": VIT, "batch_size": BATCH, "epochs": EPOCHS, "warmup": 2, "lr": 1e-3, "seed": 3}
    return TrainSettings(shards=shards, **{**known, **told})


def square_cache(shards: tuple[Path, ...], root: Path) -> Path:
    """Decoded squares."""
    return build_cache(shards, model=VIT, side=64, fit="squash", root=root, executor=HERE)


def make_trainer(
    settings: TrainSettings,
    *,
    cache: Path,
    out: Path,
    rank: int = 0,
    size: int = 1,
    held_out: Path | None = None,
) -> Trainer:
    """One rank of a training."""
    from roclip_sanitize.training.loop import Member, Trainer

    member = Member(settings=settings, cache=cache, out=out, fit="squash", held_out=held_out)
    return Trainer(member, rank=rank, size=size)


def digest(out: Path, folder: str = "model") -> str:
    """Of a training's weights."""
    return str(read_json(out / folder / "model.json")["digest"])


def write_table(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    """A finished pair table of (uid, caption_uid, image_uid), in the format of ``roclip pair``."""
    folder = StageFolder.create(path, stage="pair", settings={})
    uid, caption_uid, image_uid = zip(*rows, strict=True)
    columns = {
        "uid": uid,
        "caption_uid": caption_uid,
        "caption": [""] * len(rows),
        "caption_cosine": [None] * len(rows),
        "image_uid": image_uid,
        "image_cosine": [None] * len(rows),
    }
    write_parquet(pairs_file(path, "00000"), polars.DataFrame(columns, schema=PAIR_SCHEMA))
    folder.commit("00000", files=[pairs_file(path, "00000")], facts={})
    folder.finish({})
    return path


def square_table(path: Path) -> Path:
    """Each square gets the caption of the next square of its colour, and the picture of the one before."""
    step = len(COLOURS)
    rows = [(uid_of(n), uid_of((n + step) % PAIRS), uid_of((n - step) % PAIRS)) for n in range(PAIRS)]
    return write_table(path, rows)


def make_steps(
    settings: TrainSettings, cache: Path, out: Path, *, rank: int = 0, size: int = 1
) -> dict[str, Any]:
    """Losses of some steps, the gradients of the last, and the pool that they leave."""
    trainer = make_trainer(settings, cache=cache, out=out, rank=rank, size=size)
    done = [trainer.step() for _ in range(RANK_STEPS)]
    gradients = {name: value.grad for name, value in trainer.state.model.named_parameters()}
    return {
        "kinds": [each.kind for each in done],
        "losses": [each.loss for each in done],
        "gradients": gradients,
        "kept": trainer.state.method.state_dict(),
    }


def rank_member(rank: int, size: int, cases: dict[str, TrainSettings], cache: Path, out: Path) -> None:
    """What each of the processes runs."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=size
    )
    found = {name: make_steps(told, cache, out, rank=rank, size=size) for name, told in cases.items()}
    torch.save(found, out / f"rank_{rank}.pt")
    torch.distributed.destroy_process_group()


def require_same_steps(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """What ranks made is what one alone made, up to the noise of float32."""
    assert found["kinds"] == alone["kinds"]
    assert found["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert found["gradients"].keys() == alone["gradients"].keys()
    for name, gradient in alone["gradients"].items():
        if gradient is None:  # a tower that sat the step out
            assert found["gradients"][name] is None
        else:
            assert torch.allclose(found["gradients"][name], gradient, atol=1e-5), name
    for part in (each for each in VECTORS if each in alone["kept"]):  # the order of the gathered rows too
        assert torch.allclose(found["kept"][part], alone["kept"][part], atol=1e-5)
