"""Which steps match, and how fast each step learns. Pure arithmetic on pairs seen.

The schedule counts pairs, not epochs: a web-scale run may see each pair once, and "every
K-th epoch" would then mean nothing. RoCLIP's published schedule is a window of one epoch
every second one: match_every = 2 N, match_for = N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Ending = Literal["", "matching", "ordinary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingSchedule:
    """Windows of matching among ordinary steps.

    What a model has learnt last shows most, so how a training ends should be a choice: windows are
    counted from ``start``, or back from the end, and then the earliest may be cut short by ``start``.

    Attributes:
        start: pairs seen before the first window may open.
        every: pairs from one window's start to the next.
        length: pairs that a window lasts; 0 never matches.
        ends: with what the training does. "": whatever windows counted from ``start`` leave last;
            "matching": the last ``length`` pairs match; "ordinary": the last ``every - length`` do not,
            each of the three in whole steps.
        total: pairs of the whole training. Nothing but ``ends`` and last_window() asks for it.
        step: pairs that a step sees; the same goes for it.
    """

    start: int
    every: int
    length: int
    ends: Ending = ""
    total: int = 0
    step: int = 1

    def matches(self, pairs_seen: int) -> bool:
        """Whether the step that begins after ``pairs_seen`` pairs is a matching step."""
        return pairs_seen >= self.start and (pairs_seen - self._opening) % self.every < self.length

    def last_window(self) -> tuple[int, int] | None:
        """Pairs seen when the first step of the last window begins, and when its last step is done.

        None if no step matches. A model saved at the first is the last that ordinary steps have left, one
        saved at the second the last that matching has.
        """
        first_step = self._whole_steps(self.start)
        last = next(filter(self.matches, reversed(range(first_step, self.total, self.step))), None)
        if last is None:
            return None
        first = last
        while self.matches(first - self.step):
            first -= self.step
        return first, last + self.step

    def window(self, pairs_seen: int) -> int:
        """Number of the period, each a window and what follows it; 0 is the one that ``start`` falls into."""
        return (pairs_seen - self._opening) // self.every - (self.start - self._opening) // self.every

    def asked(self, pairs_seen: int, *, since: int = 0) -> int | None:
        """The window that is to be prepared as the step after ``pairs_seen`` begins; mostly None.

        A window is prepared from the end of the one before, or what would have been its end: so all of
        the ordinary steps between the two are there to do it in.

        Args:
            pairs_seen: whole steps.
            since: pairs seen when the first step that may ask begins: it asks for what is late by then.
        """
        ahead = self.every - self.length
        window = self.window(pairs_seen + ahead)
        first = pairs_seen == since or window > self.window(pairs_seen - self.step + ahead)
        return window if first and window >= 0 else None

    @property
    def _opening(self) -> int:
        """Pairs seen where one of the windows opens: all others are whole periods away."""
        if self.ends == "matching":
            return self.total - self._whole_steps(self.length)
        if self.ends == "ordinary":
            return self.total - self._whole_steps(self.every)
        return self.start

    def _whole_steps(self, pairs: int) -> int:
        """The same or more, in whole steps: a step is what it was when it began."""
        return math.ceil(pairs / self.step) * self.step


def learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Linear from 0 to ``peak`` over ``warmup`` steps, then a cosine that reaches 0 at ``total``.

    Args:
        step: optimiser steps already made, from 0.
        peak: the highest rate.
        warmup: steps of the linear part.
        total: steps of the whole run.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
