"""95 % intervals of shares."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927): honest near 0, near 1 and for few trials.

    Args:
        hits: how often it happened.
        trials: how often it could have.

    Returns:
        Lower and upper bound, 0 to 1; (0, 1) without trials.
    """
    if not trials:
        return 0.0, 1.0
    share, spread = hits / trials, Z_95**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low = 0.0 if hits == 0 else middle - half
    high = 1.0 if hits == trials else middle + half
    return low, high
