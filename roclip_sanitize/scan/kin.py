"""Detector: do the pairs with the pictures most like a pair's own fail to match, too?

One picture that fits its caption badly is an odd photo. A family of them, each under a caption of the same
wrong kind, is an attack that shows its target again and again, cropped, mirrored, recoloured, so that no two
are copies. Each alone looks a little odd; together they are found, like a biased coin by many throws.

    kin of a pair        pairs whose pictures are at a cosine of 0.9 or more to its own, in the index's
                         vectors; one for each picture, 32 at the most, byte-identical ones left out
    surprise of a pair   -ln of the share of all pairs that match no better than it, by cross prediction, as
                         that of one in a thousand at the most: 1 on average, whatever cross prediction is
    excess of a pair     sum over its kin of (surprise - 1), by (kin + 3); 0 where that is negative, or where
                         fewer than two of them have a strange rank, see cross_judged.py

A pair's own surprise has no part in it. The 3 are kin that are as everywhere: one odd relative proves little.
Some pairs match worst wherever all match well, and kin are alike in that, too: hence the two.

Pure arithmetic: no files.

Dimension key: N pairs, K kin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIN = 32
KIN_COSINE = 0.9
ORDINARY_KIN = 3
FEWEST_STRANGE = 2
LEAST_SHARE = 1e-3


def excess(share_NK: NDArray[np.floating], strange_NK: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How much oftener than chance pairs' kin fail to match.

    Args:
        share_NK: of each of a pair's kin, the share of all pairs that match no better, 0 to 1; NaN for none.
        strange_NK: which of them have a strange rank.

    Returns:
        (N,) float32, 0 or more.
    """
    surprise_NK = -np.log(np.maximum(share_NK, LEAST_SHARE)) - 1
    kin_N = (~np.isnan(surprise_NK)).sum(axis=1)
    excess_N: NDArray[np.float32] = np.maximum(np.nansum(surprise_NK, axis=1) / (kin_N + ORDINARY_KIN), 0)
    excess_N[strange_NK.sum(axis=1) < FEWEST_STRANGE] = 0
    return excess_N.astype(np.float32)
