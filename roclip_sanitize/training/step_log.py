"""What became of the training steps, and what each part of a step cost.

    OUT/log.jsonl   every twentieth step and the last: loss, logit scale, speed, seconds of each part

A part is clocked where the step passes from one to the next. On a GPU, where work is only handed
over, that takes waiting for it to end: there one step in twenty is clocked, and stands for the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from roclip_sanitize.limits import WORK_KEY, Laps, Work

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
        notes: name → scalar that the method wants known.
    """

    loss: float
    kind: str
    notes: Mapping[str, torch.Tensor]


class StepLog:
    """The log as JSON lines. A resume cuts off what will be written again.

    Args:
        path: where it lies.
        first_step: from which the run goes on.
        last_step: with which it ends.
        batch_size: pairs of a step.
        ranks: that share each step.
        active: whether this rank is the one that writes.
    """

    def __init__(
        self, path: Path, *, first_step: int, last_step: int, batch_size: int, ranks: int, active: bool
    ) -> None:
        self._path, self._active = path, active
        self._since, self._noted, self._last_step = time.perf_counter(), first_step, last_step
        self._batch_size, self._ranks = batch_size, ranks
        if active:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= first_step]
            path.write_text("".join(f"{line}\n" for line in kept))

    def step(self, step: int, *, done: StepDone, model: Any, clock: StepClock) -> None:
        """Note that so many steps are done."""
        if not self._active or (step % LOG_EVERY_STEPS and step != self._last_step):
            return
        now = time.perf_counter()
        work = clock.work(
            step - self._noted, pairs=self._batch_size, wall=now - self._since, ranks=self._ranks
        )
        line = {
            "step": step,
            "samples": step * self._batch_size,
            "loss": round(done.loss, 5),
            "kind": done.kind,
            **{name: round(float(value), 5) for name, value in done.notes.items()},
            "logit_scale": round(model.logit_scale.detach().exp().item(), 3),
            "samples_per_second": round(work.pairs / max(now - self._since, 1e-9), 1),
            WORK_KEY: work.to_json(),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._since, self._noted = now, step
