"""Clutter under a picture's own caption: what changes, how much, and that nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from roclip_sanitize.training import mixing_augment
from roclip_sanitize.training.mixing_augment import add_waves, change_gains, mix, mix_faintly, paste_squares

SIDE, BATCH = 32, 400
Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(batch: int = BATCH) -> torch.Tensor:
    """Pictures of one grey each, all different."""
    return torch.linspace(0.2, 0.8, batch).view(-1, 1, 1, 1).expand(batch, 3, SIDE, SIDE).clone()


def changed_share(before: torch.Tensor, after: torch.Tensor) -> float:
    return (before != after).flatten(1).any(dim=1).float().mean().item()


@pytest.mark.parametrize("change", [mix_faintly, paste_squares, add_waves])
def test_a_fifth_of_the_pictures_get_each_kind_of_clutter(change: Change) -> None:
    assert changed_share(flat(), change(flat(), drawn())) == pytest.approx(0.2, abs=0.06)


def test_what_shines_through_is_another_picture_of_the_batch_and_fainter() -> None:
    pixels = flat()
    moved = (mix_faintly(pixels, drawn()) - pixels).abs().amax(dim=(1, 2, 3))
    assert moved.max() <= 0.3 * 0.6 + 1e-6
    assert moved.max() > 0.1


def test_squares_hold_another_picture_and_are_as_large_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing_augment, "SOME", 1.0)
    pixels = flat()
    pasted = paste_squares(pixels, drawn())
    inside = (pasted != pixels).all(dim=1)
    sides = inside.any(dim=1).sum(dim=1)
    assert (inside.flatten(1).sum(dim=1) == sides * inside.any(dim=2).sum(dim=1)).all(), "rectangles"
    seen = sides[sides > 0].float() / SIDE
    assert seen.min() >= 0.1 - 1 / SIDE
    assert seen.max() <= 0.35 + 1 / SIDE
    assert torch.isin(pasted, pixels).all()


def test_waves_are_the_same_in_all_colours_and_no_stronger_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing_augment, "SOME", 1.0)
    wave = add_waves(flat(), drawn()) - flat()
    assert wave.abs().max() <= 0.15 + 1e-6
    assert wave.abs().max() > 0.1
    assert torch.allclose(wave[:, 0], wave[:, 1], atol=1e-6)


def test_gains_differ_by_colour_and_stay_within_a_tenth() -> None:
    gain = (change_gains(flat(), drawn()) / flat())[:, :, 0, 0]
    assert (gain - 1).abs().max() <= 0.1 + 1e-6
    assert (gain[:, 0] != gain[:, 1]).all()


def test_the_same_draws_give_the_same_pictures_within_the_range() -> None:
    pixels = torch.rand(64, 3, SIDE, SIDE, generator=drawn(1))
    once, again = mix(pixels, drawn(2)), mix(pixels, drawn(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, mix(pixels, drawn(3)))
    assert once.min() >= 0
    assert once.max() <= 1
    assert torch.equal(pixels, torch.rand(64, 3, SIDE, SIDE, generator=drawn(1))), "the batch itself stays"
