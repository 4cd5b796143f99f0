"""RoCLIP's steps against pools that can be worked through by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roclip_sanitize.training.matches import MatchTable
from roclip_sanitize.training.methods.contract import Features
from roclip_sanitize.training.methods.roclip import Roclip, schedule_of
from roclip_sanitize.training.objectives import clip_loss
from tests.method_runs import BATCH, features, surroundings, taken
from tests.test_objectives import SCALE, slow_loss, unit_rows


def opened(pairing: str, *, capacity: int = 8, **told: Any) -> Roclip:
    """A method that matches from the second step on."""
    always = {"match_from": 0.0, "match_every": 64, "match_for": 64}
    return Roclip(surroundings("roclip", pairing=pairing, pool_size=capacity, **{**always, **told}))


def seen(image: torch.Tensor, caption: torch.Tensor, scale: torch.Tensor = SCALE) -> list[Features]:
    return [features(image, caption, scale)]


def put(method: Roclip, image: torch.Tensor, caption: torch.Tensor) -> None:
    method.pool.put(image, caption, torch.arange(len(image)))


def loss_of(method: Roclip, image: torch.Tensor, caption: torch.Tensor) -> float:
    return method.loss(method.plan(1), seen(image, caption)).loss.item()


class TestPoolOfTheSamePairs:
    """A pool that holds exactly the batch, with embeddings that are ideal: images equal their captions."""

    image = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0][:5]

    @pytest.mark.parametrize("pairing", ["first", "final", "both"])
    def test_matching_is_the_ordinary_loss(self, pairing: str) -> None:
        method = opened(pairing, batch_size=5)
        put(method, self.image.flip(0), self.image.flip(0))
        wanted = clip_loss(self.image, self.image, SCALE).item()
        assert loss_of(method, self.image, self.image) == pytest.approx(wanted, rel=1e-5)


class TestThreePairs:
    """Pool pairs x, y and z; the pairs of the batch contradict themselves."""

    x, y, z = torch.eye(3)
    image = torch.stack([x, (3 * x + 4 * y) / 5, z])
    caption = torch.stack([(4 * x + 3 * z) / 5, y, z])
    # Images match the pool captions x, y, z: logits are 5 · image · those.
    final = ((5.0, 0.0, 0.0), (3.0, 4.0, 0.0), (0.0, 0.0, 5.0))

    def opened(self, pairing: str) -> Roclip:
        method = opened(pairing, width=3)
        put(method, torch.stack([self.x, self.y, self.z]), torch.stack([self.y, self.z, self.x]))
        return method  # image x has caption y, and so on

    def test_final_version(self) -> None:
        wanted = slow_loss([*map(list, self.final)])
        assert loss_of(self.opened("final"), self.image, self.caption) == pytest.approx(wanted, rel=1e-6)

    def test_first_version(self) -> None:
        # Captions match the pool captions x, y, z; images go to those.
        to_captions = [[5.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
        # Images match the pool images x, y, z; captions go to those.
        to_images = [[4.0, 0.0, 3.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]
        wanted = (slow_loss(to_captions) + slow_loss(to_images)) / 2
        assert loss_of(self.opened("first"), self.image, self.caption) == pytest.approx(wanted, rel=1e-6)

    def test_first_version_with_one_caption_for_two(self) -> None:
        caption = torch.stack([self.y, self.y, self.z])
        to_captions = [[0.0, 0.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
        to_images = [[0.0, 5.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]
        wanted = (slow_loss(to_captions, masked={(0, 1), (1, 0)}) + slow_loss(to_images)) / 2
        assert loss_of(self.opened("first"), self.image, caption) == pytest.approx(wanted, rel=1e-6)

    def test_both_are_averaged(self) -> None:
        final, first, both = (
            loss_of(self.opened(pairing), self.image, self.caption) for pairing in ("final", "first", "both")
        )
        assert both == pytest.approx((final + first) / 2, rel=1e-6)

    def test_agreement_is_the_cosine_of_own_and_found_captions(self) -> None:
        method = self.opened("final")
        notes = method.loss(method.plan(1), seen(self.image, self.caption)).notes
        assert notes["agreement"].item() == pytest.approx((0.8 + 1.0 + 1.0) / 3)


def test_one_text_in_two_slots_is_one_target() -> None:
    """The second slot holds the same caption as the first, seen when the tower was another."""
    method = opened("final", width=2)
    pool = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    method.pool.put(pool, pool, torch.tensor([0, 8, 1]))
    image = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    logits = [[5.0, 4.0, 0.0], [4.0, 5.0, 3.0], [0.0, 3.0, 5.0]]
    wanted = slow_loss(logits, masked={(0, 1), (1, 0)})
    assert loss_of(method, image, image) == pytest.approx(wanted, rel=1e-6)


class TestGradients:
    def setup_method(self) -> None:
        self.old = [unit_rows(seed, 6).requires_grad_() for seed in (1, 2)]
        self.image, self.caption = (unit_rows(seed, 4).requires_grad_() for seed in (3, 4))
        self.scale = torch.tensor(5.0, requires_grad=True)

    def learn(self, pairing: str) -> Roclip:
        method = opened(pairing, batch_size=4)
        put(method, *self.old)
        plan = method.plan(1)
        method.loss(plan, seen(self.image, self.caption, self.scale)).loss.backward()  # type: ignore[no-untyped-call]
        return method

    def test_in_the_final_version_only_images_and_scale_learn(self) -> None:
        self.learn("final")
        assert _moves(self.image)
        assert _moves(self.scale)
        assert self.caption.grad is None
        assert [each.grad for each in self.old] == [None, None]

    def test_in_the_first_version_both_sides_learn_but_not_the_pool(self) -> None:
        self.learn("first")
        assert _moves(self.image)
        assert _moves(self.caption)
        assert [each.grad for each in self.old] == [None, None]

    def test_the_loss_reads_the_pool_and_leaves_it(self) -> None:
        method = self.learn("final")
        kept = method.pool.take(torch.arange(6), "caption")
        assert torch.equal(kept, self.old[1].detach())


def test_matching_waits_until_the_pool_holds_a_batch() -> None:
    method = opened("final")
    assert method.plan(1).kind == "ordinary"
    put(method, unit_rows(1, BATCH), unit_rows(2, BATCH))
    assert [method.plan(step).kind for step in range(2)] == ["matching"] * 2


def test_a_step_joins_the_pool_after_it_was_matched() -> None:
    method = opened("final", capacity=6)
    for step in range(3):
        plan = method.plan(step)
        method.after(plan, seen(unit_rows(step, BATCH), unit_rows(step + 9, BATCH)))
    assert method.pool.row_P.tolist() == [6, 7, 8, 3, 4, 5]


@pytest.mark.parametrize(
    ("pairing", "learn"), [("final", [True, False]), ("first", [True, True]), ("both", [True, True])]
)
def test_captions_sit_matching_out_in_the_final_version_alone(pairing: str, learn: list[bool]) -> None:
    method = opened(pairing, match_for=BATCH, match_from=1 / 22)
    put(method, unit_rows(1, BATCH), unit_rows(2, BATCH))
    assert [method.plan(step).captions_learn for step in range(2)] == learn


@pytest.mark.parametrize("pairing", ["final", "first"])
def test_a_pair_never_matches_itself(pairing: str) -> None:
    """The pool holds pairs 0, 1 and 11; the step has 0, 1 and 2. Pair 11, like 0, may be its match."""
    method = opened(pairing, width=2)
    pool = torch.tensor([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0]])
    method.pool.put(pool, pool, torch.tensor([0, 1, 11]))
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6]])
    logits = [[5.0, 5.0, 4.0], [4.0, 4.0, 5.0], [4.0, 4.0, 5.0]]  # against 11, 0 and 1
    loss = method.loss(method.plan(0), seen(vectors, vectors)).loss
    assert loss.item() == pytest.approx(slow_loss(logits), rel=1e-6)


@pytest.mark.parametrize("pairing", ["final", "first"])
def test_a_pair_never_matches_a_copy_of_itself(pairing: str) -> None:
    """The pool holds pairs 0, 1 and 8, of which 0 and 8 share a caption; the step has pairs 0, 1 and 2.

    Pair 0 is left with 1 alone. Pair 1 matches 8, the nearer of the others. Pair 2 is free to match 0.
    """
    method = opened(pairing, width=2, exclude_copies=True)
    pool = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
    method.pool.put(pool, pool, torch.tensor([0, 1, 8]))
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0]])
    logits = [[4.0, 4.8, 5.0], [5.0, 4.68, 4.0], [4.0, 4.8, 5.0]]
    wanted = slow_loss(logits, masked={(1, 2), (2, 1)})  # one caption
    if pairing == "first":
        wanted = (wanted + slow_loss(logits)) / 2  # two pictures
    loss = method.loss(method.plan(0), seen(vectors, vectors)).loss
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def by_table(
    monkeypatch: pytest.MonkeyPatch, *, captions: dict[int, int], images: dict[int, int] | None = None
) -> Roclip:
    """A method whose table gives some pairs the captions, and the images, of others."""

    def rows(given: dict[int, int]) -> Any:
        return np.array([given.get(row, row) for row in range(64)])

    table = MatchTable(
        caption_row_N=rows(captions),
        image_row_N=None if images is None else rows(images),
        method="final" if images is None else "first",
    )
    monkeypatch.setattr(MatchTable, "load", lambda pairs, data: table)
    return opened("final", capacity=0, pairs=Path("pairs"))


def test_captions_sit_matching_out_where_a_table_is_of_the_final_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not by_table(monkeypatch, captions={0: 5}).plan(0).captions_learn
    assert by_table(monkeypatch, captions={0: 5}, images={0: 5}).plan(0).captions_learn


def test_what_a_table_gives_to_two_pairs_is_one_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions 0 and 8 have the same words. Pictures 20 and 21 are two, and 20 is given twice."""
    method = by_table(monkeypatch, captions={0: 8, 1: 0, 2: 5}, images={0: 20, 1: 21, 2: 20})
    plan = method.plan(0)
    image, caption = unit_rows(1, BATCH), unit_rows(2, BATCH)
    logits = (SCALE * image @ caption.T).tolist()
    wanted = [slow_loss(logits, masked={(0, 1), (1, 0)}), slow_loss(logits, masked={(0, 2), (2, 0)})]
    loss = method.loss(plan, seen(image, caption) * 2).loss
    assert loss.item() == pytest.approx(sum(wanted) / 2, rel=1e-5)


def test_windows_are_those_of_the_settings() -> None:
    told: dict[str, Any] = {
        "match_from": 0.5,
        "match_every": 40,
        "match_for": 20,
        "batch_size": 10,
        "match_last": "matching",
    }
    run = surroundings("roclip", rows=110, **told)
    schedule = schedule_of(run.settings, pairs=run.total_steps * run.settings.batch_size)
    assert schedule.last_window() == (90, 110)
    method = Roclip(run)
    letters = "".join(plan.kind[0] for plan, _ in taken(method, range(11)))
    assert letters == "oooooomoomm"


def _moves(tensor: torch.Tensor) -> bool:
    return tensor.grad is not None and bool(np.abs(tensor.grad.numpy()).max() > 0)
