"""Pictures among pictures, and what comes when: steps whose targets and kinds can be told by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roclip_sanitize.training.methods import open_method
from roclip_sanitize.training.methods.clip import Clip
from roclip_sanitize.training.methods.phases import Phased, phase_starts
from roclip_sanitize.training.methods.unimodal import Unimodal
from tests.method_runs import features, one_way, random_features, surroundings, taken
from tests.test_objectives import unit_rows
from tests.trainings import write_table


class TestUnimodal:
    x, y = torch.eye(2)
    image = torch.stack([x, (3 * x + 4 * y) / 5])
    other_image = torch.stack([(4 * x + 3 * y) / 5, y])
    caption = torch.stack([y, x])
    other_caption = torch.stack([y, (3 * x + 4 * y) / 5])

    def opened(self) -> Unimodal:
        return Unimodal(surroundings("unimodal", width=2, batch_size=2, pool_size=4))

    def loss(self, method: Unimodal) -> float:
        views = [features(self.image, self.caption), features(self.other_image, self.other_caption)]
        return method.loss(method.plan(1), views).loss.item()

    def test_the_target_of_the_second_view_is_what_the_first_finds(self) -> None:
        method = self.opened()
        method.pool.put(torch.stack([self.y, self.x]), torch.stack([self.y, self.y]), torch.tensor([0, 1]))
        # The pictures find x and y; both captions find y, the second of them at cosine 0.
        images = one_way([[4.0, 3.0], [0.0, 5.0]])
        captions = one_way([[5.0, 5.0], [4.0, 4.0]])
        assert self.loss(method) == pytest.approx((images + captions) / 2, rel=1e-6)

    def test_until_the_pool_holds_a_batch_it_is_the_first_view_itself(self) -> None:
        method = self.opened()
        method.pool.put(self.x[None], self.y[None], torch.tensor([0]))
        images = one_way([[4.0, 4.8], [0.0, 4.0]])
        captions = one_way([[5.0, 0.0], [4.0, 3.0]])
        assert self.loss(method) == pytest.approx((images + captions) / 2, rel=1e-6)

    def test_the_first_view_goes_to_the_pool(self) -> None:
        method = self.opened()
        plan = method.plan(1)
        assert [view.draw for view in plan.views] == [0, 1]
        views = [features(self.image, self.caption), features(self.other_image, self.other_caption)]
        method.after(plan, views)
        assert method.pool.row_P.tolist() == [2, 3, -1, -1]
        assert torch.equal(method.pool.take(torch.arange(2), "image"), self.image)
        assert torch.equal(method.pool.take(torch.arange(2), "caption"), self.caption)

    @pytest.mark.parametrize("filled", [0, 4])
    def test_only_the_second_view_learns(self, filled: int) -> None:
        method, views = self.opened(), [unit_rows(seed, 2, 2).requires_grad_() for seed in range(4)]
        method.pool.put(unit_rows(8, filled, 2), unit_rows(9, filled, 2), torch.arange(filled))
        loss = method.loss(method.plan(1), [features(*views[:2]), features(*views[2:])]).loss
        loss.backward()  # type: ignore[no-untyped-call]
        assert [view.grad is not None for view in views] == [False, False, True, True]

    @pytest.mark.parametrize("filled", [0, 4])
    def test_no_caption_ever_meets_a_picture(self, filled: int) -> None:
        """Whatever captions are, pictures learn the same, and the other way round."""
        method = self.opened()
        method.pool.put(unit_rows(8, filled, 2), unit_rows(9, filled, 2), torch.arange(filled))

        def gradients(image_seed: int, caption_seed: int) -> list[torch.Tensor]:
            views = [
                features(unit_rows(image_seed + view, 2, 2), unit_rows(caption_seed + view, 2, 2))
                for view in (0, 1)
            ]
            leaves = [views[1].image_BD.requires_grad_(), views[1].caption_BD.requires_grad_()]
            method.loss(method.plan(1), views).loss.backward()  # type: ignore[no-untyped-call]
            return [leaf.grad for leaf in leaves if leaf.grad is not None]

        (image, caption), (same_image, _), (_, same_caption) = (
            gradients(10, 20),
            gradients(10, 30),
            gradients(40, 20),
        )
        assert torch.equal(image, same_image)
        assert torch.equal(caption, same_caption)


@pytest.mark.parametrize(
    ("total", "warm_up", "gentle", "wanted"),
    [
        (32, 5 / 32, 1 / 32, (5, 6)),
        (10, 0.0, 0.0, (0, 0)),
        (10, 0.0, 0.3, (0, 3)),
        (4, 0.375, 0.375, (2, 3)),
        (3, 0.1, 0.1, (0, 1)),  # too short for either, long enough for both
    ],
)
def test_where_phases_start(total: int, warm_up: float, gentle: float, wanted: tuple[int, int]) -> None:
    assert phase_starts(total, warm_up=warm_up, gentle=gentle) == wanted


class TestPhased:
    """Three steps of warm-up, two gentle ones, and RoCLIP, which could match from the start."""

    def opened(self, method: str = "roclip", **told: Any) -> Phased:
        told |= {"warm_up_for": 0.3, "gentle_for": 0.2, "gentle_rate": 0.02}
        if method == "roclip":
            told |= {"match_from": 0.0, "match_every": 9, "match_for": 6}
        run = surroundings(method, total_steps=10, **told)
        phased = open_method(run)
        assert isinstance(phased, Phased)
        return phased

    def test_each_step_is_of_one_method(self) -> None:
        plans = [plan for plan, _ in taken(self.opened(), range(10))]
        kinds = ["unimodal"] * 3 + ["gentle"] * 2  # and windows as they would have been
        kinds += ["ordinary", "matching", "matching", "ordinary", "matching"]
        assert [plan.kind for plan in plans] == kinds
        assert [len(plan.views) for plan in plans] == [2] * 3 + [1] * 7
        assert [plan.rate for plan in plans] == [1.0] * 3 + [0.02] * 2 + [1.0] * 5

    def test_gentle_steps_are_plain_clip(self) -> None:
        run = surroundings("roclip", total_steps=10)
        gentle, plain = self.opened(), Clip(run)
        plan, wanted = gentle.plan(3), plain.plan(3)
        assert repr(plan.views) == repr(wanted.views)
        seen = random_features(plan)
        assert torch.equal(gentle.loss(plan, seen).loss, plain.loss(wanted, seen).loss)

    def test_the_method_wants_what_it_would_alone(self) -> None:
        assert not self.opened().keeps_beginning
        assert self.opened("par", pretrained="x").keeps_beginning

    def test_without_a_warm_up_no_augmentation_is_wanted(self) -> None:
        run = surroundings("clip", total_steps=10, gentle_for=0.2, augmentation="none")
        assert [open_method(run).plan(step).kind for step in range(3)] == ["gentle", "gentle", "ordinary"]

    def test_a_method_is_asked_for_its_own_steps_alone(self) -> None:
        asked: list[int] = []

        class Asking(Clip):
            def before(self, step: int, encode: Any) -> None:
                asked.append(step)

        run = surroundings("clip", total_steps=10)
        taken(Phased(run, Asking(run), gentle_from=3, method_from=5), range(10))
        assert asked == [5, 6, 7, 8, 9]


def test_pools_of_phases_are_apart() -> None:
    phased = TestPhased().opened(pool_size=9)
    taken(phased, range(6))
    state = phased.state_dict()
    assert np.unique(state["warm_up"]["row_P"]).tolist() == list(range(9))
    assert state["method"]["row_P"].tolist() == [15, 16, 17, *[-1] * 6]


class AskedTables:
    """Tables that are there as soon as they are asked for; in none of them anybody has a match."""

    def __init__(self, path: Path) -> None:
        self.windows = list[int]()
        self._table = write_table(path, [("0", "", "")])

    def ask(self, window: int) -> None:
        self.windows.append(window)

    def get(self, window: int) -> Path:
        assert window in self.windows, "a table that nobody asked for is waited for without end"
        return self._table


def test_a_window_whose_asking_falls_into_a_phase_has_its_table(tmp_path: Path) -> None:
    windows = {"match_from": 0.1, "match_every": 12, "match_for": 6}  # steps 1, 2, 5, 6 and 9
    told: dict[str, Any] = {"match_by": "index", **windows, "warm_up_for": 0.3, "gentle_for": 0.2}
    run = surroundings("roclip", total_steps=10, **told)
    run.data.uids = lambda: [str(row) for row in range(run.data.rows)]  # type: ignore[method-assign]
    tables = AskedTables(tmp_path)
    kinds = [plan.kind for plan, _ in taken(open_method(replace(run, tables=tables)), range(10))]
    assert kinds == ["unimodal"] * 3 + ["gentle"] * 2 + ["matching"] * 2 + ["ordinary"] * 2 + ["matching"]
    assert tables.windows == [1, 2], "and nothing is made for a window that nobody reads"
