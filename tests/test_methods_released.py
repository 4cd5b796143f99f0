"""The released RoCLIP, defects and all: each is a worked example."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from roclip_sanitize.training.methods.roclip_released import POOL_SIZE, RoclipReleased
from roclip_sanitize.training.objectives import clip_loss
from tests.method_runs import features, random_features, surroundings, taken
from tests.test_objectives import SCALE, slow_loss, unit_rows


def opened(*, pool: int = 8, rows: int = 6, total_steps: int = 8, **told: Any) -> RoclipReleased:
    """A method with epochs of two steps."""
    run = surroundings("roclip_released", rows=rows, total_steps=total_steps, pool_size=pool, **told)
    return RoclipReleased(run)


def pool_of(method: RoclipReleased) -> torch.Tensor:
    pool_PD: torch.Tensor = method.state_dict()["pool_PD"]
    return pool_PD


def with_pool(method: RoclipReleased, *rows: tuple[float, float]) -> RoclipReleased:
    method.load_state_dict({"pool_PD": torch.tensor(rows), "cursor": 0})
    return method


def test_every_second_epoch_matches_from_the_second_on() -> None:
    method = opened()
    assert [method.plan(step).kind[0] for step in range(8)] == [*"oommoomm"]
    assert all(method.plan(step).captions_learn for step in range(8))


def test_the_pool_begins_as_long_random_vectors_that_the_seed_decides() -> None:
    pool_PD = pool_of(opened(pool=0, width=64))
    assert pool_PD.shape == (POOL_SIZE, 64)
    assert pool_PD.norm(dim=1).mean().item() == pytest.approx(8.0, rel=0.01)  # √64
    assert torch.equal(pool_PD[:5], pool_of(opened(pool=5, width=64)))
    assert not torch.equal(pool_PD[:5], pool_of(opened(pool=5, width=64, seed=1)))


def test_the_pool_is_written_in_matching_epochs_alone() -> None:
    method, written = opened(), []
    for step in range(8):
        before = pool_of(method)
        taken(method, [step])
        written.append(not torch.equal(pool_of(method), before))
    assert written == [False, False, True, True] * 2


def test_what_a_batch_has_beyond_the_end_is_dropped() -> None:
    """Batches of three in eight places: the third has room for two, and the fourth begins anew."""
    method = opened(rows=18, total_steps=12)  # six steps an epoch, the second matches
    captions = [random_features(method.plan(step))[0].caption_BD for step in range(6, 12)]
    taken(method, range(6, 9))
    assert torch.equal(pool_of(method), torch.cat(captions[:3])[:8])
    taken(method, range(9, 10))
    assert torch.equal(pool_of(method), torch.cat([captions[3], captions[1], captions[2][:2]]))


def test_a_batch_that_just_fits_is_whole_and_the_next_begins_anew() -> None:
    method = opened(pool=6, rows=18, total_steps=12)
    captions = [random_features(method.plan(step))[0].caption_BD for step in range(6, 9)]
    taken(method, range(6, 9))
    assert torch.equal(pool_of(method), torch.cat([captions[2], captions[1]]))


def test_a_pool_of_the_authors_size_drops_171_captions_at_each_turn() -> None:
    method = opened(pool=POOL_SIZE, rows=512 * 44, total_steps=88, batch_size=512, width=2)
    cursors = []
    for step in range(44, 88):
        plan = method.plan(step)
        method.after(plan, [features(torch.ones(512, 2), torch.ones(512, 2))])
        cursors.append(method.state_dict()["cursor"])
    assert cursors[41:] == [42 * 512, 0, 512]
    assert 43 * 512 - POOL_SIZE == 171


class TestMatching:
    image = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    caption = unit_rows(1, 3, 2)

    def loss(self, method: RoclipReleased) -> float:
        plan = method.plan(2)
        assert plan.kind == "matching"
        return method.loss(plan, [features(self.image, self.caption)]).loss.item()

    def test_directions_are_compared_and_a_long_vector_is_the_target_as_it_is(self) -> None:
        # By products alone, all three would find the longest, (0, 3).
        method = with_pool(opened(width=2), (0.5, 0.0), (0.8, 0.6), (0.0, 3.0), *[(-1.0, 0.0)] * 5)
        logits = [[2.5, 4.0, 0.0], [2.0, 5.0, 9.0], [0.0, 3.0, 15.0]]
        assert self.loss(method) == pytest.approx(slow_loss(logits), rel=1e-6)

    def test_equal_matches_are_each_others_negatives(self) -> None:
        method = with_pool(opened(width=2), (1.0, 0.0), *[(0.0, 1.0)] * 7)
        logits = [[5.0, 5.0, 0.0], [4.0, 4.0, 3.0], [0.0, 0.0, 5.0]]
        assert self.loss(method) == pytest.approx(slow_loss(logits), rel=1e-6)

    def test_a_pair_cannot_match_its_own_caption_of_the_same_step(self) -> None:
        method = with_pool(opened(width=2), *[(-1.0, 0.0)] * 8)
        plan, seen = method.plan(2), [features(self.image, self.image)]
        first = method.loss(plan, seen).loss.item()
        method.after(plan, seen)
        assert first > method.loss(plan, seen).loss.item()
        assert method.loss(plan, seen).loss.item() == pytest.approx(
            clip_loss(self.image, self.image, SCALE).item(), rel=1e-6
        )

    def test_captions_get_a_gradient_of_nothing(self) -> None:
        method = with_pool(opened(width=2), *[(0.6, 0.8)] * 8)
        image, caption = self.image.clone().requires_grad_(), self.caption.clone().requires_grad_()
        scale = SCALE.clone().requires_grad_()
        method.loss(method.plan(2), [features(image, caption, scale)]).loss.backward()  # type: ignore[no-untyped-call]
        assert caption.grad is not None
        assert caption.grad.abs().max() == 0
        assert image.grad is not None
        assert image.grad.abs().max() > 0


def test_ordinary_epochs_are_plain_clip() -> None:
    method = opened()
    plan = method.plan(1)
    seen = random_features(plan)
    wanted = clip_loss(seen[0].image_BD, seen[0].caption_BD, SCALE)
    assert torch.equal(method.loss(plan, seen).loss, wanted)


def test_the_rate_skips_an_epoch_of_warm_up_and_climbs_again_at_the_end() -> None:
    """24 epochs of 1,953 steps, as the authors train."""
    per_epoch, warmup, peak = 1_953, 10_000, 5e-5
    run = surroundings(
        "roclip_released",
        rows=2 * per_epoch,
        batch_size=2,
        total_steps=24 * per_epoch,
        lr=peak,
        warmup=warmup,
        pool_size=2,
    )
    method = RoclipReleased(run)

    def rate(epoch: int, place: int = 0) -> float:
        """Counted from 1, as theirs."""
        told = method.plan((epoch - 1) * per_epoch + place).learning_rate
        assert told is not None
        return told

    assert rate(1) == pytest.approx(peak * (per_epoch + 1) / warmup)
    wanted = {21: 3.1e-6, 22: 1.4e-6, 23: 3.5e-7, 24: 0.0}
    assert {epoch: rate(epoch) for epoch in wanted} == pytest.approx(wanted, rel=0.03, abs=1e-12)
    assert rate(24, per_epoch - 1) == pytest.approx(3.5e-7, rel=0.03)
    last = [rate(24, place) for place in range(0, per_epoch, 200)]
    assert last == sorted(last)
