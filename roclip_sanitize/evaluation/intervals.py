"""95 % intervals: of shares by Wilson's formula, of other means by resampling.

Dimension key: N observations, G groups of them, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
CONFIDENCE = 0.95
RESAMPLES = 2_000
RESAMPLES_AT_ONCE = 50  # memory: this times the groups
LENT_TRIALS = 2  # to each class, at the mean: few trials that all come out alike are no certainty


def wilson(hits: float, trials: float) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927): honest near 0, near 1 and for few trials.

    Args:
        hits: how often it happened.
        trials: how often it could have; no whole number where some count for less than one.

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


def bootstrap_mean(
    value_N: NDArray[np.float64], group_N: NDArray[np.int64] | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval for a mean (Efron 1979), over whole groups where there are some.

    Observations of one group (both questions about one pair, say) are drawn together: alone they
    would pass for more evidence than they are (cluster bootstrap, Davison & Hinkley 1997, 3.8).

    Args:
        value_N: the observations.
        group_N: the group of each; None where each stands by itself.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        Lower and upper bound; the mean twice where fewer than two groups, or equal groups, show no spread.
    """
    sum_G: NDArray[np.float64] = value_N
    size_G: NDArray[np.float64] = np.ones(len(value_N))
    if group_N is not None:
        code_N = np.unique(group_N, return_inverse=True)[1]
        sum_G = np.bincount(code_N, weights=value_N).astype(np.float64)
        size_G = np.bincount(code_N).astype(np.float64)
    return bootstrap_ratio(sum_G, size_G, seed=seed)


def bootstrap_ratio(
    sum_G: NDArray[np.float64], size_G: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float]:
    """bootstrap_mean() of groups of which sums and sizes are known."""
    mean = float(sum_G.sum() / size_G.sum()) if len(sum_G) else 0.0
    if len(sum_G) < 2 or (sum_G == mean * size_G).all():
        return mean, mean
    from scipy.stats import bootstrap

    found = bootstrap(
        (sum_G, size_G),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def grouped_share(
    hit_N: NDArray[np.bool_], group_N: NDArray[np.int64], *, seed: int = 0
) -> tuple[float, float]:
    """Interval of a share whose trials come in groups. See counted_share()."""
    code_N = np.unique(group_N, return_inverse=True)[1]
    hits_G = np.bincount(code_N, weights=hit_N).astype(np.int64)
    return counted_share(hits_G, np.bincount(code_N), seed=seed)


def counted_share(
    hits_G: NDArray[np.int64], trials_G: NDArray[np.int64], *, seed: int = 0
) -> tuple[float, float]:
    """Interval of a share whose trials come in groups: bootstrapped over groups.

    Where nothing or everything is hit there is nothing to resample: then Wilson's interval with a
    trial per group; and so where no group has more than one.

    Args:
        hits_G: hits of each group.
        trials_G: its trials; groups without any do not count.
        seed: of the resampling.
    """
    tried_G = trials_G > 0
    hits_G, trials_G = hits_G[tried_G], trials_G[tried_G]
    groups, hits = len(hits_G), int(hits_G.sum())
    if hits in {0, int(trials_G.sum())}:
        return wilson(groups if hits else 0, groups)
    if trials_G.max() == 1:
        return wilson(hits, groups)
    return bootstrap_ratio(hits_G.astype(np.float64), trials_G.astype(np.float64), seed=seed)


def class_mean(hit_N: NDArray[np.bool_], class_N: NDArray[np.int64]) -> tuple[float, float]:
    """Interval of a mean of classes' shares, which weighs every class the same.

    Wilson's, with as many trials as spread as much as the classes' shares together (effective sample
    size, Korn & Graubard 1998). Resampling would not do: a class of one picture never varies.

    Args:
        hit_N: which trials were hits.
        class_N: the class of each.

    Returns:
        Lower and upper bound, 0 to 1; (0, 1) without trials.
    """
    if not len(hit_N):
        return wilson(0, 0)
    code_N, size_C = np.unique(class_N, return_inverse=True, return_counts=True)[1:]
    hits_C = np.bincount(code_N, weights=hit_N)
    mean = float((hits_C / size_C).mean())
    trials = len(size_C) ** 2 / float((1 / size_C).sum())  # if all classes' shares were the mean
    if hit_N.any() and not hit_N.all():
        share_C = (hits_C + LENT_TRIALS * mean) / (size_C + LENT_TRIALS)
        trials *= mean * (1 - mean) * float((1 / size_C).sum())
        trials /= float((share_C * (1 - share_C) / size_C).sum())
    return wilson(mean * trials, trials)


def _ratio(sum_G: Any, size_G: Any, axis: int) -> Any:
    return sum_G.sum(axis=axis) / size_G.sum(axis=axis)
