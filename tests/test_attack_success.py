"""What attacks achieved: small examples counted by hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from roclip_sanitize.attacks.contract import Target
from roclip_sanitize.evaluation.attack_success import targeted_success, trigger_success
from roclip_sanitize.evaluation.counts import Count
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.evaluation.results import Result

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
        target_class_TK=np.array([[HAT], [SHOE], [HAT]]),
        label_N=np.array([SHOE, HAT, SCARF, SHOE]),
        clean_class_NK=np.array([[HAT], [HAT], [SCARF], [SCARF]]),
        classes=CLASSES,
    )
    assert counted(found) == {
        "attack_success": (1, 3),  # the first
        "true_class_accuracy": (2, 3),  # the other two
        # As hat: shoe, scarf and shoe, of which one is called so. As scarf, twice: shoe, hat and
        # shoe, of which one is called so.
        "clean_target_rate": (1 + 1 + 1, 3 + 3 + 3),
    }


def test_a_target_may_be_reached_among_the_best_three_or_five() -> None:
    classes = ("a", "b", "c", "d", "e", "f")
    found = targeted_success(
        "targeted",
        targets=[
            Target(uid="1", true_label="a", adversarial="f"),
            Target(uid="2", true_label="b", adversarial="e"),
            Target(uid="3", true_label="c", adversarial="d"),
        ],
        target_class_TK=np.array(
            [
                [5, 0, 1, 2, 3],  # f is first
                [1, 2, 4, 0, 3],  # e is third
                [2, 1, 0, 4, 3],  # d is fifth
            ]
        ),
        label_N=np.array([0, 5]),
        clean_class_NK=np.array(
            [
                [0, 1, 2, 3, 4],  # d and e within five, none within three
                [5, 4, 0, 1, 2],  # e within three; shows f itself, so that f does not count
            ]
        ),
        classes=classes,
    )
    assert counted(found) == {
        "attack_success": (1, 3),
        "attack_success_top3": (2, 3),
        "attack_success_top5": (3, 3),
        "true_class_accuracy": (2, 3),
        # f is asked of the first picture only; e and d of both
        "clean_target_rate": (0, 1 + 2 + 2),
        "clean_target_rate_top3": (1, 5),
        "clean_target_rate_top5": (3, 5),
    }


def test_a_cut_off_that_takes_in_every_class_is_left_out() -> None:
    found = targeted_success(
        "targeted",
        targets=[Target(uid="1", true_label="shoe", adversarial="hat")],
        target_class_TK=np.array([[HAT, SHOE, SCARF]]),
        label_N=np.array([SHOE]),
        clean_class_NK=np.array([[SHOE, HAT, SCARF]]),
        classes=CLASSES,
    )
    assert set(counted(found)) == {"attack_success", "clean_target_rate", "true_class_accuracy"}


def test_counts_carry_the_name_of_the_attack() -> None:
    one = np.array([SHOE])
    found = list(trigger_success("patch", target=HAT, label_N=one, triggered_class_N=one, clean_class_N=one))
    assert {count.attack for count in found} == {"patch"}


def test_a_picture_that_is_asked_about_for_each_target_is_one_piece_of_evidence() -> None:
    rng, covered = np.random.default_rng(1), 0
    targets = [Target(uid=str(number), true_label="scarf", adversarial="shoe") for number in range(16)]
    for _ in range(200):
        label_N, named_N = rng.integers(3, size=(2, 120))  # nobody learnt anything: a third of each
        found = targeted_success(
            "targeted",
            targets=targets,
            target_class_TK=np.zeros((16, 1), np.int64),
            clean_class_NK=named_N[:, None],
            label_N=label_N,
            classes=CLASSES,
        )
        control = next(one for one in found if one.metric == "clean_target_rate")
        result = Result.of(control, arm="a", seed=0)
        assert result.n == 16 * (label_N != SHOE).sum()
        covered += result.low <= 1 / 3 <= result.high
    assert 0.91 <= covered / 200 <= 0.99


def test_several_triggers_on_one_picture_are_one_piece_of_evidence() -> None:
    label_N = np.repeat([SHOE, HAT], 30)
    named_N = np.where(np.arange(60) % 3, label_N, SCARF)
    told = {"label_N": label_N, "triggered_class_N": named_N, "clean_class_N": label_N}
    alone = next(trigger_success("many", target=SCARF, **told))
    together = Result.of(alone + alone + alone, arm="a", seed=0)
    assert (together.value, together.n) == (1 / 3, 180)
    assert (together.low, together.high) == pytest.approx(wilson(20, 60), abs=0.02)
    assert Result.of(alone, arm="a", seed=0).low == wilson(20, 60)[0]
