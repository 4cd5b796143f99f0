"""What bounds a stage: how quick each of its steps is, and how near the whole comes to the slowest.

    seconds that each step was at work ─▶ Work, one per shard ─▶ added up ─▶ Limits ─▶ a small table

Steps that run side by side can together be as quick as the slowest of them, and no quicker. So
a step's rate is what it could do if it never had to wait, the lowest rate is the ceiling, and
the share of it that was reached says how much waiting was left. Where steps come one after the
other, that share is the slowest step's own share of the time: what remains is all that working on
them side by side could gain. Rates are those of one worker.

Each stage notes its Work in the markers of its shards, so that a resumed run adds up what all of its
runs did. The key there is named after seconds, as all is that may differ between two runs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

WORK_KEY = "seconds"  # of a marker's facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What some pairs cost. Works add up in any order, over shards, runs and workers.

    Attributes:
        pairs: pairs seen.
        wall: seconds that passed, summed over workers.
        steps: step → seconds that it would have taken alone: its time at work, summed over the
            threads that share it and divided by their number.
    """

    pairs: int = 0
    wall: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def measured(
        cls, *, pairs: int, wall: float, busy: Mapping[str, float], threads: Mapping[str, int]
    ) -> Self:
        """Work as clocks saw it.

        Args:
            pairs: pairs seen.
            wall: seconds that passed.
            busy: step → seconds at work, summed over its threads.
            threads: step → how many share it; 1 where none is named.
        """
        steps = {step: seconds / threads.get(step, 1) for step, seconds in busy.items()}
        return cls(pairs=pairs, wall=wall, steps=steps)

    def __add__(self, other: Work) -> Work:
        names = {**self.steps, **other.steps}
        return Work(
            pairs=self.pairs + other.pairs,
            wall=self.wall + other.wall,
            steps={name: self.steps.get(name, 0.0) + other.steps.get(name, 0.0) for name in names},
        )

    @classmethod
    def total(cls, works: Iterable[Work]) -> Work:
        """Add up any number of works, none included."""
        return sum(works, start=cls())

    def to_json(self) -> dict[str, Any]:
        """The work as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_json()."""
        return cls(pairs=values["pairs"], wall=values["wall"], steps=values["steps"])


class Laps:
    """Clocks steps that come one after the other: each lap is the time since the one before.

    What a worker does after it has noted one shard's work, such as hashing its files for the marker,
    is booked with its next shard; of its last shard it is lost.
    """

    def __init__(self) -> None:
        self._steps = defaultdict[str, float](float)
        self.start()

    def start(self) -> None:
        """Begin a lap here: what came since the last one is nobody's, such as waiting for a task."""
        self._since = time.perf_counter()

    def lap(self, step: str) -> float:
        """Book the time since the last lap to a step.

        Returns:
            Its seconds.
        """
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self._steps[step] += seconds
        return seconds

    def work(self, pairs: int, *, workers: int = 1) -> Work:
        """What some pairs cost, laps since the last call; ``workers`` were taken up meanwhile."""
        steps = {step: seconds * workers for step, seconds in self._steps.items()}
        self._steps.clear()
        return Work(pairs=pairs, wall=sum(steps.values()), steps=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How quick a stage was, and what kept it from being quicker.

    Attributes:
        rates: step → pairs per second, had it never waited; a step that took no time has none.
        reached: pairs per second of the whole.
        bound: the slowest step, "" where nothing was measured.
        share: of that step's rate, what was reached: 0 to 1.
    """

    rates: Mapping[str, float]
    reached: float
    bound: str
    share: float

    @classmethod
    def of(cls, work: Work, *, order: Iterable[str]) -> Self:
        """Judge some work; ``order`` is that of its steps in the table."""
        known = [step for step in order if work.steps.get(step, 0.0) > 0]
        rates = {step: work.pairs / work.steps[step] for step in known if work.pairs}
        bound = min(rates, key=lambda step: rates[step], default="")
        reached = work.pairs / work.wall if work.wall > 0 else 0.0
        share = min(1.0, reached / rates[bound]) if bound else 0.0
        return cls(rates=rates, reached=reached, bound=bound, share=share)

    @classmethod
    def noted(cls, facts: Iterable[Mapping[str, Any]], *, order: Iterable[str]) -> Self:
        """Judge what markers note under WORK_KEY; those without steps are left out."""
        noted = (each.get(WORK_KEY) for each in facts)
        works = (Work.from_json(work) for work in noted if isinstance(work, Mapping))
        return cls.of(Work.total(works), order=order)

    def to_json(self) -> dict[str, Any]:
        """The limits as plain values, rounded for people."""
        return {
            "pairs_per_second": {step: round(rate, 1) for step, rate in self.rates.items()},
            "reached": round(self.reached, 1),
            "bound": self.bound,
            "share": round(self.share, 3),
        }

    def lines(self) -> list[str]:
        """The limits as a small table; no line where nothing was measured."""
        if not self.bound:
            return []
        rows = [
            f"{rate:>12,.0f}  {step}{', which bounds' if step == self.bound else ''}"
            for step, rate in self.rates.items()
        ]
        whole = f"{self.reached:>12,.0f}  reached: {self.share:.0%} of what {self.bound} allows"
        return ["pairs/s of a worker", *rows, whole]
