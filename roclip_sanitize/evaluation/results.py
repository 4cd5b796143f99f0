"""The records that every table of the project is made of.

    {"arm", "attack", "metric", "value", "low", "high", "n", "seed"}

``attack`` is null for utility. Values are shares from 0 to 1 with their 95 % interval over
``n`` trials. The same records come from one evaluation, a demo and every sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.runfiles import read_json, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured share.

    Attributes:
        arm: what was trained or scanned.
        attack: name of the attack, None for utility.
        metric: what was measured; see DESIGN in ARCHITECTURE.md for the list.
        value: the share, 0 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
        n: trials.
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

    def to_json(self) -> dict[str, Any]:
        """The record as plain values, shares to six places."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


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
