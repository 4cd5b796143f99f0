"""The training steps, on every rank alike.

    rows of the step ─▶ read ─▶ augment ─▶ two towers ─▶ gather over ranks ─▶ loss ─▶ AdamW

With more than one rank, each encodes its slice of the step's pairs, vectors are gathered with
their gradients, and every rank computes the whole loss; DDP averages what each contributes.
A step therefore means the same whatever the number of ranks.

Dimension key: B pairs of a step over all ranks, S side in pixels, L tokens, D width.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from roclip_sanitize.encoder import load_clip, new_clip, normalise_pixels, save_clip
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.images import Fit
from roclip_sanitize.runfiles import fingerprint
from roclip_sanitize.trained import is_trained, model_folder, snapshot_folder
from roclip_sanitize.training import objectives
from roclip_sanitize.training.augment import augment_batch
from roclip_sanitize.training.checkpoints import TrainState, load_state, save_state
from roclip_sanitize.training.data import TrainingData, epoch_order
from roclip_sanitize.training.matches import MatchTable
from roclip_sanitize.training.pool import PairPool, default_capacity
from roclip_sanitize.training.schedule import MatchingSchedule, learning_rate
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.step_log import StepClock, StepLog

LARGEST_LOG_SCALE = math.log(100)


class TwoTowers(torch.nn.Module):
    """An open_clip model whose caption tower can sit a step out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixels_B3HW: torch.Tensor, tokens_BL: torch.Tensor, captions_learn: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Unit rows of both towers, and the scale of their products."""
        image_BD = self.model.encode_image(normalise_pixels(pixels_B3HW), normalize=True)
        with torch.set_grad_enabled(captions_learn and torch.is_grad_enabled()):
            caption_BD = self.model.encode_text(tokens_BL, normalize=True)
        return image_BD, caption_BD, self.model.logit_scale.exp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One rank of a training run; call it with rank and size.

    Attributes:
        settings: what the run is told.
        cache: the decoded pairs.
        out: the run's folder, on storage that all ranks see.
        fit: how the model wants pictures made square.
    """

    settings: TrainSettings
    cache: Path
    out: Path
    fit: Fit

    def __call__(self, rank: int, size: int) -> None:
        """Train to the end, from wherever the last checkpoint left off."""
        if is_trained(self.out):
            return
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
        trainer = Trainer(self, rank=rank, size=size)
        trainer.run()


class Trainer:
    """Holds the state of one rank."""

    def __init__(self, member: Member, *, rank: int, size: int) -> None:
        settings = member.settings
        self.settings, self.out, self.fit = settings, member.out, member.fit
        self.rank, self.size = rank, size
        if settings.batch_size % size:  # each rank takes an equal share of the step
            raise ConfigError(f"batch-size ({settings.batch_size}) is no multiple of the {size} workers")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.data = TrainingData(member.cache)
        self.steps_per_epoch = self.data.rows // settings.batch_size
        if not self.steps_per_epoch:
            raise DataError(
                f"{self.data.rows} usable pairs are fewer than batch-size ({settings.batch_size})"
            )
        self.total_steps = settings.steps(self.steps_per_epoch)
        self.schedule = _matching_schedule(settings, pairs=self.total_steps * settings.batch_size)
        self.table = MatchTable.load(settings.pairs, self.data) if settings.pairs else None
        self.state = self._fresh_state()
        self.towers = self._wrap()
        self.clock = StepClock(self.device)
        self._order: tuple[int, Any] = (-1, None)

    def run(self) -> None:
        """All remaining steps; checkpoints by time, a snapshot after each epoch, the model at the end."""
        told = fingerprint(self.settings.to_json())
        checkpoint = self.out / "checkpoint.pt"
        load_state(checkpoint, self.state, settings=told)
        saved = time.monotonic()
        log = StepLog(
            self.out / "log.jsonl",
            first_step=self.state.step,
            last_step=self.total_steps,
            batch_size=self.settings.batch_size,
            ranks=self.size,
            active=self.rank == 0,
        )
        while self.state.step < self.total_steps:
            loss, matching = self._step()
            log.step(self.state.step, loss=loss, matching=matching, model=self.state.model, clock=self.clock)
            if self.rank == 0 and time.monotonic() - saved > self.settings.checkpoint_seconds:
                save_state(checkpoint, self.state, settings=told)
                saved = time.monotonic()
            if not self.state.step % self.steps_per_epoch and self.state.step < self.total_steps:
                self._snapshot(snapshot_folder(self.out, samples=self.state.step * self.settings.batch_size))
        self._snapshot(model_folder(self.out))
        if self.rank == 0:
            checkpoint.unlink(missing_ok=True)  # the model is there: nothing is left to resume

    def _step(self) -> tuple[float, bool]:
        step, settings = self.state.step, self.settings
        self.clock.begin(step)
        ready = self.table is not None or self.state.pool.filled >= settings.batch_size
        matching = ready and self.schedule.matches(step * settings.batch_size)
        rate = learning_rate(step, peak=settings.lr, warmup=settings.warmup, total=self.total_steps)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(self._rows(step), step=step, matching=matching)
        value = loss.item()
        if not math.isfinite(value):
            raise DataError(
                f"the loss became {value} at step {step}: lower --lr (now {settings.lr}) and start again"
            )
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.clock.lap("model")
        self.state.optimizer.step()
        with torch.no_grad():
            self.state.model.logit_scale.clamp_(0, LARGEST_LOG_SCALE)
        self.clock.lap("optimiser")
        self.state.step += 1
        return value, matching

    def _loss(self, row_B: Any, *, step: int, matching: bool) -> torch.Tensor:
        if matching and self.table is not None:
            return self._table_loss(row_B, step)
        captions_learn = not (matching and self.settings.pairing == "final")
        pixels, tokens = self._batch(row_B, row_B, step)
        image_BD, caption_BD, scale = self._encode(pixels, tokens, captions_learn)
        pool = self.state.pool
        if not matching:
            loss = objectives.clip_loss(image_BD, caption_BD, scale)
        elif self.settings.pairing == "final":
            loss = objectives.roclip_final_loss(image_BD, pool, scale)
        else:
            loss = objectives.roclip_first_loss(image_BD, caption_BD, pool, scale)
        pool.put(image_BD, caption_BD)  # after the search: a pair is never matched with itself
        return loss

    def _table_loss(self, row_B: Any, step: int) -> torch.Tensor:
        """Both rewritings of a pair table: image with its new caption, caption with its new image."""
        assert self.table is not None
        parts = []
        for image_row_B, caption_row_B in self.table.rewritten(row_B):
            pixels, tokens = self._batch(image_row_B, caption_row_B, step)
            parts.append(objectives.clip_loss(*self._encode(pixels, tokens, True)))
            self.clock.lap("model")
        return torch.stack(parts).mean()

    def _batch(self, image_row_B: Any, caption_row_B: Any, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole step's augmented pixels and tokens; every rank then takes its slice."""
        images, tokens = self.data.read(image_row_B)
        if caption_row_B is not image_row_B:
            _, tokens = self.data.read(caption_row_B)
        pixels_B3HW = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        self.clock.lap("read")
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        augmented = augment_batch(
            pixels_B3HW,
            torch.from_numpy(tokens).to(self.device),
            kind=self.settings.augmentation,
            generator=generator,
        )
        self.clock.lap("augment")
        return augmented

    def _encode(
        self, pixels: torch.Tensor, tokens: torch.Tensor, captions_learn: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.size == 1:
            features: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self.towers(
                pixels, tokens, captions_learn
            )
            return features
        share = slice(self.rank, None, self.size)
        image_BD, caption_BD, scale = self.towers(pixels[share], tokens[share], captions_learn)
        return _gathered(image_BD), _gathered(caption_BD), scale

    def _rows(self, step: int) -> Any:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.data.rows, seed=self.settings.seed, epoch=epoch))
        start = place * self.settings.batch_size
        return np.sort(self._order[1][start : start + self.settings.batch_size])

    def _fresh_state(self) -> TrainState:
        settings = self.settings
        model, self.model_name = new_clip(settings.model, seed=settings.seed), settings.model
        if settings.pretrained:
            model, self.model_name, _ = load_clip(settings.pretrained, seed=settings.seed)
        model = model.to(self.device, memory_format=torch.channels_last).train()
        capacity = settings.pool_size or default_capacity(self.data.rows, batch_size=settings.batch_size)
        width = int(model.text_projection.shape[-1])
        return TrainState(
            step=0,
            model=model,
            optimizer=_optimizer(model, lr=settings.lr, wd=settings.wd),
            pool=PairPool(capacity, width, device=self.device),
        )

    def _wrap(self) -> torch.nn.Module:
        towers = TwoTowers(self.state.model)
        if self.size == 1:
            return towers
        sits_out = self.settings.method == "roclip" and self.settings.pairing == "final"
        return torch.nn.parallel.DistributedDataParallel(towers, find_unused_parameters=sits_out)

    def _snapshot(self, folder: Path) -> None:
        if self.rank == 0:
            save_clip(folder, self.state.model, name=self.model_name, fit=self.fit)


def _matching_schedule(settings: TrainSettings, *, pairs: int) -> MatchingSchedule:
    length = settings.match_for if settings.method == "roclip" else 0
    return MatchingSchedule(
        start=round(settings.match_from * pairs), every=settings.match_every, length=length
    )


def _optimizer(model: Any, *, lr: float, wd: float) -> torch.optim.Optimizer:
    """AdamW as open_clip sets it up: no decay on gains, biases and the logit scale."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": wd}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _gathered(local_BD: torch.Tensor) -> torch.Tensor:
    """All ranks' rows with their gradients, in the order that one rank alone would have."""
    from torch.distributed.nn.functional import all_gather

    parts = all_gather(local_BD)  # type: ignore[no-untyped-call]
    size = distributed.get_world_size()
    gathered = local_BD.new_zeros((sum(len(part) for part in parts), local_BD.shape[1]))
    rows = torch.arange(len(gathered), device=local_BD.device)
    order = torch.cat([rows[rank::size] for rank in range(size)])
    return gathered.index_copy(0, order, torch.cat(parts))
