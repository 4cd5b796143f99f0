"""The records that every table of the project is made of.

    {"arm", "attack", "metric", "value", "low", "high", "n", "seed"}

``attack`` is null for utility. Values are shares from 0 to 1 with their 95 % interval over
``n`` trials, except those of NO_SHARES. The same records come from one evaluation, a demo and
every sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from roclip_sanitize.evaluation.counts import Count, Sample
from roclip_sanitize.evaluation.intervals import (
    bootstrap_mean,
    class_mean,
    counted_share,
    grouped_share,
    wilson,
)
from roclip_sanitize.runfiles import read_json, write_json

RANKS = frozenset({"min_rank", "clean_min_rank"})  # places in a ranking, 0 and up
NO_SHARES = RANKS | {"auroc", "mean_per_class_recall", "linear_probe_mean_per_class_recall"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured value.

    Attributes:
        arm: what was trained or scanned.
        attack: name of the attack, None for utility.
        metric: what was measured; ARCHITECTURE.md has the list.
        value: the share, 0 to 1; of RANKS the mean rank.
        low: lower end of its 95 % interval.
        high: upper end.
        n: trials, or observations.
        seed: of the run.
    """

    arm: str
    attack: str | None
    metric: str
    value: float
    low: float
    high: float
    n: int
    seed: int

    @classmethod
    def of_share(
        cls, hits: int, trials: int, *, arm: str, attack: str | None, metric: str, seed: int
    ) -> Result:
        """A share of trials, with Wilson's interval."""
        low, high = wilson(hits, trials)
        value = hits / trials if trials else 0.0
        return cls(
            arm=arm, attack=attack, metric=metric, value=value, low=low, high=high, n=trials, seed=seed
        )

    @classmethod
    def of(cls, counted: Count | Sample, *, arm: str, seed: int) -> Result:
        """Whatever was counted, with the interval that is due to it; seed is that of resampling too."""
        if isinstance(counted, Count):
            named: dict[str, Any] = {"attack": counted.attack, "metric": counted.metric}
            found = cls.of_share(counted.hits, counted.trials, arm=arm, seed=seed, **named)
            if counted.hits_G is None or counted.trials_G is None:
                return found
            low, high = counted_share(counted.hits_G, counted.trials_G, seed=seed)
            return replace(found, low=low, high=high)
        value_N, group_N = counted.value_N, counted.group_N
        if counted.class_N is not None:
            low, high = class_mean(value_N == 1, counted.class_N)
        elif group_N is not None and is_share(counted.metric):
            low, high = grouped_share(value_N == 1, group_N, seed=seed)
        else:
            low, high = bootstrap_mean(value_N, group_N, seed=seed)
        return cls(
            arm=arm,
            attack=counted.attack,
            metric=counted.metric,
            value=counted.mean,
            low=low,
            high=high,
            n=len(value_N),
            seed=seed,
        )

    def to_json(self) -> dict[str, Any]:
        """The record as plain values, shares to six places."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def is_share(metric: str) -> bool:
    """Whether a metric is a share of trials, so that the counts of several runs may be added up."""
    return metric not in NO_SHARES


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write records, one list."""
    write_json(path, [result.to_json() for result in results])


def read_results(path: Path) -> list[Result]:
    """The inverse of write_results()."""
    return [Result(**record) for record in read_json(path)]


def find(results: Iterable[Result], **wanted: Any) -> Result | None:
    """The first record whose fields have these values."""
    return next((result for result in results if _matches(asdict(result), wanted)), None)


def _matches(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(values[name] == value for name, value in wanted.items())
