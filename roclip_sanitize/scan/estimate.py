"""How many pairs do not belong together? An estimate, and what it makes of a budget.

Whoever pairs pictures with captions of other pictures sees what ranks strangers have. Below a rank that few
matched pairs have, what there is of pairs is what there is of strangers among them:

    share of strangers = share of pairs below / share of strangers below       (after Storey 2002)

Matched pairs below make it too high, poisons whose ranks are higher than strangers' too low. It is too high
by far after one look, at thumbnails and words; after a second, in a young model's vectors, it tells a clean
corpus from a poisoned one (benchmarks/LOG.md). So it may only lower a budget: to so many times what it says,
since pairs that do not belong together are not all the worst.

Dimension key: N pairs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BELOW = 0.25  # the lower of a pair's two ranks: a third of strangers are, and one of a thousand matched pairs
FEWEST_BELOW = 30  # strangers, of which a share says something


@dataclass(frozen=True, slots=True, kw_only=True)
class Strangers:
    """What was counted.

    Attributes:
        pairs: that have ranks.
        pairs_below: of them with a rank below BELOW.
        strangers: pictures, each with the caption of another.
        strangers_below: likewise.
    """

    pairs: int = 0
    pairs_below: int = 0
    strangers: int = 0
    strangers_below: int = 0

    @classmethod
    def counted(cls, rank_N2: NDArray[np.floating], stranger_N2: NDArray[np.floating]) -> Self:
        """Count ranks, of pairs and of strangers; NaN where there is none."""
        return cls(
            pairs=int(has_ranks(rank_N2).sum()),
            pairs_below=int(is_below(rank_N2).sum()),
            strangers=int(has_ranks(stranger_N2).sum()),
            strangers_below=int(is_below(stranger_N2).sum()),
        )

    def __add__(self, other: Strangers) -> Strangers:
        mine, theirs = asdict(self), asdict(other)
        return Strangers(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def share(self) -> float | None:
        """Of the pairs that do not belong together, at the most 1; None where nothing can be said."""
        return self._share(self.pairs_below)

    @property
    def careful_share(self) -> float | None:
        """The same with one standard deviation more, and one pair: what a small corpus may hide."""
        return self._share(self.pairs_below + math.sqrt(self.pairs_below) + 1)

    def allowed(self, *, pairs: int, budget: float, times: float) -> int:
        """How many pairs may be flagged.

        Args:
            pairs: how many there are.
            budget: the share that was given.
            times: of the estimate, or 0 to spend the budget whatever it says.
        """
        share = self.careful_share if times else None
        most = budget if share is None else min(budget, times * share)
        return math.floor(most * pairs + 1e-9)  # 0.29 * 100 is 28.999…

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "share": self.share}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """The inverse of to_json()."""
        return cls(**{name: value for name, value in told.items() if name != "share"})

    def _share(self, pairs_below: float) -> float | None:
        if self.strangers_below < FEWEST_BELOW or not self.pairs:
            return None
        return min(1.0, pairs_below / self.pairs * self.strangers / self.strangers_below)


def has_ranks(rank_N2: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which pairs have both ranks."""
    known_N: NDArray[np.bool_] = ~np.isnan(rank_N2).any(axis=1)
    return known_N


def is_below(rank_N2: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which pairs have a rank below BELOW; those without ranks have none."""
    below_N: NDArray[np.bool_] = rank_N2.min(axis=1) < BELOW  # NaN is not
    return below_N
