"""Which cells prove nothing, and what stands beside them.

A cell is void unless plain CLIP, trained on the same shards with the same seed and model and without
augmentation, falls to the attack in at least 80 % of cases: else there was nothing to defend against.

What authors published is shown beside, never among, what was measured here: other data, other
models, other attacks of the same family.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sweep.cells import Cell
from benchmarks.sweep.methods import UNDEFENDED
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.evaluation.counts import is_whole
from roclip_sanitize.evaluation.results import Result
from roclip_sanitize.outcome import CONTROL_SUCCESS

SUCCESS_METRICS = ("attack_success", "hit_at_1")  # of pictures; of captions that ask for pictures
PUBLISHED = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure that authors reported of their own work.

    Attributes:
        attack: what theirs was after: "targeted" or "backdoor".
        method: name of the nearest method here.
        percent: success of the attack, as it was printed.
        about: what exactly was measured.
        source: where it was read.
    """

    attack: str
    method: str
    percent: str
    about: str
    source: str


def published() -> tuple[Published, ...]:
    """All figures in published.toml."""
    return tuple(Published(**entry) for entry in tomllib.loads(PUBLISHED.read_text("utf-8"))["published"])


def successes(results: Sequence[Result]) -> dict[str, float]:
    """Attack → how often it succeeded: the first of SUCCESS_METRICS that was measured of it."""
    found = dict[str, float]()
    for metric in reversed(SUCCESS_METRICS):
        found |= {each.attack: each.value for each in results if each.metric == metric and each.attack}
    return found


def least_success(results: Sequence[Result]) -> float:
    """Of the attacks that share a training, the success of the one that succeeded least; 0 for none."""
    whole = [success for attack, success in successes(results).items() if is_whole(attack)]
    return min(whole, default=0.0)


def control_of(cell: Cell, cells: Sequence[Cell]) -> Cell:
    """The undefended cell beside this one.

    Raises:
        MismatchError: the sweep has none, which cells_of() does not let happen.
    """
    for other in cells:
        if (
            other.arm.name == UNDEFENDED
            and other.poisoning == cell.poisoning
            and (other.model, other.seed, other.attack) == (cell.model, cell.seed, cell.attack)
            and other.train["samples"] == cell.train["samples"]
        ):
            return other
    raise MismatchError(f"no undefended cell beside {cell}")


def is_void(success: float | None) -> bool:
    """Whether the success of an attack on undefended CLIP proves nothing about defences."""
    return success is None or success < CONTROL_SUCCESS
