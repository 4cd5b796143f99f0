"""SafeCLIP's split and its epochs: mixtures made by hand, and orders that properties hold for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.errors import DataError
from roclip_sanitize.training.methods import safeclip
from roclip_sanitize.training.methods.contract import StepPlan
from roclip_sanitize.training.methods.safeclip import Safeclip, clean_posterior, most_likely, safest
from tests.method_runs import encoding, features, random_features, surroundings
from tests.test_objectives import slow_loss

# The split


def mixture(low: int, high: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Cosines around 0.1 and around 0.6, the low ones first."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0.1, 0.05, low), rng.normal(0.6, 0.05, high)])


def test_the_posterior_is_that_of_the_mixture_that_cosines_were_drawn_from() -> None:
    cosine_N = mixture(3_000, 1_000)
    probe = np.array([0.1, 0.3, 0.33, 0.38, 0.4, 0.6])
    density = [
        share * np.exp(-((probe - mean) ** 2) / (2 * 0.05**2)) for share, mean in ((0.75, 0.1), (0.25, 0.6))
    ]
    wanted = density[1] / (density[0] + density[1])
    found = clean_posterior(np.concatenate([cosine_N, probe]))[-len(probe) :]
    assert np.abs(found - wanted).max() < 0.02
    assert (found >= 0.9).tolist() == [False, False, False, True, True, True]


def test_a_fit_to_some_judges_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cosine_N = np.random.default_rng(1).permutation(mixture(300, 100))
    of_all = clean_posterior(cosine_N) >= 0.9
    monkeypatch.setattr(safeclip, "FITTED_TO", 150)  # every third
    assert ((clean_posterior(cosine_N) >= 0.9) == of_all).mean() > 0.99


@pytest.mark.parametrize("cosine", [0.0, 0.3, -1.0])
def test_equal_cosines_tell_nothing_apart(cosine: float) -> None:
    assert clean_posterior(np.full(50, cosine)).tolist() == [0.0] * 50


def test_two_values_are_two_kinds() -> None:
    assert clean_posterior(np.array([0.1, 0.9] * 4)).round().tolist() == [0.0, 1.0] * 4


def test_first_those_that_probably_are_clean_and_then_a_share() -> None:
    cosine_N = mixture(60, 40)
    assert np.flatnonzero(safest(cosine_N, None)).tolist() == list(range(60, 100))
    assert safest(cosine_N, 0.5).sum() == 50
    assert safest(cosine_N, 0.5)[60:].all()


def test_equal_posteriors_go_by_cosine_and_then_by_row() -> None:
    posterior = np.array([1.0, 1.0, 0.5, 1.0, 0.9, 1.0])
    cosine = np.array([0.2, 0.3, 0.9, 0.3, 0.1, 0.2])
    for count, rows in enumerate([[], [1], [1, 3], [0, 1, 3], [0, 1, 3, 5], [0, 1, 3, 4, 5]]):
        assert np.flatnonzero(most_likely(posterior, cosine, count / 6)).tolist() == rows


class TestGrowth:
    ROWS = 100

    def shares(self, *, high: int, epochs: int) -> list[int]:
        """Pairs that are safe in each epoch."""
        method = Safeclip(surroundings("safeclip", rows=self.ROWS, total_steps=33 * epochs))
        counts = []
        for epoch in range(epochs):
            method.before(
                33 * epoch, encoding([0.01 * (row >= self.ROWS - high) for row in range(self.ROWS)])
            )
            counts.append(int(method.state_dict()["safe_N"].sum()))
        return counts

    def test_a_hundredth_each_epoch(self) -> None:
        assert self.shares(high=20, epochs=4) == [20, 21, 22, 23]

    def test_up_to_a_ceiling(self) -> None:
        assert self.shares(high=83, epochs=5) == [83, 84, 85, 85, 85]

    def test_a_first_split_above_it_comes_down(self) -> None:
        assert self.shares(high=95, epochs=3) == [95, 85, 85]

    def test_while_none_is_safe_the_first_split_is_tried_again(self) -> None:
        assert self.shares(high=0, epochs=3) == [0, 0, 0]

    def test_only_the_beginning_of_an_epoch_judges(self) -> None:
        method = Safeclip(surroundings("safeclip", rows=self.ROWS), start=5)
        for step in (6, 20, 37):
            method.before(step, encoding([]))  # would fail
        method.before(38, encoding([0.01 * (row > 9) for row in range(self.ROWS)]))
        assert method.state_dict()["safe_N"].sum() == 90

    def test_vectors_that_are_no_numbers_end_the_run(self) -> None:
        method = Safeclip(surroundings("safeclip", rows=4))
        with pytest.raises(DataError, match=r"no longer numbers at step 0: lower --lr \(now 0\.001\)"):
            method.before(0, encoding([0.1, 0.2, float("nan"), 0.3]))


# An epoch


def epoch_of(
    safe: Sequence[bool], *, batch: int, epoch: int = 0, start: int = 0, total_steps: int | None = None
) -> list[StepPlan]:
    """The plans of an epoch in which some rows are safe."""
    steps = len(safe) // batch
    run = surroundings(
        "safeclip",
        rows=len(safe),
        batch_size=batch,
        total_steps=start + (epoch + 1) * steps if total_steps is None else total_steps,
    )
    method = Safeclip(run, start=start)
    kept = {**method.state_dict(), "safe_N": torch.tensor(safe), "share": float(np.mean(safe))}
    method.load_state_dict(kept)
    first = start + epoch * steps
    return [method.plan(step) for step in range(first, min(first + steps, run.total_steps))]


def letters(plans: Sequence[StepPlan]) -> str:
    """One for each step: u for unimodal, o for ordinary."""
    return "".join(plan.kind[0] for plan in plans)


@pytest.mark.parametrize(
    ("risky", "safe", "wanted"),
    [
        pytest.param(10, 10, "uuooo", id="risky pairs first; what they leave of a batch, safe ones fill"),
        pytest.param(8, 12, "uuooo", id="whole batches"),
        pytest.param(20, 0, "uuuuu", id="none safe"),
        pytest.param(17, 3, "uuuuu", id="less than a batch safe"),
        pytest.param(16, 4, "uuuuo", id="one batch safe"),
        pytest.param(3, 17, "ooooo", id="less than a batch risky"),
        pytest.param(0, 20, "ooooo", id="all safe"),
    ],
)
def test_the_steps_of_an_epoch(risky: int, safe: int, wanted: str) -> None:
    assert letters(epoch_of([False] * risky + [True] * safe, batch=4)) == wanted


@pytest.mark.parametrize(
    ("left", "wanted"), [(10, "uuuuuuoooo"), (5, "uuuoo"), (4, "uuoo"), (2, "uo"), (1, "o")]
)
def test_an_epoch_that_the_run_ends_within_keeps_its_proportions(left: int, wanted: str) -> None:
    safe = [False] * 24 + [True] * 16
    assert letters(epoch_of(safe, batch=4, total_steps=left)) == wanted
    assert letters(epoch_of(safe, batch=4, start=3, epoch=2, total_steps=23 + left)) == wanted


@given(
    safe=st.lists(st.booleans(), min_size=2, max_size=60),
    batch=st.integers(2, 9),
    epoch=st.integers(0, 2),
    start=st.integers(0, 5),
    data=st.data(),
)
def test_what_an_epoch_shows(
    safe: list[bool], batch: int, epoch: int, start: int, data: st.DataObject
) -> None:
    steps = len(safe) // batch
    if not steps:
        return
    left = data.draw(st.integers(1, steps))
    total = start + epoch * steps + left
    plans = epoch_of(safe, batch=batch, epoch=epoch, start=start, total_steps=total)
    assert len(plans) == left
    assert letters(plans) == "".join(sorted(letters(plans), reverse=True)), "risky, then safe"
    assert [len(set(plan.row_B.tolist())) for plan in plans] == [batch] * left
    risky = [row for plan in plans if plan.kind == "unimodal" for row in plan.row_B]
    assert len(set(risky)) == len(risky), "at most once"
    trusted = [row for plan in plans if plan.kind == "ordinary" for row in plan.row_B]
    assert all(safe[row] for row in trusted), "no risky caption ever meets its picture"
    if sum(safe) >= batch:
        assert trusted
        assert not any(safe[row] for row in risky)
        if left == steps:
            assert len(set(trusted)) >= sum(safe) - sum(safe) % batch, "but for what is left of a batch"
            assert len(risky) > len(safe) - sum(safe) - batch


def test_epochs_have_orders_of_their_own() -> None:
    safe = [row % 2 == 0 for row in range(24)]
    first, again, second = (
        [plan.row_B.tolist() for plan in epoch_of(safe, batch=3, epoch=epoch)] for epoch in (0, 0, 1)
    )
    assert first == again != second


# A step


def test_each_views_pictures_go_to_the_others_captions() -> None:
    method = Safeclip(surroundings("safeclip", width=2, batch_size=2, rows=4))
    method.before(0, encoding([0.9, 0.9, 0.1, 0.1]))
    assert method.plan(0).kind == "unimodal"
    plan = method.plan(1)
    assert (plan.kind, plan.row_B.tolist()) == ("ordinary", [0, 1])
    assert [(view.draw, view.augmentation) for view in plan.views] == [(0, "mild"), (1, "mild")]
    x, y = torch.eye(2)
    slanted = (3 * x + 4 * y) / 5
    one = features(torch.stack([x, y]), torch.stack([y, slanted]))
    other = features(torch.stack([slanted, x]), torch.stack([x, y]))
    across = slow_loss([[5.0, 0.0], [0.0, 5.0]])  # first pictures, second captions
    back = slow_loss([[4.0, 5.0], [0.0, 3.0]])  # second pictures, first captions
    objective = method.loss(plan, [one, other])
    assert objective.loss.item() == pytest.approx((across + back) / 2, rel=1e-6)
    assert objective.notes["safe"].item() == 0.5


def test_risky_steps_are_unimodal_ones() -> None:
    """They fill the pool that the next one searches; safe steps leave it alone."""
    method = Safeclip(surroundings("safeclip", rows=12, pool_size=3))
    method.before(0, encoding([0.9] * 6 + [0.1] * 6))
    pools = []
    for step in range(4):
        plan = method.plan(step)
        method.after(plan, random_features(plan))
        pools.append(method.state_dict()["pool"]["row_P"].tolist())
    assert sorted(pools[0] + pools[1]) == [6, 7, 8, 9, 10, 11]
    assert pools[1] == pools[2] == pools[3]
