"""The losses, by hand and against open_clip's."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial

import pytest
import torch

from roclip_sanitize.training.objectives import clip_loss, likeness_loss, matched_loss

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
    found = matched_loss(image, target, SCALE, group_B=torch.arange(6))
    assert found.item() == pytest.approx(clip_loss(image, target, SCALE).item())


def test_equal_targets_are_not_each_others_negatives() -> None:
    query = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    logits = [[5.0, 5.0, 0.0], [4.0, 4.0, 3.0], [0.0, 0.0, 5.0]]
    wanted = slow_loss(logits, masked={(0, 1), (1, 0)})
    found = matched_loss(query, target, SCALE, group_B=torch.tensor([4, 4, 9]))
    assert found.item() == pytest.approx(wanted, rel=1e-6)
    assert wanted < slow_loss(logits)


def test_a_batch_with_one_target_for_all_has_nothing_to_tell_apart() -> None:
    target = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    found = matched_loss(unit_rows(1, 4, 2), target, SCALE, group_B=torch.zeros(4))
    assert found.item() == pytest.approx(0.0)


def test_a_view_is_to_find_its_own_target_and_nothing_finds_it_back() -> None:
    view = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # logits [[5, 0], [3, 4]], rows alone
    wanted = (math.log(math.exp(5) + 1) - 5 + math.log(math.exp(3) + math.exp(4)) - 4) / 2
    assert likeness_loss(view, target, SCALE).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_ranks_losses_have_the_whole_loss_for_their_mean(size: int) -> None:
    image, caption, group = unit_rows(1, 6), unit_rows(2, 6), torch.tensor([0, 1, 1, 2, 3, 0])
    shares = [slice(rank, None, size) for rank in range(size)]
    for loss in (
        clip_loss,
        likeness_loss,
        partial(matched_loss, group_B=group),
    ):
        whole = loss(image, caption, SCALE)
        parts = [loss(image, caption, SCALE, mine=mine) for mine in shares]
        assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-6)
