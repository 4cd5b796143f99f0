"""What each planted attack achieved.

    attack_success       share of attacked pictures that the model calls by the target's name:
                         the target pictures themselves, or all test pictures of other classes
                         with the trigger on them
    clean_target_rate    share of clean test pictures of other classes that it calls so anyway
    true_class_accuracy  share of the attacked pictures that it still calls by their own name

For chosen pictures (the targeted poisoning of Carlini & Terzis 2022) there are attack_success_top3
and _top5 too: the adversarial class is among the model's three, or five, best. Each has its control,
clean_target_rate_top3 and _top5. A clean picture is asked once for each target, and a test picture
once for each trigger of an attack: what it answers is one piece of evidence all the same.

Dimension key: N test pictures, T target pictures, C classes, K best of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.contract import Target
from roclip_sanitize.evaluation.counts import Count

TARGETED_CUTOFFS = (1, 3, 5)


def targeted_success(
    attack: str,
    *,
    targets: Sequence[Target],
    target_class_TK: NDArray[np.int64],
    clean_class_NK: NDArray[np.int64],
    label_N: NDArray[np.int64],
    classes: Sequence[str],
) -> Iterator[Count]:
    """An attack on chosen pictures.

    A cut-off that takes in every class says nothing, and is left out.

    Args:
        attack: its name.
        targets: the pictures' true and adversarial classes.
        target_class_TK: what the model calls each of them, best first; see top_classes().
        clean_class_NK: what it calls each clean test picture, best first.
        label_N: what those really are.
        classes: names of the classes, by number.
    """
    number = {name: index for index, name in enumerate(classes)}
    adversarial_T = np.array([number[target.adversarial] for target in targets])
    true_T = np.array([number[target.true_label] for target in targets])
    asked_of = [
        (index, int(times))
        for index, times in zip(*np.unique(adversarial_T, return_counts=True), strict=True)
    ]
    trials_N = sum(
        (times * (label_N != index) for index, times in asked_of), np.zeros(len(label_N), np.int64)
    )
    for cutoff in TARGETED_CUTOFFS:
        if cutoff > 1 and cutoff >= len(classes):
            continue
        suffix = f"_top{cutoff}" if cutoff > 1 else ""
        yield Count(
            attack=attack,
            metric=f"attack_success{suffix}",
            hits=_hits(_among(target_class_TK, adversarial_T, cutoff)),
            trials=len(targets),
        )
        hits_N = np.zeros(len(label_N), np.int64)
        for index, times in asked_of:
            hits_N += times * (_among(clean_class_NK, index, cutoff) & (label_N != index))
        yield Count.of_groups(attack, f"clean_target_rate{suffix}", hits_N, trials_N)
    yield Count(
        attack=attack,
        metric="true_class_accuracy",
        hits=_hits(target_class_TK[:, 0] == true_T),
        trials=len(targets),
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
    counted: Mapping[str, NDArray[np.bool_]] = {
        "attack_success": triggered_class_N == target,
        "true_class_accuracy": triggered_class_N == label_N,
        "clean_target_rate": clean_class_N == target,
    }
    for metric, hit_N in counted.items():
        yield Count.of_groups(attack, metric, hit_N & other_N, other_N)


def _among(
    class_NK: NDArray[np.int64], wanted: NDArray[np.int64] | np.int64, cutoff: int
) -> NDArray[np.bool_]:
    """Whether each row's class, or the one class, is among the row's best."""
    wanted_N1 = np.reshape(wanted, (-1, 1))
    among_N: NDArray[np.bool_] = (class_NK[:, :cutoff] == wanted_N1).any(axis=1)
    return among_N


def _hits(hit_N: NDArray[np.bool_]) -> int:
    return int(hit_N.sum())
