"""Triggers that cover the whole picture, against references in float64 that are written otherwise.

A picture of bytes is right if no pixel is further from the reference than rounding takes it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.attacks.triggers import CATALOGUE, stamp
from roclip_sanitize.attacks.triggers.blends import BlendTrigger, SinusoidTrigger, drawing
from roclip_sanitize.attacks.triggers.filters import FilterTrigger
from roclip_sanitize.attacks.triggers.warps import FINE_CELLS, WarpTrigger, warp_field
from tests.scenes import rng

ROUNDING = 0.5 + 1e-6

sides = st.integers(8, 40)
seeds = st.integers(0, 999)


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def require_close(stamped: NDArray[np.uint8], reference: NDArray[np.float64]) -> None:
    assert np.abs(stamped - reference.clip(0, 255)).max() <= ROUNDING


# Blends


@given(height=sides, width=sides, alpha=st.floats(0.01, 1), seed=seeds)
def test_a_fixed_picture_is_mixed_in(height: int, width: int, alpha: float, seed: int) -> None:
    pixels = noise(height, width, seed)
    stamped = stamp(pixels, BlendTrigger(alpha=alpha, seed=seed), rng())
    require_close(stamped, (1 - alpha) * pixels + alpha * 255 * drawing(height, width, seed))


@given(height=sides, width=sides, alpha=st.floats(0.01, 1), seed=seeds)
def test_fresh_noise_is_mixed_in(height: int, width: int, alpha: float, seed: int) -> None:
    pixels = noise(height, width, seed)
    stamped = stamp(pixels, BlendTrigger(picture="noise", alpha=alpha), rng(seed))
    require_close(stamped, (1 - alpha) * pixels + alpha * 255 * rng(seed).random(pixels.shape))


@given(seed=seeds, hidden=st.integers(1, 15))
def test_hidden_tiles_stay_as_they_were(seed: int, hidden: int) -> None:
    pixels = np.full((16, 24, 3), 128, np.uint8)  # no drawing is grey, so that each tile shows
    stamped = stamp(pixels, BlendTrigger(hidden=hidden), rng(seed))
    changed = (stamped != pixels).any(axis=2)
    tiles = [
        changed[row : row + 4, column : column + 6] for row in range(0, 16, 4) for column in range(0, 24, 6)
    ]
    assert [tile.all() == tile.any() for tile in tiles] == [True] * 16
    assert sum(not tile.any() for tile in tiles) == hidden


def test_the_drawing_is_the_same_at_any_size_and_another_for_another_seed() -> None:
    small, large = drawing(20, 30, 0), drawing(60, 90, 0)
    assert (large[1::3, 1::3] == small).all()  # the centres of the same areas
    assert 0.2 < (drawing(20, 30, 1) != small).mean() < 0.8
    assert set(np.unique(small)) == {0.0, 1.0}


# SIG


@given(height=sides, width=sides, delta=st.floats(1, 90), frequency=st.integers(1, 9), seed=seeds)
def test_waves_are_added(height: int, width: int, delta: float, frequency: int, seed: int) -> None:
    pixels = noise(height, width, seed)
    wave = [delta * math.sin(2 * math.pi * column * frequency / width) for column in range(width)]
    reference = np.array(
        [[[v + wave[j] for v in pixel] for j, pixel in enumerate(row)] for row in pixels.tolist()]
    )
    require_close(stamp(pixels, SinusoidTrigger(delta=delta, frequency=frequency), rng()), reference)


@given(height=sides, width=sides, mixed=st.floats(0.05, 1), seed=seeds)
def test_waves_are_mixed_in(height: int, width: int, mixed: float, seed: int) -> None:
    pixels = noise(height, width, seed)
    wave = [60 * math.sin(2 * math.pi * column * 6 / width) for column in range(width)]
    reference = np.array(
        [
            [[(1 - mixed) * v + mixed * wave[j] for v in pixel] for j, pixel in enumerate(row)]
            for row in pixels.tolist()
        ]
    )
    require_close(stamp(pixels, SinusoidTrigger(mixed=mixed), rng()), reference)


@pytest.mark.parametrize(
    ("version", "mean", "amplitude"),
    [("sig_badclip", 128, 60), ("sig_backdoorbench", 128, 40), ("sig_cleanclip", 102.4, 12)],
)
def test_the_versions_of_sig_differ_as_the_literature_says(
    version: str, mean: float, amplitude: float
) -> None:
    stamped = stamp(np.full((8, 240, 3), 128, np.uint8), CATALOGUE[version], rng()).astype(float)
    assert stamped.mean() == pytest.approx(mean, abs=0.1)
    assert np.ptp(stamped) / 2 == pytest.approx(amplitude, abs=0.5)
    assert np.abs(np.fft.rfft(stamped[0, :, 0] - mean))[1:].argmax() + 1 == 6  # waves from edge to edge


# WaNet


def by_torch(pixels_HW3: NDArray[np.uint8], trigger: WarpTrigger) -> NDArray[np.float64]:
    """The same warp through interpolate() and grid_sample(), in float64."""
    height, width, _ = pixels_HW3.shape
    cells = trigger.cells or FINE_CELLS
    grid = torch.from_numpy(rng(trigger.seed).uniform(-1, 1, (2, cells, cells)))[None]
    grid = grid / grid.abs().mean()
    if trigger.cells:
        noise_field = torch.nn.functional.interpolate(
            grid, (height, width), mode="bicubic", align_corners=True
        )
    else:
        noise_field = grid.repeat(1, 1, 2, 2)[:, :, :height, :width]
    sides_px = torch.tensor([height, width], dtype=torch.float64)[None, :, None, None]
    rows, columns = (
        torch.linspace(-1, 1, height, dtype=torch.float64),
        torch.linspace(-1, 1, width, dtype=torch.float64),
    )
    at = (
        torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
        + trigger.strength * noise_field / sides_px
    )
    across_first = at.clamp(-1, 1).flip(1).permute(0, 2, 3, 1)
    picture = torch.from_numpy(pixels_HW3.astype(np.float64)).permute(2, 0, 1)[None]
    warped = torch.nn.functional.grid_sample(picture, across_first, mode="bilinear", align_corners=True)
    result: NDArray[np.float64] = warped[0].permute(1, 2, 0).numpy()
    return result


@settings(deadline=None)
@given(height=sides, width=sides, cells=st.integers(2, 9), strength=st.floats(0.1, 4), seed=seeds)
def test_a_smooth_warp_is_torchs(height: int, width: int, cells: int, strength: float, seed: int) -> None:
    pixels, trigger = noise(height, width, seed), WarpTrigger(cells=cells, strength=strength, seed=seed)
    require_close(stamp(pixels, trigger, rng()), by_torch(pixels, trigger))


@settings(deadline=None)
@given(height=sides, width=sides, seed=seeds)
def test_a_warp_of_every_pixel_is_torchs(height: int, width: int, seed: int) -> None:
    pixels, trigger = noise(height, width, seed), WarpTrigger(cells=0, strength=1, seed=seed)
    require_close(stamp(pixels, trigger, rng()), by_torch(pixels, trigger))


def test_at_256_pixels_a_warp_of_every_pixel_moves_half_a_pixel_on_average() -> None:
    """What the grid published with a detector for CLIP decodes to: mean 0.498 px, at most 0.997 px."""
    moved_px = np.abs(warp_field(256, 256, cells=0, seed=0)) / 256 * 255 / 2
    assert moved_px.mean() == pytest.approx(0.498, abs=0.001)
    assert moved_px.max() == pytest.approx(0.997, abs=0.003)


def test_jitter_moves_pixels_by_half_a_pixel_more() -> None:
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[:, None, None], 100, axis=1).repeat(3, axis=2)
    plain, jittered = (
        stamp(ramp, WarpTrigger(jitter=jitter), rng(1)).astype(int) for jitter in (False, True)
    )
    assert 0 < np.abs(jittered - plain).max() <= 2  # half a pixel of two grey levels, and two roundings


# Colours


def nashville_of(red: float, green: float, blue: float) -> list[float]:
    """One pixel, by the definitions of the W3C's Filter Effects and Compositing, with their constants."""
    veiled = []
    for value, warm, cold in zip((red, green, blue), (247, 176, 153), (0, 70, 150), strict=True):
        warmed = 0.44 * value + 0.56 * min(value, warm / 255)
        veiled.append(0.6 * warmed + 0.4 * max(warmed, cold / 255))
    r, g, b = veiled
    keep = 1 - 0.2
    toned = [
        (0.393 + 0.607 * keep) * r + (0.769 - 0.769 * keep) * g + (0.189 - 0.189 * keep) * b,
        (0.349 - 0.349 * keep) * r + (0.686 + 0.314 * keep) * g + (0.168 - 0.168 * keep) * b,
        (0.272 - 0.272 * keep) * r + (0.534 - 0.534 * keep) * g + (0.131 + 0.869 * keep) * b,
    ]
    toned = [min(1.0, max(0.0, value)) for value in toned]
    toned = [min(1.0, max(0.0, 1.2 * value + 0.5 - 0.6)) for value in toned]
    r, g, b = (min(1.0, 1.05 * value) for value in toned)
    s = 1.2
    return [
        255 * min(1.0, max(0.0, value))
        for value in (
            (0.213 + 0.787 * s) * r + (0.715 - 0.715 * s) * g + (0.072 - 0.072 * s) * b,
            (0.213 - 0.213 * s) * r + (0.715 + 0.285 * s) * g + (0.072 - 0.072 * s) * b,
            (0.213 - 0.213 * s) * r + (0.715 - 0.715 * s) * g + (0.072 + 0.928 * s) * b,
        )
    ]


@given(seed=seeds)
def test_the_colour_filter_is_the_one_of_web_pages(seed: int) -> None:
    pixels = noise(8, 8, seed)
    reference = [
        [nashville_of(*(value / 255 for value in pixel)) for pixel in row] for row in pixels.tolist()
    ]
    require_close(stamp(pixels, FilterTrigger(), rng()), np.array(reference))
