"""What a detector is: a few reference pairs in, one score per pair out.

Those of released.py are none: a batch is its own reference there, and who else is in it, and where, decides.

Dimension key: M pairs of a block, R reference pairs, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Some pairs, as a CLIP sees them.

    Attributes:
        image_MD: float32, unit rows.
        text_MD: float32, unit rows, in the same space.
        own_M: int64, the place of each among the reference pairs, -1 if it is none of them.
    """

    image_MD: Vectors
    text_MD: Vectors
    own_M: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.own_M)


class Detector(Protocol):
    """Scores pairs, many at a time. The same pair gets the same score in any block."""

    def __call__(self, pairs: Pairs) -> Scores:
        """(M,) float32, higher is more suspicious."""
        ...


class MakeDetector(Protocol):
    """Learns from reference pairs."""

    def __call__(self, reference: Pairs, *, neighbours: int) -> Detector:
        """A detector that holds pairs against these.

        Args:
            reference: R pairs.
            neighbours: how many of them count as near.
        """
        ...
