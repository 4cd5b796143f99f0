"""Augmentation: what may change, and what may not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.training.augment import (
    ERASED_SIDE,
    LEAST_AREA,
    augment_batch,
    blur_some,
    crop,
    drop_words,
    erase_square,
    flip_some,
    jitter,
)
from roclip_sanitize.training.settings import Augmentation

START, END = 49_406, 49_407
SIDE = 20


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=seeded(7))


def caption(*words: int, length: int = 12) -> list[int]:
    return [START, *words, END] + [0] * (length - len(words) - 2)


TOKENS = torch.tensor([caption(*range(1, 1 + words)) for words in (0, 1, 4, 7, 9, 10)])


def test_none_is_the_identity() -> None:
    generator = seeded()
    state = generator.get_state()
    pixels, tokens = augment_batch(pictures(), TOKENS, kind="none", generator=generator)
    assert torch.equal(pixels, pictures())
    assert torch.equal(tokens, TOKENS)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("kind", ["none", "mild", "strong"])
def test_shapes_types_and_ranges_stay(kind: Augmentation) -> None:
    pixels, tokens = augment_batch(pictures(), TOKENS, kind=kind, generator=seeded())
    assert (pixels.shape, pixels.dtype) == (pictures().shape, torch.float32)
    assert (tokens.shape, tokens.dtype) == (TOKENS.shape, torch.int64)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("kind", ["mild", "strong"])
def test_the_generator_decides_everything(kind: Augmentation) -> None:
    one, same, other = (
        augment_batch(pictures(), TOKENS, kind=kind, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_every_picture_gets_its_own_draw() -> None:
    alike = pictures(1).expand(5, -1, -1, -1)
    pixels, _ = augment_batch(alike, TOKENS[:5], kind="mild", generator=seeded())
    assert len({picture.numpy().tobytes() for picture in pixels}) == 5


def test_only_strong_erases() -> None:
    black = torch.zeros(40, 3, SIDE, SIDE)
    tokens = TOKENS[:1].expand(40, -1)
    mild, _ = augment_batch(black, tokens, kind="mild", generator=seeded())
    strong, _ = augment_batch(black, tokens, kind="strong", generator=seeded())
    assert mild.max() == 0
    assert strong.max() == 0.5


def test_mild_is_flip_jitter_and_dropping_and_nothing_else() -> None:
    generator = seeded(3)
    wanted = jitter(flip_some(pictures(), generator), generator)
    found, tokens = augment_batch(pictures(), TOKENS, kind="mild", generator=seeded(3))
    assert torch.equal(found, wanted)
    assert torch.equal(tokens, drop_words(TOKENS, generator))


# Crop and flip


def test_half_of_the_pictures_are_mirrored() -> None:
    ramp = torch.linspace(0, 1, SIDE).expand(300, 3, SIDE, SIDE)
    found = flip_some(ramp, seeded())
    mirrored = torch.tensor([torch.equal(picture, ramp[0].flip(-1)) for picture in found])
    untouched = torch.tensor([torch.equal(picture, ramp[0]) for picture in found])
    assert (mirrored ^ untouched).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_a_crop_shows_60_to_100_percent() -> None:
    ramp = torch.linspace(0, 1, SIDE).expand(300, 3, SIDE, SIDE)
    cropped = crop(ramp, seeded())
    width = cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]  # share of the ramp that is left
    assert width.min() >= math.sqrt(LEAST_AREA) - 0.05
    assert width.max() <= 1
    assert cropped.min() == 0  # some crop reaches the left edge
    assert cropped.max() == 1


def test_a_crop_invents_no_colour() -> None:
    plain = torch.full((8, 3, SIDE, SIDE), 0.3)
    assert torch.allclose(crop(plain, seeded()), plain)


# Brightness and contrast


def test_brightness_changes_by_at_most_30_percent() -> None:
    grey = torch.full((200, 3, SIDE, SIDE), 0.5)
    level = jitter(grey, seeded())[:, 0, 0, 0]
    assert 0.35 - 1e-6 <= level.min() < 0.4
    assert 0.6 < level.max() <= 0.65 + 1e-6


def test_contrast_keeps_the_mean_and_changes_the_spread() -> None:
    halves = torch.full((200, 3, SIDE, SIDE), 0.4)
    halves[..., SIDE // 2 :] = 0.6
    changed = jitter(halves, seeded())
    mean, spread = changed.mean(dim=(1, 2, 3)), changed[:, 0, 0, -1] - changed[:, 0, 0, 0]
    contrast = spread / 0.2 / (mean / 0.5)  # brightness scales both
    assert 0.7 - 1e-4 <= contrast.min() < 0.8
    assert 1.2 < contrast.max() <= 1.3 + 1e-4


# Erasing and blurring


def test_half_of_the_pictures_lose_one_square_to_grey() -> None:
    erased = erase_square(torch.zeros(200, 3, SIDE, SIDE), seeded())
    area = round(ERASED_SIDE * SIDE) ** 2
    lost = (erased[:, 0] == 0.5).sum(dim=(1, 2))
    assert set(lost.tolist()) == {0, area}
    assert 0.4 < (lost > 0).float().mean() < 0.6
    reached = (erased[:, 0] == 0.5).any(dim=0)
    assert reached[0].any()
    assert reached[-1].any()  # the last place is as possible as the first
    assert reached[:, -1].any()


def test_half_of_the_pictures_are_blurred_with_1_2_1() -> None:
    dots = torch.zeros(200, 3, 5, 5)
    dots[:, :, 2, 2] = 1
    spread = torch.zeros(5, 5)
    spread[1:4, 1:4] = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    found = blur_some(dots, seeded())
    blurred = torch.tensor([torch.allclose(picture, spread.expand(3, 5, 5)) for picture in found])
    untouched = torch.tensor([torch.equal(picture, dots[0]) for picture in found])
    assert (blurred ^ untouched).all()
    assert 0.4 < blurred.float().mean() < 0.6


def test_blurring_keeps_a_plain_picture_to_its_edges() -> None:
    plain = torch.full((8, 3, SIDE, SIDE), 0.7)
    assert torch.allclose(blur_some(plain, seeded()), plain)


# Words


@settings(max_examples=60)
@given(
    words=st.lists(st.lists(st.integers(1, 49_000), max_size=10), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_dropping_keeps_start_end_and_order(words: list[list[int]], seed: int) -> None:
    tokens = torch.tensor([caption(*row) for row in words])
    for before, after in zip(words, drop_words(tokens, seeded(seed)).tolist(), strict=True):
        assert len(after) == tokens.shape[1]
        assert after[0] == START
        end = after.index(END)
        assert not any(after[end + 1 :])
        left = iter(before)
        assert all(word in left for word in after[1:end])  # a subsequence: each is found after the last


def test_about_a_tenth_of_the_words_go() -> None:
    tokens = torch.tensor([caption(*range(1, 11))] * 500)
    kept = (drop_words(tokens, seeded()) != 0).sum() - 2 * 500
    assert 0.88 < kept / (10 * 500) < 0.92


def test_a_caption_without_words_stays() -> None:
    tokens = torch.tensor([caption()])
    assert torch.equal(drop_words(tokens, seeded()), tokens)
