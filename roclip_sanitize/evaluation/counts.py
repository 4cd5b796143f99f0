"""What is counted, before it becomes a record with an interval.

    Count    hits among trials, each trial by itself: Wilson's interval
    Sample   numbers whose mean is reported, in groups that stand or fall together: bootstrap; or
             hits whose classes weigh the same each: Wilson's, with as many trials as that is worth

Dimension key: N observations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VARIANT = "/"  # between an attack's name and that of one of its several triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Hits among trials, of one metric of one attack.

    Attributes:
        attack: which attack, or None for utility.
        metric: what was counted.
        hits: how often it happened.
        trials: how often it could have.
    """

    attack: str | None
    metric: str
    hits: int
    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Observations of one metric of one attack, whose mean is its value.

    Attributes:
        attack: which attack, or None for utility.
        metric: what was observed.
        value_N: the observations.
        group_N: which of them belong together (questions about one caption, say), as int64; None where
            each stands by itself.
        class_N: the class of each, where the value is the mean of the classes' means.
    """

    attack: str | None
    metric: str
    value_N: NDArray[np.float64]
    group_N: NDArray[np.int64] | None = None
    class_N: NDArray[np.int64] | None = None

    @property
    def mean(self) -> float:
        """Its value; 0 without observations."""
        if not len(self.value_N):
            return 0.0
        if self.class_N is None:
            return float(self.value_N.mean())
        code_N, size_C = np.unique(self.class_N, return_inverse=True, return_counts=True)[1:]
        return float((np.bincount(code_N, weights=self.value_N) / size_C).mean())


def is_whole(attack: str | None) -> bool:
    """Whether this names an attack, and not one of its triggers alone."""
    return attack is not None and VARIANT not in attack
