"""Augmentation: what may change, and what may not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.encoder import tokenizer_for
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.augment import (
    ERASED_SIDE,
    LEAST_AREA,
    PAPER_LEAST_AREAS,
    Augmenter,
    augment_batch,
    blur_some,
    crop,
    drop_words,
    erase_square,
    flip_some,
    jitter,
    open_augmenter,
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


@pytest.mark.parametrize("kind", ["none", "mild", "mixing", "strong"])
def test_shapes_types_and_ranges_stay(kind: Augmentation) -> None:
    pixels, tokens = augment_batch(pictures(), TOKENS, kind=kind, generator=seeded())
    assert (pixels.shape, pixels.dtype) == (pictures().shape, torch.float32)
    assert (tokens.shape, tokens.dtype) == (TOKENS.shape, torch.int64)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("kind", ["mild", "mixing", "strong"])
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
    words=st.lists(st.lists(st.integers(0, 49_000), max_size=10), min_size=1, max_size=6),
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


def test_an_exclamation_mark_within_a_word_is_no_end() -> None:
    tokens = torch.tensor([caption(4_000, 0, 300, 7)] * 400)  # 0 is a "!" that goes on
    dropped = drop_words(tokens, seeded())
    assert (dropped == END).any(dim=1).all()
    assert 0.82 < (dropped == 7).any(dim=1).float().mean() < 0.98


def test_about_a_tenth_of_the_words_go() -> None:
    tokens = torch.tensor([caption(*range(1, 11))] * 500)
    kept = (drop_words(tokens, seeded()) != 0).sum() - 2 * 500
    assert 0.88 < kept / (10 * 500) < 0.92


def test_a_caption_without_words_stays() -> None:
    tokens = torch.tensor([caption()])
    assert torch.equal(drop_words(tokens, seeded()), tokens)


# The augmenter


ENDS_WORD = torch.ones(49_408, dtype=torch.bool)
KINDS = get_args(Augmentation)


def augmenter(kind: Augmentation) -> Augmenter:
    return Augmenter(kind, ends_word_V=ENDS_WORD)


@pytest.mark.parametrize("kind", ["none", "mild", "mixing", "strong"])
def test_an_augmenter_does_what_augment_batch_does(kind: Augmentation) -> None:
    found = Augmenter(kind)(pictures(), TOKENS, seeded(3))
    wanted = augment_batch(pictures(), TOKENS, kind=kind, generator=seeded(3))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_augmenter_takes_bytes_and_gives_floats(kind: Augmentation) -> None:
    stored = (pictures() * 255).to(torch.uint8)
    found = augmenter(kind)(stored, TOKENS, seeded(3))
    wanted = augmenter(kind)(stored.float() / 255, TOKENS, seeded(3))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert (found[0].dtype, found[1].dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_get_what_one_alone_would(kind: Augmentation, ranks: int) -> None:
    whole_pixels, whole_tokens = augmenter(kind)(pictures(), TOKENS, seeded(5))
    for rank in range(ranks):
        rows = slice(rank, None, ranks)
        pixels, tokens = augmenter(kind)(pictures(), TOKENS, seeded(5), rows=rows)
        assert torch.allclose(pixels, whole_pixels[rows], atol=1e-6)
        assert torch.equal(tokens, whole_tokens[rows])


@pytest.mark.parametrize("kind", ["paper", "paper_mild"])
def test_the_generator_decides_everything_of_the_papers_kinds(kind: Augmentation) -> None:
    one, same, other = (augmenter(kind)(pictures(), TOKENS, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["paper", "paper_mild"])
def test_the_papers_kinds_need_to_know_words(kind: Augmentation) -> None:
    with pytest.raises(ConfigError, match="which tokens end a word"):
        Augmenter(kind)
    with pytest.raises(ConfigError, match="which tokens end a word"):
        augment_batch(pictures(), TOKENS, kind=kind, generator=seeded())


def test_mild_crops_show_nearly_all() -> None:
    """Dark frames of a quarter of the side: crops of 90 % and more always show some, smaller ones may not."""
    framed = torch.zeros(200, 3, 24, 24)
    framed[:, :, 6:-6, 6:-6] = 1
    darkest = {
        kind: augmenter(kind)(framed, TOKENS[:1].expand(200, -1), seeded(1))[0].amin(dim=(1, 2, 3))
        for kind in PAPER_LEAST_AREAS
    }
    assert darkest["paper"].max() > 0.4
    assert darkest["paper_mild"].max() < 0.4


def test_one_is_opened_by_a_models_name(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("dog\thound\n")
    tokens = tokenizer_for("roclip-rn-64")(["dog"] * 40)
    plain = open_augmenter("paper", model="roclip-rn-64")(pictures(40), tokens, seeded())[1]
    known = open_augmenter("paper", model="roclip-rn-64", synonyms=table)(pictures(40), tokens, seeded())[1]
    hound = int(tokenizer_for("roclip-rn-64")(["hound"])[0, 1])
    assert not (plain == hound).any()
    assert (known == hound).any()
    assert open_augmenter("mild", model="roclip-rn-64", synonyms=tmp_path / "absent").kind == "mild"
