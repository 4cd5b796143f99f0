"""What became of the training steps, and what each part cost: told every twentieth step and the last.

    StepDone, one per step ─▶ StepLog: means and speed ─▶ Report ─▶ whoever watches (watching/)

A part is clocked where the step passes from one to the next. On a GPU, where work is only handed
over, that takes waiting for it to end: there one step in twenty is clocked, and stands for the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from roclip_sanitize.limits import Laps, Work
from roclip_sanitize.training.watching.contract import Report, Watcher

LOG_EVERY_STEPS = 20
CLOCKED_STEP = 10  # of so many on a GPU: the very first ones also set it up


class StepClock:
    """Clocks the parts of one rank's steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps = Laps()
        self._on = False
        self._clocked = 0

    def begin(self, step: int) -> None:
        """A step begins."""
        self._on = self._device.type != "cuda" or step % LOG_EVERY_STEPS == CLOCKED_STEP
        if self._on:
            self._clocked += 1
            self._wait()
            self._laps.start()

    def lap(self, part: str) -> None:
        """One part of the step is done."""
        if self._on:
            self._wait()
            self._laps.lap(part)

    def work(self, steps: int, *, pairs: int, wall: float, ranks: int) -> Work:
        """What the steps since the last call cost.

        Args:
            steps: how many there were.
            pairs: of a step, over all ranks.
            wall: seconds that passed, whatever else was done meanwhile.
            ranks: that share each step: a worker's rate is its share of the whole.
        """
        share = ranks * steps / max(1, self._clocked)
        parts = {part: seconds * share for part, seconds in self._laps.work(0).steps.items()}
        self._clocked = 0
        return Work(pairs=steps * pairs, wall=wall * ranks, steps=parts)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """What became of a step.

    Attributes:
        loss: over all ranks.
        kind: of the step, as its method calls it.
        learning_rate: that it was made with.
        notes: what the method wants known: see methods.contract.Objective.
    """

    loss: float
    kind: str
    learning_rate: float
    notes: Mapping[str, torch.Tensor]


class Means:
    """Means over steps. Sums stay where the notes are, so that no step waits for a GPU."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Any, Any]] = {}

    def add(self, notes: Mapping[str, torch.Tensor]) -> None:
        """Take one step's notes in."""
        for name, note in notes.items():
            part, whole = note.detach() if note.ndim else (note.detach(), 1)
            parts, wholes = self._sums.get(name, (0, 0))
            self._sums[name] = (parts + part, wholes + whole)

    def take(self) -> dict[str, float]:
        """Each note's mean over the steps that made it; of parts and wholes, their share. Begins anew."""
        sums = {name: (float(part), float(whole)) for name, (part, whole) in self._sums.items()}
        self._sums.clear()
        return {name: part / whole for name, (part, whole) in sums.items() if whole}


class StepLog:
    """Tells watchers what became of the steps.

    Args:
        watchers: who is told; none on ranks that do not tell.
        first_step: from which the run goes on.
        last_step: with which it ends.
        batch_size: pairs of a step.
        ranks: that share each step.
    """

    def __init__(
        self, watchers: Sequence[Watcher], *, first_step: int, last_step: int, batch_size: int, ranks: int
    ) -> None:
        self._watchers = watchers
        self._since, self._noted, self._last_step = time.perf_counter(), first_step, last_step
        self._batch_size, self._ranks = batch_size, ranks
        self._losses, self._means = 0.0, Means()

    def step(self, step: int, *, done: StepDone, model: Any, clock: StepClock) -> None:
        """Note that so many steps are done."""
        if not self._watchers:
            return
        self._losses += done.loss
        self._means.add(done.notes)
        if step % LOG_EVERY_STEPS and step != self._last_step:
            return
        now, steps = time.perf_counter(), step - self._noted
        wall = now - self._since
        work = clock.work(steps, pairs=self._batch_size, wall=wall, ranks=self._ranks)
        report = Report(
            step=step,
            total_steps=self._last_step,
            samples=step * self._batch_size,
            loss=done.loss,
            loss_mean=self._losses / steps,
            kind=done.kind,
            learning_rate=done.learning_rate,
            logit_scale=model.logit_scale.detach().exp().item(),
            samples_per_second=work.pairs / max(wall, 1e-9),
            notes=self._means.take(),
            work=work,
        )
        for watcher in self._watchers:
            watcher.told(report)
        self._since, self._noted, self._losses = now, step, 0.0

    def end(self) -> None:
        """The last step is made."""
        for watcher in self._watchers:
            watcher.end()
