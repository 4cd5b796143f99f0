"""What a watcher is, and what it is told. Names and units are in the package's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self

from roclip_sanitize.limits import WORK_KEY, Work

DIGITS = {"loss": 5, "loss_mean": 5, "logit_scale": 3, "samples_per_second": 1}  # after the point, in the log
NOTE_DIGITS = 5
RATE_DIGITS = 4  # that count: a learning rate ends near 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the steps since the last report.

    Attributes:
        step: steps made so far.
        total_steps: of the whole run.
        samples: pairs seen so far.
        loss: of the last step, over all ranks.
        loss_mean: over the steps since the last report.
        kind: of the last step, as its method calls it.
        learning_rate: of the last step.
        logit_scale: after the last step, 1 to 100.
        samples_per_second: over all ranks.
        notes: name → mean over those steps that made the note.
        work: what the steps cost.
    """

    step: int
    total_steps: int
    samples: int
    loss: float
    loss_mean: float
    kind: str
    learning_rate: float
    logit_scale: float
    samples_per_second: float
    notes: Mapping[str, float] = field(default_factory=dict)
    work: Work = field(default_factory=Work)

    def scalars(self) -> dict[str, float]:
        """All that can be drawn over the steps, by name."""
        return {
            "loss": self.loss,
            "loss_mean": self.loss_mean,
            "learning_rate": self.learning_rate,
            "logit_scale": self.logit_scale,
            "samples": self.samples,
            "samples_per_second": self.samples_per_second,
            **self.notes,
        }

    def to_json(self) -> dict[str, Any]:
        """The report as a line of the log, rounded."""
        return {
            "step": self.step,
            "total_steps": self.total_steps,
            "samples": self.samples,
            **{name: round(getattr(self, name), digits) for name, digits in DIGITS.items()},
            "learning_rate": float(f"{self.learning_rate:.{RATE_DIGITS}g}"),
            "kind": self.kind,
            **{name: round(value, NOTE_DIGITS) for name, value in self.notes.items()},
            WORK_KEY: self.work.to_json(),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """The inverse of to_json(), as far as rounding lets it be.

        Raises:
            KeyError: the line is of a log from before it had all this.
        """
        own = [each.name for each in fields(cls) if each.name not in {"notes", "work"}]
        notes = {name: value for name, value in line.items() if name not in {*own, WORK_KEY}}
        return cls(**{name: line[name] for name in own}, notes=notes, work=Work.from_json(line[WORK_KEY]))


class Watcher(Protocol):
    """Somebody who is told. A run may end at any time, so that a watcher keeps what it was told at once."""

    def told(self, report: Report) -> None:
        """Hear of the steps since the last report."""
        ...

    def end(self) -> None:
        """The run has made its last step. Never called where it was killed, or failed."""
        ...
