"""How many pairs do not belong together? An estimate, and what it makes of a budget.

Whoever pairs pictures with captions of other pictures sees what ranks strangers have. Below a rank that few
matched pairs have, what there is of pairs is what there is of strangers among them:

    share of strangers = share of pairs below / share of strangers below       (after Storey 2002)

Matched pairs below make it too high, poisons whose ranks are higher than strangers' too low. It is too high
by far after one look, at thumbnails and words; after a second, in a young model's vectors, it tells a clean
corpus from a poisoned one (benchmarks/LOG.md). So it is an estimate and no bound, and may only lower a
budget: to so many times what it says with one standard deviation and one pair more, since few pairs may hide
some, and those that do not belong together are not all the worst. Pairs that carry a trace (traces.py) have
room in the budget whatever it says: poisons whose trigger was learnt may have the ranks of honest pairs.

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
        """Estimated, of the pairs that do not belong together, up to 1; None where nothing can be said."""
        return self._share(self.pairs_below)

    @property
    def careful_share(self) -> float | None:
        """The same with one standard deviation more, and one pair: what a small corpus may hide."""
        return self._share(self.pairs_below + math.sqrt(self.pairs_below) + 1)

    def allowed(self, *, pairs: int, budget: float, times: float, carriers: int = 0) -> int:
        """How many pairs may be flagged.

        Args:
            pairs: how many there are.
            budget: the share that was given.
            times: of careful_share, or 0 to spend the budget whatever that says.
            carriers: pairs that carry a trace, for which there is room in the budget.
        """
        share = self.careful_share if times else None
        most = math.floor(budget * pairs + 1e-9)  # 0.29 * 100 is 28.999…
        return most if share is None else min(most, max(carriers, math.floor(times * share * pairs + 1e-9)))

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
