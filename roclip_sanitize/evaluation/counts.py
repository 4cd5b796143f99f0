"""What is counted, before it becomes a record with an interval.

    Count    hits among trials: Wilson's interval; bootstrap over pictures, where trials share some
    Sample   numbers whose mean is reported, in groups that stand or fall together: bootstrap; or
             hits whose classes weigh the same each: Wilson's, with as many trials as that is worth

Dimension key: N observations, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
        hits_G: the same of each group that stands or falls together (a picture that is asked about several
            times, say), as int64; None where each trial stands by itself.
        trials_G: likewise; some may have none.
    """

    attack: str | None
    metric: str
    hits: int
    trials: int
    hits_G: NDArray[np.int64] | None = None
    trials_G: NDArray[np.int64] | None = None

    @classmethod
    def of_groups(
        cls, attack: str | None, metric: str, hits_G: NDArray[Any], trials_G: NDArray[Any]
    ) -> Count:
        """Count what happened to each group; booleans are one trial at most."""
        return cls(
            attack=attack,
            metric=metric,
            hits=int(hits_G.sum()),
            trials=int(trials_G.sum()),
            hits_G=hits_G.astype(np.int64),
            trials_G=trials_G.astype(np.int64),
        )

    def __add__(self, other: Count) -> Count:
        """Both together; groups of one place are one group."""
        told = replace(self, hits=self.hits + other.hits, trials=self.trials + other.trials)
        mine, others = (self.hits_G, self.trials_G), (other.hits_G, other.trials_G)
        hits_G, trials_G = (
            None if one is None or two is None else one + two for one, two in zip(mine, others, strict=True)
        )
        return replace(told, hits_G=hits_G, trials_G=trials_G)


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

    def __add__(self, other: Sample) -> Sample:
        """Both together; groups of one number are one group."""
        value_N = np.concatenate([self.value_N, other.value_N])
        if self.group_N is None or other.group_N is None:
            return replace(self, value_N=value_N, group_N=None)
        return replace(self, value_N=value_N, group_N=np.concatenate([self.group_N, other.group_N]))


def is_whole(attack: str | None) -> bool:
    """Whether this names an attack, and not one of its triggers alone."""
    return attack is not None and VARIANT not in attack
