"""What a way of training is: which pairs a step shows, and what it minimises.

    plan(step) ─▶ views ─▶ [loop: read, augment, both towers, gather] ─▶ loss ─▶ [backward, AdamW] ─▶ after

A method knows nothing of ranks, files, devices or precision, and the loop nothing of methods. What a
method keeps from step to step (a pool, a split) it saves and restores itself.

Dimension key: B pairs of the step over all ranks, N pairs of the training data, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from roclip_sanitize.training.data import TrainingData
from roclip_sanitize.training.pool import PairPool, default_capacity
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.settings import Augmentation, TrainSettings

ORDINARY, MATCHING, UNIMODAL = "ordinary", "matching", "unimodal"
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One batch for the towers.

    Attributes:
        image_row_B: whose pictures, by row of the training data.
        caption_row_B: beside whose captions.
        augmentation: what they go through first.
        draw: number of the view within the step: each has random numbers of its own.
    """

    image_row_B: Rows
    caption_row_B: Rows
    augmentation: Augmentation
    draw: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What a step shows.

    Attributes:
        step: its number, from 0.
        row_B: the step's pairs, by row of the training data.
        views: what the towers get to see of them.
        kind: of the step, as the log calls it.
        captions_learn: whether the caption tower does; it then costs no backward pass.
        rate: factor on the learning rate.
        learning_rate: instead of the schedule's.
    """

    step: int
    row_B: Rows
    views: tuple[View, ...]
    kind: str = ORDINARY
    captions_learn: bool = True
    rate: float = 1.0
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the towers made of a view.

    Attributes:
        image_BD: float32, unit rows, of all ranks, with gradients.
        caption_BD: the same of captions.
        scale: of their products, with its gradient.
        mine: the rows that this rank answers for.
        before: both vectors by the weights that training began with, constants; None unless
            the method asked for them.
    """

    image_BD: torch.Tensor
    caption_BD: torch.Tensor
    scale: torch.Tensor
    mine: slice
    before: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a step minimises, and what the log should know.

    Attributes:
        loss: a scalar; its mean over ranks is the step's.
        notes: name → scalar, the same on every rank; or two numbers, part and whole: a share that is
            told of several steps as the sum of the parts by that of the wholes.
    """

    loss: torch.Tensor
    notes: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Method(Protocol):
    """A way of training.

    Attributes:
        keeps_beginning: whether it wants vectors by the weights that training began with.
    """

    keeps_beginning: bool

    def plan(self, step: int) -> StepPlan:
        """What the step shows. Depends on the step and on what the method keeps, not on weights."""
        ...

    def before(self, step: int, encode: Encode) -> None:
        """Called before plan(step), when the weights are those that the step starts from."""
        ...

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """What the step minimises, given a Features for each view."""
        ...

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """Called after loss(), to keep what later steps need."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it keeps, as tensors and plain values. All ranks call it together."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict(), on any number of ranks."""
        ...


class Tables(Protocol):
    """Tables that are made while training goes on."""

    def ask(self, window: int) -> None:
        """Have the table of a window made from the weights as they are."""
        ...

    def get(self, window: int) -> Path:
        """The folder of the table that was asked for, waited for if need be.

        It is one of ``roclip pair``, or, for a run that judges by scans, one that judging.py describes.
        """
        ...


Encode = Callable[[Rows], tuple[torch.Tensor, torch.Tensor]]
"""(image_ND, caption_ND) of some rows, as they are, in evaluation mode, float32, of all ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a method is told of its run.

    Attributes:
        settings: what the run is told.
        data: the pairs.
        rows_of: step → the step's pairs: an epoch visits every row once, in an order of its own.
        steps_per_epoch: steps in which all pairs are seen.
        total_steps: of the run.
        width: D.
        ranks: who else takes part.
        device: where vectors are.
        watch_matches: (pairs, their matches for each way of matching, all by row of the training data) →
            notes; for the log, not to learn from. None where nobody wants to know.
        tables: made of the model's own vectors beside the ranks, if the run wants them.
    """

    settings: TrainSettings
    data: TrainingData
    rows_of: Callable[[int], Rows]
    steps_per_epoch: int
    total_steps: int
    width: int
    ranks: Ranks
    device: torch.device
    watch_matches: Callable[[Rows, Sequence[torch.Tensor]], Mapping[str, torch.Tensor]] | None = None
    tables: Tables | None = None


class Stateless:
    """What a method does by default: nothing to keep."""

    keeps_beginning = False

    def before(self, step: int, encode: Encode) -> None:
        """See Method.before."""

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """See Method.after."""

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""


def open_pool(run: Surroundings) -> PairPool:
    """An empty pool as large as the settings say, or as suits the pairs."""
    settings = run.settings
    capacity = settings.pool_size or default_capacity(run.data.rows, batch_size=settings.batch_size)
    return PairPool(capacity, run.width, ranks=run.ranks, device=run.device)


def as_they_are(row_B: Rows, augmentation: Augmentation, *, draw: int = 0) -> View:
    """A view of pairs whose pictures keep their captions."""
    return View(image_row_B=row_B, caption_row_B=row_B, augmentation=augmentation, draw=draw)
