"""In which of its settings density finds poisons, and nothing else.

Of R reference pairs, k count as near. Poisons hide behind each other once k of their kind are among the R;
and whatever is rarer than k in R is as alone as they are. So both shares bound k / R, with room for who
happens to be drawn: three times the share of the poisons, and three fifths of that of the rarest kind of
picture that is to be kept. Where the first is more than the second, no setting does both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MORE_THAN_POISONS, LESS_THAN_RAREST = 3.0, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The settings between two shares.

    Attributes:
        most_poisons: share of the pairs that are poisons of one kind, at the most.
        rarest_kind: share of the rarest kind of picture that is to be kept; 1 where nobody knows.
    """

    most_poisons: float
    rarest_kind: float

    @property
    def lowest(self) -> float:
        """Of k / R."""
        return MORE_THAN_POISONS * self.most_poisons

    @property
    def highest(self) -> float:
        """Of k / R."""
        return LESS_THAN_RAREST * self.rarest_kind

    def neighbours(self, reference: int) -> int:
        """The least k, of so many reference pairs, that finds the poisons: 1 or more, but not all."""
        return max(1, min(math.ceil(self.lowest * reference - 1e-9), reference - 1))

    def warning(self, reference: int) -> str:
        """What is to be said of that k; nothing where it is within."""
        near = self.neighbours(reference)
        if near / reference >= self.lowest - 1e-9 and near / reference <= self.highest + 1e-9:
            return ""
        return (
            f"density has no setting for poisons of up to {self.most_poisons:.2%} beside kinds of picture as "
            f"rare as {self.rarest_kind:.2%}: with {near} of {reference:,} as near it suspects these, too"
        )
