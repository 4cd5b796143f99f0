"""Which steps match, and how fast each step learns. Pure arithmetic on pairs seen.

The schedule counts pairs, not epochs: a web-scale run may see each pair once, and "every
K-th epoch" would then mean nothing. RoCLIP's published schedule is a window of one epoch
every second one: match_every = 2 N, match_for = N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingSchedule:
    """Windows of matching among ordinary steps.

    Attributes:
        start: pairs seen before the first window may open.
        every: pairs from one window's start to the next.
        length: pairs that a window lasts; 0 never matches.
    """

    start: int
    every: int
    length: int

    def matches(self, pairs_seen: int) -> bool:
        """Whether the step that begins after ``pairs_seen`` pairs is a matching step."""
        return pairs_seen >= self.start and (pairs_seen - self.start) % self.every < self.length


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
