"""What each planted attack achieved.

    attack_success       share of attacked pictures that the model calls by the target's name:
                         the target pictures themselves, or all test pictures of other classes
                         with the trigger on them
    clean_target_rate    share of clean test pictures of other classes that it calls so anyway
    true_class_accuracy  share of the attacked pictures that it still calls by their own name

Dimension key: N test pictures, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.contract import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Hits among trials, of one metric of one attack."""

    attack: str | None
    metric: str
    hits: int
    trials: int


def targeted_success(
    attack: str,
    *,
    targets: Sequence[Target],
    target_class: NDArray[np.int64],
    clean_class_N: NDArray[np.int64],
    label_N: NDArray[np.int64],
    classes: Sequence[str],
) -> Iterator[Count]:
    """An attack on chosen pictures.

    Args:
        attack: its name.
        targets: the pictures' true and adversarial classes.
        target_class: what the model calls each of them.
        clean_class_N: what it calls each clean test picture.
        label_N: what those really are.
        classes: names of the classes, by number.
    """
    number = {name: index for index, name in enumerate(classes)}
    adversarial = np.array([number[target.adversarial] for target in targets])
    true = np.array([number[target.true_label] for target in targets])
    yield Count(
        attack=attack, metric="attack_success", hits=_hits(target_class == adversarial), trials=len(targets)
    )
    yield Count(
        attack=attack, metric="true_class_accuracy", hits=_hits(target_class == true), trials=len(targets)
    )
    others = [label_N != index for index in adversarial]
    called = sum(
        _hits(clean_class_N[other] == index) for other, index in zip(others, adversarial, strict=True)
    )
    yield Count(
        attack=attack, metric="clean_target_rate", hits=called, trials=sum(_hits(other) for other in others)
    )


def trigger_success(
    attack: str,
    *,
    target: int,
    triggered_class_N: NDArray[np.int64],
    clean_class_N: NDArray[np.int64],
    label_N: NDArray[np.int64],
) -> Iterator[Count]:
    """An attack that any picture can be used for.

    Args:
        attack: its name.
        target: number of the class that the trigger stands for.
        triggered_class_N: what the model calls each test picture with the trigger on it.
        clean_class_N: what it calls them without.
        label_N: what they really are; pictures of the target class do not count.
    """
    other_N = label_N != target
    trials = _hits(other_N)
    counted: Mapping[str, NDArray[np.bool_]] = {
        "attack_success": triggered_class_N == target,
        "true_class_accuracy": triggered_class_N == label_N,
        "clean_target_rate": clean_class_N == target,
    }
    for metric, hit_N in counted.items():
        yield Count(attack=attack, metric=metric, hits=_hits(hit_N & other_N), trials=trials)


def _hits(hit_N: NDArray[np.bool_]) -> int:
    return int(hit_N.sum())
