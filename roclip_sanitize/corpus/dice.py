"""Small draws from a random stream, in the words that the other modules of the corpus use."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from numpy.random import Generator

Value = TypeVar("Value")


def between(rng: Generator, low: float, high: float) -> float:
    """A number from [low, high), evenly."""
    return low + (high - low) * rng.random()


def chance(rng: Generator, probability: float) -> bool:
    """True with this probability."""
    return rng.random() < probability


def pick(rng: Generator, values: Sequence[Value]) -> Value:
    """One of the values, each as likely as the others."""
    return values[int(rng.integers(len(values)))]


def weighted(rng: Generator, weights: Mapping[Value, float]) -> Value:
    """One of the keys, in proportion to its weight; the weights need not add up to one."""
    ends = list(accumulate(weights.values()))
    return list(weights)[bisect_right(ends, rng.random() * ends[-1], hi=len(ends) - 1)]
