"""The losses, by hand and against open_clip's. What must not learn in a training step: test_train.py."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pytest
import torch

from roclip_sanitize.training.objectives import clip_loss, matched_loss, roclip_final_loss, roclip_first_loss
from roclip_sanitize.training.pool import PairPool

SCALE = torch.tensor(5.0)


def unit_rows(seed: int, rows: int, width: int = 8) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors)


def slow_loss(logits: list[list[float]], masked: Collection[tuple[int, int]] = ()) -> float:
    """Mean cross-entropy of the diagonal along rows and along columns, without the masked places."""
    size, total = len(logits), 0.0
    for own in range(size):
        row = [logits[own][other] for other in range(size) if (own, other) not in masked]
        column = [logits[other][own] for other in range(size) if (other, own) not in masked]
        total += sum(math.log(sum(map(math.exp, line))) - logits[own][own] for line in (row, column))
    return total / (2 * size)


def test_the_ordinary_loss_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    caption = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # logits [[5, 3], [0, 4]]
    assert clip_loss(image, caption, SCALE).item() == pytest.approx(slow_loss([[5, 3], [0, 4]]), rel=1e-6)


@pytest.mark.slow
def test_the_ordinary_loss_is_that_of_open_clip() -> None:
    from open_clip.loss import ClipLoss  # slow to import

    image, caption = unit_rows(1, 12), unit_rows(2, 12)
    wanted = ClipLoss()(image, caption, SCALE)
    assert clip_loss(image, caption, SCALE).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_targets_that_differ_are_an_ordinary_batch() -> None:
    image, target = unit_rows(1, 6), unit_rows(2, 6)
    assert matched_loss(image, target, SCALE).item() == pytest.approx(clip_loss(image, target, SCALE).item())


def test_equal_targets_are_not_each_others_negatives() -> None:
    query = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    logits = [[5.0, 5.0, 0.0], [4.0, 4.0, 3.0], [0.0, 0.0, 5.0]]
    wanted = slow_loss(logits, masked={(0, 1), (1, 0)})
    assert matched_loss(query, target, SCALE).item() == pytest.approx(wanted, rel=1e-6)
    assert wanted < slow_loss(logits)


def test_a_batch_with_one_target_for_all_has_nothing_to_tell_apart() -> None:
    target = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    assert matched_loss(unit_rows(1, 4, 2), target, SCALE).item() == pytest.approx(0.0)


class TestPoolOfTheSamePairs:
    """A pool that holds exactly the batch, with embeddings that are ideal: images equal their captions."""

    image = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0][:5]
    caption = image.clone()
    pool = PairPool(5, 8)
    pool.put(image.flip(0), caption.flip(0))

    def test_the_final_version_is_the_ordinary_loss(self) -> None:
        found = roclip_final_loss(self.image, self.pool, SCALE)
        assert found.item() == pytest.approx(clip_loss(self.image, self.caption, SCALE).item(), rel=1e-5)

    def test_so_is_the_first_version(self) -> None:
        found = roclip_first_loss(self.image, self.caption, self.pool, SCALE)
        assert found.item() == pytest.approx(clip_loss(self.image, self.caption, SCALE).item(), rel=1e-5)


class TestThreePairs:
    """Pool pairs x, y and z; the pairs of the batch contradict themselves."""

    x, y, z = torch.eye(3)
    pool = PairPool(3, 3)
    pool.put(torch.stack([x, y, z]), torch.stack([y, z, x]))  # image x has caption y, and so on
    image = torch.stack([x, (3 * x + 4 * y) / 5, z])
    caption = torch.stack([(4 * x + 3 * z) / 5, y, z])

    def test_final_version(self) -> None:
        # Nearest captions of the images: x, y, z. Logits are 5 · image · those.
        logits = [[5.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
        found = roclip_final_loss(self.image, self.pool, SCALE)
        assert found.item() == pytest.approx(slow_loss(logits), rel=1e-6)

    def test_first_version(self) -> None:
        # Captions match the pool captions x, y, z; images go to those.
        to_captions = [[5.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
        # Images match the pool images x, y, z; captions go to those.
        to_images = [[4.0, 0.0, 3.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]
        found = roclip_first_loss(self.image, self.caption, self.pool, SCALE)
        assert found.item() == pytest.approx((slow_loss(to_captions) + slow_loss(to_images)) / 2, rel=1e-6)

    def test_first_version_with_one_caption_for_two(self) -> None:
        caption = torch.stack([self.y, self.y, self.z])
        to_captions = [[0.0, 0.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
        to_images = [[0.0, 5.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]
        wanted = (slow_loss(to_captions, masked={(0, 1), (1, 0)}) + slow_loss(to_images)) / 2
        found = roclip_first_loss(self.image, caption, self.pool, SCALE)
        assert found.item() == pytest.approx(wanted, rel=1e-6)


class TestGradients:
    def setup_method(self) -> None:
        self.old = [unit_rows(seed, 6).requires_grad_() for seed in (1, 2)]
        self.image, self.caption = (unit_rows(seed, 4).requires_grad_() for seed in (3, 4))
        self.scale = torch.tensor(5.0, requires_grad=True)
        self.pool = PairPool(6, 8)
        self.pool.put(*self.old)

    def test_in_the_final_version_only_images_and_scale_learn(self) -> None:
        roclip_final_loss(self.image, self.pool, self.scale).backward()  # type: ignore[no-untyped-call]
        assert _moves(self.image)
        assert _moves(self.scale)
        assert self.caption.grad is None
        assert [each.grad for each in self.old] == [None, None]

    def test_in_the_first_version_both_sides_learn_but_not_the_pool(self) -> None:
        loss = roclip_first_loss(self.image, self.caption, self.pool, self.scale)
        loss.backward()  # type: ignore[no-untyped-call]
        assert _moves(self.image)
        assert _moves(self.caption)
        assert [each.grad for each in self.old] == [None, None]

    def test_the_loss_reads_the_pool_and_leaves_it(self) -> None:
        before = self.pool.caption_PD.clone()
        roclip_final_loss(self.image, self.pool, self.scale)
        assert torch.equal(self.pool.caption_PD, before)


def _moves(tensor: torch.Tensor) -> bool:
    return tensor.grad is not None and bool(np.abs(tensor.grad.numpy()).max() > 0)
