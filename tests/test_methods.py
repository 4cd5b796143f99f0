"""Which method a run gets, what all of them promise, and the losses of the two that clean."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training import settings as told
from roclip_sanitize.training.methods import METHODS, open_method
from roclip_sanitize.training.methods.cleanclip import Cleanclip
from roclip_sanitize.training.methods.par import FAR_ENOUGH, Par
from roclip_sanitize.training.methods.phases import Phased
from roclip_sanitize.training.methods.roclip import Roclip
from roclip_sanitize.training.methods.safeclip import Safeclip
from roclip_sanitize.training.settings import TrainSettings
from tests.method_runs import encoding, features, one_way, same_plans, surroundings, taken
from tests.test_objectives import slow_loss

# Opening


def test_every_method_that_settings_allow_can_be_opened() -> None:
    assert set(METHODS) == set(told.METHODS) == set(get_args(told.Method))


def test_a_method_comes_bare_unless_something_comes_before_it() -> None:
    assert isinstance(open_method(surroundings("roclip")), Roclip)
    phased = open_method(surroundings("roclip", warm_up_for=0.25))
    assert isinstance(phased, Phased)
    assert isinstance(phased.method, Roclip)
    assert isinstance(open_method(surroundings("safeclip")), Phased)
    assert isinstance(open_method(surroundings("safeclip", warm_up_for=0.0, gentle_for=0.0)), Safeclip)


@pytest.mark.parametrize(
    ("method", "warm_up", "gentle"),
    [
        ("safeclip", 0.5, 0.5),
        ("safeclip", 0.99, 0.0),
        ("safeclip", 0.9, None),
        ("clip", 0.8, 0.8),
    ],
)
def test_phases_leave_the_method_a_step_or_are_refused(
    method: str, warm_up: float, gentle: float | None
) -> None:
    run = surroundings(method, total_steps=4, warm_up_for=warm_up, gentle_for=gentle)
    message = f"warm-up-for and gentle-for leave {method} no step to train in"
    with pytest.raises(ConfigError, match=message):
        open_method(run)


def test_phases_are_rounded_together() -> None:
    """Each is three halves of a step, which alone would be two."""
    method = open_method(surroundings("safeclip", total_steps=4, warm_up_for=0.375, gentle_for=0.375))
    assert [method.plan(step).kind for step in range(3)] == ["unimodal", "unimodal", "gentle"]


@pytest.mark.parametrize("method", ["unimodal", "safeclip", "cleanclip"])
def test_what_compares_two_views_wants_them_to_differ(method: str) -> None:
    with pytest.raises(ConfigError, match=r"augmentation is 'none', and .* compares two views"):
        open_method(surroundings(method, augmentation="none", pretrained="x"))


@pytest.mark.parametrize("method", ["cleanclip", "par"])
def test_a_cleaner_wants_a_model_to_clean(method: Any) -> None:
    with pytest.raises(ConfigError, match=f"method '{method}' cleans a model that was trained before"):
        TrainSettings(shards=(Path("a.tar"),), method=method)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"match_last": "never"}, "match-last is 'never', wanted one of '', matching, ordinary"),
        (
            {"match_last": "ordinary", "match_every": 128, "match_for": 65, "batch_size": 64},
            r"match-last is 'ordinary', but match-for \(65\) leaves no step between two windows",
        ),
    ],
)
def test_endings_that_make_no_sense(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(shards=(Path("a.tar"),), **setting)


def test_a_run_from_before_a_setting_existed_goes_on() -> None:
    assert not {"match_last", "exclude_copies"} & TrainSettings(shards=(Path("a.tar"),)).to_json().keys()


# What all of them promise

ROWS, STEPS = 24, 16  # two epochs of eight steps
EACH: dict[str, dict[str, Any]] = {
    "clip": {},
    "roclip": {"match_from": 0.2, "match_every": 12, "match_for": 6, "pool_size": 7},
    "roclip_released": {"pool_size": 7},
    "unimodal": {"pool_size": 7},
    "safeclip": {"warm_up_for": 0.2, "gentle_for": 0.1, "pool_size": 7},
    "consensus": {"rewritten": 0.5, "doubtful": 0.2},
    "cleanclip": {"pretrained": "x"},
    "par": {"pretrained": "x"},
}
KEEPERS = ["roclip", "roclip_released", "unimodal", "safeclip", "consensus"]
COSINES = [0.1 if row % 3 else 0.8 + row / 1000 for row in range(ROWS)]


@pytest.mark.parametrize("name", KEEPERS)
def test_a_run_that_was_killed_at_any_step_goes_on_as_if_nothing_had_happened(name: str) -> None:
    run = surroundings(name, rows=ROWS, total_steps=STEPS, **EACH[name])
    whole = open_method(run)
    states, wanted = [], []
    for step in range(STEPS):
        file = io.BytesIO()
        torch.save(whole.state_dict(), file)
        states.append(file)
        wanted += taken(whole, [step], encoding(COSINES))
    for killed in range(1, STEPS):
        states[killed].seek(0)
        resumed = open_method(run)
        resumed.load_state_dict(torch.load(states[killed], weights_only=True))
        steps = range(killed, min(killed + 2, STEPS))
        for (plan, loss), (wanted_plan, wanted_loss) in zip(
            taken(resumed, steps, encoding(COSINES)), wanted[killed:], strict=False
        ):
            assert same_plans(plan, wanted_plan)
            assert loss == wanted_loss


@pytest.mark.parametrize("name", KEEPERS)
def test_what_is_kept_is_a_copy(name: str) -> None:
    run = surroundings(name, rows=ROWS, total_steps=STEPS, **EACH[name])
    method = open_method(run)
    taken(method, range(9), encoding(COSINES))
    state = method.state_dict()
    before = repr(state)
    taken(method, range(9, STEPS), encoding(COSINES))
    assert repr(state) == before


@pytest.mark.parametrize("name", EACH)
def test_steps_show_whole_batches_of_known_rows(name: str) -> None:
    method = open_method(surroundings(name, rows=ROWS, total_steps=STEPS, **EACH[name]))
    for step in range(STEPS):
        method.before(step, encoding(COSINES))
        plan = method.plan(step)
        assert plan.step == step
        for view in plan.views:
            assert len(view.image_row_B) == len(view.caption_row_B) == len(plan.row_B) == 3
        assert len(set(plan.row_B.tolist())) == 3
        assert len({view.draw for view in plan.views}) == len(plan.views), "each view is augmented anew"


# Those that clean

PLAIN = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
OTHER = torch.tensor([[0.0, 1.0], [0.8, 0.6]])


def test_cleanclip_by_hand() -> None:
    method = Cleanclip(surroundings("cleanclip", pretrained="x"))
    plan = method.plan(0)
    assert [view.augmentation for view in plan.views] == ["none", "mild"]
    objective = method.loss(plan, [features(PLAIN, OTHER), features(OTHER, OTHER)])
    inmodal = (one_way([[0.0, 4.0], [4.0, 4.8]]) + one_way([[5.0, 3.0], [3.0, 5.0]])) / 2
    contrast = slow_loss([[0.0, 4.0], [4.0, 4.8]])
    assert objective.loss.item() == pytest.approx(contrast + inmodal, rel=1e-6)
    assert objective.notes["inmodal"].item() == pytest.approx(inmodal, rel=1e-6)


class TestPar:
    """Pictures moved by squared distances 2 and 0.08, captions stayed or turned around."""

    method = Par(surroundings("par", pretrained="x"))
    contrast = slow_loss([[0.0, 4.0], [4.0, 4.8]])

    def loss(self, *, before: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, dict[str, float]]:
        (view,) = self.method.plan(0).views
        assert view.augmentation == "mild"
        objective = self.method.loss(self.method.plan(0), [features(PLAIN, OTHER, before=before)])
        return objective.loss.item(), {name: note.item() for name, note in objective.notes.items()}

    def test_it_moves_away_from_where_it_began(self) -> None:
        assert self.method.keeps_beginning
        loss, notes = self.loss(before=(OTHER, OTHER))
        assert notes == pytest.approx({"image_moved": (2 + 0.08) / 2, "caption_moved": 0.0})
        assert loss == pytest.approx(self.contrast - 1.04 / 2, rel=1e-6)

    def test_far_enough_is_let_go(self) -> None:
        loss, notes = self.loss(before=(OTHER, -OTHER))
        assert notes["caption_moved"] == pytest.approx(4.0)
        assert notes["caption_moved"] > FAR_ENOUGH
        assert loss == pytest.approx(self.contrast - 1.04 / 2, rel=1e-6)
