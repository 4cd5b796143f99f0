"""What was encoded → what is reported of one set of weights.

Clean pictures are those that no attack is after: a target picture was trained on, if only under
wrong captions, and is measured as a target alone.

Dimension key: N test pictures, M training pictures of the probe, C classes, K best of them, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.evaluation.attack_success import targeted_success, trigger_success
from roclip_sanitize.evaluation.counts import VARIANT, Count, Sample
from roclip_sanitize.evaluation.encoding import Arrays
from roclip_sanitize.evaluation.goals import Goals
from roclip_sanitize.evaluation.linear_probe import linear_probe
from roclip_sanitize.evaluation.retrieval import retrieval_ranks
from roclip_sanitize.evaluation.text_attacks import Asked, best_ranks, text_success

RETRIEVAL_CUTOFFS = (1, 5, 10)
TOP = 5


def classified(
    class_NK: NDArray[np.int64], label_N: NDArray[np.int64], *, prefix: str, classes: int
) -> Iterator[Count | Sample]:
    """Accuracy of what pictures were called: top-1, top-5, and the mean of the classes' recalls.

    Top-5 is left out where it takes in every class. The mean recall weighs every class the same that
    a picture shows, which is scikit-learn's balanced_accuracy_score.

    Args:
        class_NK: what pictures are called, best first.
        label_N: what they show.
        prefix: of the metrics' names.
        classes: how many there are to choose from.
    """
    hit_N = class_NK[:, 0] == label_N
    yield Count(attack=None, metric=f"{prefix}_top1", hits=int(hit_N.sum()), trials=len(label_N))
    if classes > TOP:
        among = (class_NK[:, :TOP] == label_N[:, None]).any(axis=1)
        yield Count(attack=None, metric=f"{prefix}_top{TOP}", hits=int(among.sum()), trials=len(label_N))
    name = "mean_per_class_recall" if prefix == "zero_shot" else f"{prefix}_mean_per_class_recall"
    yield Sample(attack=None, metric=name, value_N=hit_N.astype(np.float64), class_N=label_N)


def clean(seen: Arrays) -> NDArray[np.bool_]:
    """Which pictures show one of the classes and are no attack's target: (N,), empty if there are none."""
    shown_N: NDArray[np.bool_] = np.zeros(0, bool)
    if "label" in seen:
        shown_N = (seen["label"] >= 0) & ~seen["target"]
    return shown_N


def utility(seen: Arrays, *, classes: int) -> Iterator[Count | Sample]:
    """Zero-shot accuracy, and retrieval where pictures have captions."""
    shown_N = clean(seen)
    yield from classified(seen["top"][shown_N], seen["label"][shown_N], prefix="zero_shot", classes=classes)
    if "caption" in seen:
        clean_N = ~seen["target"]
        code_N = seen["code"][clean_N]
        rank_2N = retrieval_ranks(seen["image"][clean_N], seen["caption"][clean_N], code_N)
        for cutoff in RETRIEVAL_CUTOFFS:
            found = (rank_2N.ravel() < cutoff).astype(np.float64)
            group = np.tile(code_N, 2)  # both questions about a caption stand or fall together
            yield Sample(attack=None, metric=f"retrieval_r{cutoff}", value_N=found, group_N=group)


def own_caption_ranks(seen: Arrays) -> NDArray[np.int64]:
    """Ranks where nothing but a picture's own caption is right, as CLIP_benchmark counts: (2, N) int64."""
    clean_N = ~seen["target"]
    return retrieval_ranks(seen["image"][clean_N], seen["caption"][clean_N], np.arange(clean_N.sum()))


def probed(seen: Arrays, trained: Arrays, *, classes: int, seed: int) -> Iterator[Count | Sample]:
    """The linear probe's accuracy.

    Args:
        seen: the test pictures.
        trained: the training pictures, all labelled.
        classes: how many there are to choose from.
        seed: see linear_probe().
    """
    shown_N = clean(seen)
    class_NK = linear_probe(trained["image"], trained["label"], seen["image"][shown_N], most=TOP, seed=seed)
    yield from classified(class_NK, seen["label"][shown_N], prefix="linear_probe", classes=classes)


def attacked(
    seen: Arrays, targets_seen: Arrays, goals: Goals, classes: Sequence[str]
) -> Iterator[Count | Sample]:
    """What each attack achieved; attacks with several triggers as a whole, and trigger by trigger.

    Args:
        seen: the test pictures.
        targets_seen: what the targets are called, by their goals' numbers.
        goals: what the attacks want.
        classes: names of the classes.
    """
    yield from pooled(_pictures_attacked(seen, targets_seen, goals, classes))
    yield from pooled(_captions_attacked(seen, goals, classes))


def _pictures_attacked(
    seen: Arrays, targets_seen: Arrays, goals: Goals, classes: Sequence[str]
) -> Iterator[Count | Sample]:
    shown_N = clean(seen)
    label_N, top_NK = seen["label"][shown_N], seen["top"][shown_N]
    for number, (attack, targets) in enumerate(goals.targets):
        yield from targeted_success(
            attack,
            targets=targets,
            target_class_TK=targets_seen[f"target_top_{number}"],
            clean_class_NK=top_NK,
            label_N=label_N,
            classes=classes,
        )
    for number, (attack, goal) in enumerate(goals.backdoors):
        yield from _named(
            trigger_success(
                attack,
                target=classes.index(goal.target),
                triggered_class_N=seen[f"triggered_{number}"][shown_N],
                clean_class_N=top_NK[:, 0],
                label_N=label_N,
            ),
            goal.variant,
            alone=sum(name == attack for name, _ in goals.backdoors) == 1,
        )


def _captions_attacked(seen: Arrays, goals: Goals, classes: Sequence[str]) -> Iterator[Count | Sample]:
    if "caption" not in seen:
        return
    clean_N = ~seen["target"]
    label_N, image_ND, caption_ND = (seen[name][clean_N] for name in ("label", "image", "caption"))
    for number, (attack, goal) in enumerate(goals.text_backdoors):
        wanted_N = label_N == classes.index(goal.target)
        spoiled_ND = seen[f"spoiled_{number}"][clean_N][~wanted_N]
        what = f"{goal.target!r}, which captions of attack {attack!r} should find"
        yield from _named(
            text_success(
                attack,
                asked=Asked(
                    rank_Q=best_ranks(spoiled_ND, image_ND, wanted_N, wanted=what), asked_N=~wanted_N
                ),
                clean=Asked(rank_Q=best_ranks(caption_ND[~wanted_N], image_ND, wanted_N), asked_N=~wanted_N),
            ),
            goal.variant,
            alone=sum(name == attack for name, _ in goals.text_backdoors) == 1,
        )
    for attack, swap in goals.swaps:
        wanted_N, asked_N = label_N == classes.index(swap.shown), label_N == classes.index(swap.asked)
        other_N = ~asked_N & ~wanted_N
        what = f"{swap.shown!r}, which captions of attack {attack!r} should find"
        yield from _named(
            text_success(
                attack,
                asked=Asked(
                    rank_Q=best_ranks(caption_ND[asked_N], image_ND, wanted_N, wanted=what), asked_N=asked_N
                ),
                clean=Asked(rank_Q=best_ranks(caption_ND[other_N], image_ND, wanted_N), asked_N=other_N),
            ),
            f"{swap.asked}-{swap.shown}",
            alone=sum(name == attack for name, _ in goals.swaps) == 1,
        )


def _named(counted: Iterable[Count | Sample], variant: str, *, alone: bool) -> Iterator[Count | Sample]:
    """What was counted of one goal, for the attack; and for the goal too where the attack has others."""
    for one in counted:
        yield one
        if not alone:
            yield replace(one, attack=f"{one.attack}{VARIANT}{variant}")


def pooled(counted: Iterable[Count | Sample]) -> list[Count | Sample]:
    """One of each metric of each attack, in the order of the first: counts added up, samples joined."""
    found: dict[tuple[str | None, str], Any] = {}
    for one in counted:
        key = (one.attack, one.metric)
        found[key] = found[key] + one if key in found else one
    return list(found.values())
