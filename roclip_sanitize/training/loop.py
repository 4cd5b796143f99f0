"""The training steps, on every rank alike.

    method.plan ─▶ read ─▶ augment ─▶ two towers ─▶ method.loss ─▶ back ─▶ AdamW ─▶ method.after

What a step shows and minimises is the method's business (methods/), how vectors and gradients come
about the engine's (towers.py). With more than one rank each encodes its share of the step's pairs; a
step means the same whatever their number.

Dimension key: B pairs of a step over all ranks, N pairs in all, D width.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roclip_sanitize.encoder import load_clip, new_clip, save_clip
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.images import Fit
from roclip_sanitize.trained import is_trained
from roclip_sanitize.training.checkpoints import TrainState
from roclip_sanitize.training.data import TrainingData
from roclip_sanitize.training.keeping import Keeper, open_checkpoints
from roclip_sanitize.training.loader import Loader
from roclip_sanitize.training.methods import open_method
from roclip_sanitize.training.methods.contract import Features, Method, Objective, Rows, Surroundings
from roclip_sanitize.training.methods.roclip import last_window_steps
from roclip_sanitize.training.moving import Coming
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.refresh import Tables
from roclip_sanitize.training.schedule import learning_rate
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.step_log import StepClock, StepDone, StepLog
from roclip_sanitize.training.towers import Batch, Engine, Vectors, encode_share
from roclip_sanitize.training.watching import open_watchers
from roclip_sanitize.training.watching.contract import Watcher
from roclip_sanitize.training.watching.poisons import watch_poisons

LARGEST_LOG_SCALE = math.log(100)
ENCODED_AT_ONCE = 256  # pairs, where nothing learns from them


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One rank of a training run; call it with rank and size.

    Attributes:
        settings: what the run is told.
        cache: the decoded pairs.
        out: the run's folder, on storage that all ranks see.
        fit: how the model wants pictures made square.
        held_out: the decoded pairs of ``val_shards``, if there are any.
        make_table: makes the table of a window, where this process is to do it itself.
    """

    settings: TrainSettings
    cache: Path
    out: Path
    fit: Fit
    held_out: Path | None = None
    make_table: Callable[[int], None] | None = None

    def __call__(self, rank: int, size: int) -> bool:
        """Train to the end, from wherever the last checkpoint left off.

        Returns:
            Whether it got there: it does not when it is asked to stop.
        """
        if is_trained(self.out):
            if rank == 0:  # a kill right after the model was published left them
                open_checkpoints(self.settings, self.out, ranks=Ranks()).remove()
            return True
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
        trainer = Trainer(self, rank=rank, size=size)
        return trainer.run()


class Trainer:
    """Holds the state of one rank."""

    def __init__(self, member: Member, *, rank: int, size: int) -> None:
        settings = member.settings
        self.settings, self.out, self.fit = settings, member.out, member.fit
        self.ranks = Ranks(rank=rank, size=size)
        if settings.batch_size % size:  # each rank takes an equal share of the step
            raise ConfigError(f"batch-size ({settings.batch_size}) is no multiple of the {size} workers")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.data = TrainingData(member.cache)
        if self.data.rows < settings.batch_size:
            raise DataError(
                f"{self.data.rows} usable pairs are fewer than batch-size ({settings.batch_size})"
            )
        self.clock = StepClock(self.device)
        # Steps are all of one shape: the quickest convolutions are looked for once. Matrix products stay in
        # full float32, as torch has them: TF32 would round the cosines that matches are chosen by.
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        model, self.model_name = self._fresh_model()
        self.loader = Loader(
            self.data,
            settings,
            model=self.model_name,
            ranks=self.ranks,
            device=self.device,
            lap=self.clock.lap,
        )
        self.total_steps = settings.steps(self.loader.steps_per_epoch)
        self.state = self._fresh_state(model, member.make_table)
        self._beginning = copy.deepcopy(self.state.model).eval() if self.method.keeps_beginning else None
        self.engine = Engine(
            self.state.model,
            ranks=self.ranks,
            precision=settings.precision,
            parts=settings.accum_freq,
            compiled=settings.compile,
            some_sit_out=settings.method != "clip",
        )
        self.keeper = Keeper(
            settings=settings,
            out=self.out,
            state=self.state,
            ranks=self.ranks,
            device=self.device,
            steps_per_epoch=self.loader.steps_per_epoch,
            total_steps=self.total_steps,
            save=self._save_weights,
            pairs=self.data.content,
            held_out=member.held_out,
            snapshot_steps=last_window_steps(settings, steps=self.total_steps),
        )

    @property
    def method(self) -> Method:
        """How it trains."""
        return self.state.method

    def run(self) -> bool:
        """All remaining steps; checkpoints by time, a snapshot after each epoch, the model at the end.

        Returns:
            Whether it came to the end; else it was asked to stop, and a checkpoint is there.

        Raises:
            DataError: loss or weights are no longer numbers, or no checkpoint is whole.
            MismatchError: the checkpoint is of a run with other settings.
        """
        self.keeper.resume()
        log = StepLog(
            self._watchers(),
            first_step=self.state.step,
            last_step=self.total_steps,
            batch_size=self.settings.batch_size,
            ranks=self.ranks.size,
        )
        while self.state.step < self.total_steps:
            if not self.keeper.before_step():
                return False
            done = self.step()
            log.step(self.state.step, done=done, model=self.state.model, clock=self.clock)
            self.keeper.after_step()
        log.end()
        self.keeper.publish()
        return True

    def step(self) -> StepDone:
        """Make the next step.

        Raises:
            DataError: the loss is no longer a number; the weights are those from before the step.
        """
        step, settings = self.state.step, self.settings
        self.clock.begin(step)
        self.method.before(step, self._encode_rows)
        plan = self.method.plan(step)
        rate = plan.learning_rate
        if rate is None:
            rate = learning_rate(step, peak=settings.lr, warmup=settings.warmup, total=self.total_steps)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * plan.rate
        batches = [self.loader.batch(view, step=step) for view in plan.views]
        self.state.optimizer.zero_grad(set_to_none=True)

        coming: list[Coming] = []

        def loss_of(features: Sequence[Features]) -> Objective:
            objective = self.method.loss(plan, features)
            self.method.after(plan, features)
            # sent for before the way back: while that keeps a GPU at work, the loss is looked at, and what
            # comes next handed over
            coming.append(Coming(self.ranks.summed(objective.loss.detach() / self.ranks.size)))
            return objective

        objective = self.engine.backward(
            batches, loss_of, captions_learn=plan.captions_learn, before=self._before(batches)
        )
        loss = coming[0].item()
        if not math.isfinite(loss):
            raise self.keeper.no_numbers(f"the loss became {loss}")
        self.clock.lap("model")
        self.state.optimizer.step()
        with torch.no_grad():
            self.state.model.logit_scale.clamp_(0, LARGEST_LOG_SCALE)
        self.clock.lap("optimiser")
        self.state.step += 1
        return StepDone(loss=loss, kind=plan.kind, learning_rate=rate * plan.rate, notes=objective.notes)

    def _before(self, batches: Sequence[Batch]) -> list[Vectors] | None:
        if self._beginning is None:
            return None
        return [
            encode_share(self._beginning, batch, self.ranks, self.settings.precision) for batch in batches
        ]

    @torch.no_grad()
    def _encode_rows(self, row_N: Rows) -> Vectors:
        """What the model makes of pairs as they are: see methods.contract.Encode."""
        model = self.state.model.eval()
        made = []
        for rows in np.array_split(
            row_N, math.ceil(len(row_N) / ENCODED_AT_ONCE)
        ):  # no short batch at the end
            made.append(encode_share(model, self.loader.plain(rows), self.ranks, self.settings.precision))
        model.train()
        image_ND, caption_ND = (torch.cat(vectors) for vectors in zip(*made, strict=True))
        return image_ND, caption_ND

    def _fresh_model(self) -> tuple[Any, str]:
        settings = self.settings
        if settings.pretrained:
            model, name, _ = load_clip(settings.pretrained, seed=settings.seed)
        else:
            model, name = new_clip(settings.model, seed=settings.seed), settings.model
        return model.to(self.device, memory_format=torch.channels_last).train(), name

    def _fresh_state(self, model: Any, make_table: Callable[[int], None] | None) -> TrainState:
        settings = self.settings
        tables = Tables(out=self.out, save=self._save_on_first_rank, make=make_table)
        run = Surroundings(
            settings=settings,
            data=self.data,
            rows_of=self.loader.rows_of,
            steps_per_epoch=self.loader.steps_per_epoch,
            total_steps=self.total_steps,
            width=int(model.text_projection.shape[-1]),
            ranks=self.ranks,
            device=self.device,
            tables=tables if settings.asks_for_tables else None,
            watch_matches=watch_poisons(settings.ledger, self.data, self.device),
        )
        return TrainState(
            step=0,
            model=model,
            optimizer=_optimizer(model, lr=settings.lr, wd=settings.wd),
            method=open_method(run),
        )

    def _save_on_first_rank(self, folder: Path) -> None:
        if self.ranks.rank == 0:
            self._save_weights(folder)

    def _watchers(self) -> Sequence[Watcher]:
        if self.ranks.rank != 0:
            return ()
        return open_watchers(self.settings, out=self.out, first_step=self.state.step)

    def _save_weights(self, folder: Path) -> None:
        save_clip(folder, self.state.model, name=self.model_name, fit=self.fit)


def _optimizer(model: Any, *, lr: float, wd: float) -> torch.optim.Optimizer:
    """AdamW as open_clip sets it up: no decay on gains, biases and the logit scale."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": wd}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=True)
