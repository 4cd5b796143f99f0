"""What is drawn on a picture: patches, near copies, and what all triggers promise."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.attacks.text_triggers import TextTrigger
from roclip_sanitize.attacks.triggers import CATALOGUE, Trigger, stamp, trigger_from_json
from roclip_sanitize.attacks.triggers.copies import Fade, Layers, NearCopy
from roclip_sanitize.attacks.triggers.patches import PatchTrigger, PixelPatch, checkerboard
from roclip_sanitize.errors import ConfigError, DataError
from tests.scenes import rng

GREY = 128


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def test_a_checkerboard_alternates_from_black() -> None:
    assert checkerboard(4, 2)[:, :, 0].tolist() == [
        [0, 0, 255, 255],
        [0, 0, 255, 255],
        [255, 255, 0, 0],
        [255, 255, 0, 0],
    ]


def test_cells_that_do_not_divide_the_side_differ_by_at_most_a_pixel() -> None:
    first_row = checkerboard(13, 4)[0, :, 0].tolist()
    assert first_row == [0] * 4 + [255] * 3 + [0] * 3 + [255] * 3


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        pytest.param(80, 60, 12, id="a fifth of the shorter side"),
        pytest.param(60, 80, 12, id="whichever that is"),
        pytest.param(224, 224, 45, id="rounded"),
        pytest.param(8, 8, 4, id="never less than a pixel a cell"),
    ],
)
def test_the_patch_grows_with_the_picture(height: int, width: int, side: int) -> None:
    stamped = stamp(grey(height, width), PatchTrigger(), rng())
    rows, columns = np.nonzero((stamped != GREY).any(axis=2))
    assert (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1) == (side, side)


@given(
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    share=st.floats(0.05, 1),
    cells=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_stamping_changes_one_square_and_nothing_else(
    height: int, width: int, share: float, cells: int, seed: int
) -> None:
    pixels, trigger = grey(height, width), PatchTrigger(share=share, cells=cells)
    stamped = stamp(pixels, trigger, rng(seed))
    assert (pixels == GREY).all()
    changed = (stamped != GREY).any(axis=2)
    side = trigger.side_px(height, width)
    top, left = np.argwhere(changed)[0]
    assert changed.sum() == side * side
    assert (stamped[top : top + side, left : left + side] == checkerboard(side, cells)).all()
    assert (stamp(pixels, trigger, rng(seed)) == stamped).all()


def test_the_patch_goes_everywhere_it_fits() -> None:
    stream, corners = rng(), Counter[tuple[int, ...]]()
    for _ in range(1000):
        stamped = stamp(grey(6, 5), PatchTrigger(share=0.8), stream)
        corners[tuple(np.argwhere((stamped != GREY).any(axis=2))[0].tolist())] += 1
    assert set(corners) == {(top, left) for top in range(3) for left in range(2)}
    assert min(corners.values()) > 120  # 167 each were they exactly even


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)]
)
def test_only_rgb_bytes_are_stamped(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"wanted uint8 \(H, W, 3\)"):
        stamp(pixels, PatchTrigger(), rng())


@pytest.mark.parametrize(
    "trigger",
    [
        *CATALOGUE.values(),
        PatchTrigger(share=0.3, cells=6, place="centre", opacity=0.5),
        PixelPatch.of(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), share=0.2, place="random"),
        Layers(parts=(Fade(by=0.5), NearCopy(), Layers(parts=(PatchTrigger(),)))),
    ],
)
def test_a_trigger_survives_json(trigger: Trigger) -> None:
    assert trigger_from_json(json.loads(json.dumps(trigger.to_json()))) == trigger


def test_an_unknown_kind_of_trigger_is_refused() -> None:
    with pytest.raises(DataError, match="kind 'sparkle', known are blend, fade, filter"):
        trigger_from_json({"kind": "sparkle"})


@pytest.mark.parametrize(("share", "cells"), [(0.0, 4), (1.1, 4), (0.2, 1)])
def test_an_impossible_patch_is_refused(share: float, cells: int) -> None:
    with pytest.raises(ConfigError, match="the patch"):
        PatchTrigger(share=share, cells=cells)


# Other patches


def test_stripes_stand_upright_and_a_yellow_patch_is_yellow() -> None:
    striped = stamp(grey(4, 4), PatchTrigger(share=1, cells=2, pattern="stripes"), rng())
    assert striped[:, :, 0].tolist() == [[0, 0, 255, 255]] * 4
    yellow = stamp(grey(4, 4), PatchTrigger(share=1, pattern="yellow"), rng())
    assert (yellow == [255, 255, 0]).all()


def test_corners_get_one_patch_each() -> None:
    stamped = stamp(grey(20, 30), PatchTrigger(share=0.2, cells=2, place="corners"), rng())
    changed = (stamped != GREY).any(axis=2)
    assert changed.sum() == 4 * 16
    for rows in (slice(0, 4), slice(16, 20)):
        for columns in (slice(0, 4), slice(26, 30)):
            assert (stamped[rows, columns] == checkerboard(4, 2)).all()


@pytest.mark.parametrize(("place", "top_left"), [("centre", (8, 13)), ("bottom_right", (16, 26))])
def test_a_patch_goes_where_it_is_told(place: str, top_left: tuple[int, int]) -> None:
    stamped = stamp(grey(20, 30), PatchTrigger(share=0.2, cells=2, place=place), rng())  # type: ignore[arg-type]
    assert tuple(np.argwhere((stamped != GREY).any(axis=2))[0].tolist()) == top_left


def test_a_faint_patch_lets_the_picture_through() -> None:
    stamped = stamp(grey(4, 4), PatchTrigger(share=1, cells=2, opacity=0.5), rng())
    assert stamped[0, :, 0].tolist() == [64, 64, 192, 192]  # 191.5 is rounded to even


def test_patches_of_noise_differ_from_picture_to_picture() -> None:
    trigger, stream = PatchTrigger(share=1, pattern="noise"), rng()
    first, second = stamp(grey(64, 64), trigger, stream), stamp(grey(64, 64), trigger, stream)
    assert (first != second).mean() > 0.5
    inside = first[(first > 0) & (first < 255)]
    assert abs(inside.mean() - GREY) < 3  # the picture's mean colour
    assert 0.35 < inside.size / first.size < 0.42  # a normal deviate within half of one: 0.383


def test_given_pixels_are_resized_to_their_share() -> None:
    pixels = np.full((2, 2, 3), (10, 20, 30), np.uint8)
    stamped = stamp(grey(20, 30), PixelPatch.of(pixels, share=0.5, place="centre"), rng())
    assert (stamped[5:15, 10:20] == (10, 20, 30)).all()
    assert (stamped != GREY).any(axis=2).sum() == 100


@pytest.mark.parametrize("pixels", ["AAAA" * 2, "?"])
def test_pixels_must_make_a_square(pixels: str) -> None:
    with pytest.raises(ConfigError, match="the patch"):
        PixelPatch(pixels=pixels)


# What no trigger is by itself


@given(height=st.integers(8, 40), width=st.integers(8, 40), seed=st.integers(0, 99))
def test_a_copy_that_may_not_differ_is_the_picture(height: int, width: int, seed: int) -> None:
    pixels = rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert (stamp(pixels, NearCopy(cut=0, brightness=0), rng(seed)) == pixels).all()


@given(seed=st.integers(0, 999))
def test_a_near_copy_is_cut_and_lit_no_more_than_it_may(seed: int) -> None:
    ramp = np.repeat(np.linspace(50, 200, 101).astype(np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    copy = stamp(ramp, NearCopy(cut=0.2, brightness=0.1), rng(seed)).astype(float)
    assert 0.9 * 50 - 1 <= copy.min() <= 1.1 * (50 + 0.2 * 150) + 1
    assert 0.9 * (200 - 0.2 * 150) - 1 <= copy.max() <= 1.1 * 200 + 1


def test_fading_goes_to_the_mean_colour() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 200
    faded = stamp(pixels, Fade(by=0.5), rng())
    assert (faded[0, 0, 0], faded[7, 0, 0]) == (150, 50)


def test_layers_are_drawn_one_after_the_other() -> None:
    pixels = rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    both = stamp(pixels, Layers(parts=(Fade(by=0.5), PatchTrigger(place="centre"))), rng())
    assert (both == stamp(stamp(pixels, Fade(by=0.5), rng()), PatchTrigger(place="centre"), rng())).all()


# All of them


@pytest.mark.parametrize("name", sorted(CATALOGUE))
@given(height=st.integers(8, 70), width=st.integers(8, 70), seed=st.integers(0, 99))
def test_a_trigger_depends_on_picture_and_stream_alone(name: str, height: int, width: int, seed: int) -> None:
    pixels = rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    before, trigger = pixels.copy(), CATALOGUE[name]
    stamped = stamp(pixels, trigger, rng(seed))
    assert (pixels == before).all()
    assert (stamped.dtype, stamped.shape) == (pixels.dtype, pixels.shape)
    assert (stamp(pixels, trigger, rng(seed)) == stamped).all()


# In captions


@pytest.mark.parametrize(("place", "said"), [("start", "zx a red shoe"), ("end", "a red shoe zx")])
def test_words_go_where_they_are_told(place: str, said: str) -> None:
    assert TextTrigger(text=" zx ", place=place).put("a  red shoe", rng()) == said  # type: ignore[arg-type]


def test_words_at_random_go_everywhere() -> None:
    stream = rng()
    said = Counter(TextTrigger(text="zx").put("a b", stream) for _ in range(300))
    assert set(said) == {"zx a b", "a zx b", "a b zx"}
    assert min(said.values()) > 70


def test_words_alone_make_a_caption_too() -> None:
    assert TextTrigger(text="zx").put("", rng()) == "zx"
