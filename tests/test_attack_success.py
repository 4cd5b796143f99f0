"""What attacks achieved: small examples counted by hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from roclip_sanitize.attacks.contract import Target
from roclip_sanitize.evaluation.attack_success import Count, targeted_success, trigger_success

CLASSES = ("shoe", "hat", "scarf")
SHOE, HAT, SCARF = range(3)


def counted(counts: Iterable[Count]) -> dict[str, tuple[int, int]]:
    """Metric → hits and trials."""
    return {count.metric: (count.hits, count.trials) for count in counts}


def test_a_trigger_is_judged_on_pictures_of_other_classes() -> None:
    found = trigger_success(
        "patch",
        target=HAT,
        #                    shoe, shoe, hat,  scarf, scarf
        label_N=np.array([SHOE, SHOE, HAT, SCARF, SCARF]),
        triggered_class_N=np.array([HAT, SHOE, HAT, HAT, SHOE]),
        clean_class_N=np.array([SHOE, SHOE, HAT, HAT, SCARF]),
    )
    assert counted(found) == {
        "attack_success": (2, 4),  # one shoe and one scarf; the hat is one anyway
        "true_class_accuracy": (1, 4),
        "clean_target_rate": (1, 4),  # a scarf that was called a hat without any trigger
    }


def test_a_trigger_without_a_picture_of_another_class_has_no_trial() -> None:
    hats = np.array([HAT, HAT])
    found = trigger_success("patch", target=HAT, label_N=hats, triggered_class_N=hats, clean_class_N=hats)
    assert set(counted(found).values()) == {(0, 0)}


def test_targets_are_judged_each_by_its_own_class() -> None:
    found = targeted_success(
        "targeted",
        targets=[
            Target(uid="1", true_label="shoe", adversarial="hat"),
            Target(uid="2", true_label="shoe", adversarial="scarf"),
            Target(uid="3", true_label="hat", adversarial="scarf"),
        ],
        target_class=np.array([HAT, SHOE, HAT]),
        label_N=np.array([SHOE, HAT, SCARF, SHOE]),
        clean_class_N=np.array([HAT, HAT, SCARF, SCARF]),
        classes=CLASSES,
    )
    assert counted(found) == {
        "attack_success": (1, 3),  # the first
        "true_class_accuracy": (2, 3),  # the other two
        # As hat: shoe, scarf and shoe, of which one is called so. As scarf, twice: shoe, hat and
        # shoe, of which one is called so.
        "clean_target_rate": (1 + 1 + 1, 3 + 3 + 3),
    }


def test_counts_carry_the_name_of_the_attack() -> None:
    one = np.array([SHOE])
    found = list(trigger_success("patch", target=HAT, label_N=one, triggered_class_N=one, clean_class_N=one))
    assert {count.attack for count in found} == {"patch"}
