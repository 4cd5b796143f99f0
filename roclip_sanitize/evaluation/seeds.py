"""Several trainings of one arm, brought together: what is typical, and how far they differ.

One training says little about a difference of two points, and the trials of one model are no
independent evidence about the next. So a merged value is the mean over trainings with their
standard deviation and range, and the pooled count is given beside it, not instead of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.evaluation.results import Result, is_share

WRITTEN = 1e-5  # records are written to six places


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """One metric of one attack over several trainings.

    Attributes:
        attack: which attack, or None for utility.
        metric: what was measured.
        mean: over the trainings, each with the same weight.
        spread: their standard deviation (with n - 1); None for fewer than two.
        lowest: of the trainings' values.
        highest: of the trainings' values.
        low: lower end of the pooled count's Wilson interval, where that of each training is its own count's;
            the lowest of the trainings' intervals for what is no share, and for shares whose trials come
            in groups, of which a count tells nothing.
        high: the upper end, likewise.
        hits: of all trainings together; None for what is no share.
        n: trials of all trainings together.
        trainings: how many.
    """

    attack: str | None
    metric: str
    mean: float
    spread: float | None
    lowest: float
    highest: float
    low: float
    high: float
    hits: int | None
    n: int
    trainings: int


def merge(results: Sequence[Result]) -> Merged:
    """Bring together one metric of one attack, one record per training.

    Raises:
        MismatchError: there is none, or they are of different metrics or attacks.
    """
    kinds = list(dict.fromkeys((result.attack, result.metric) for result in results))
    if len(kinds) != 1:
        found = ", ".join(f"{metric} of {attack or 'no attack'}" for attack, metric in kinds) or "nothing"
        raise MismatchError(f"cannot merge {found}: wanted one metric of one attack, from each training")
    attack, metric = kinds[0]
    values = [result.value for result in results]
    trials = sum(result.n for result in results)
    hits = sum(round(result.value * result.n) for result in results) if is_share(metric) else None
    low, high = (
        wilson(hits, trials)
        if hits is not None and all(map(_is_of_its_count, results))
        else (min(result.low for result in results), max(result.high for result in results))
    )
    return Merged(
        attack=attack,
        metric=metric,
        mean=fmean(values),
        spread=stdev(values) if len(values) > 1 else None,
        lowest=min(values),
        highest=max(values),
        low=low,
        high=high,
        hits=hits,
        n=trials,
        trainings=len(results),
    )


def _is_of_its_count(result: Result) -> bool:
    """Whether its trials stood each by itself: its interval is Wilson's."""
    told = wilson(round(result.value * result.n), result.n)
    return max(abs(result.low - told[0]), abs(result.high - told[1])) < WRITTEN


def merge_all(results: Iterable[Result]) -> list[Merged]:
    """Bring together all records of one arm's trainings, in the order in which metrics first occur."""
    kinds: dict[tuple[str | None, str], list[Result]] = {}
    for result in results:
        kinds.setdefault((result.attack, result.metric), []).append(result)
    return [merge(found) for found in kinds.values()]
