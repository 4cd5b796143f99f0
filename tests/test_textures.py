"""Textures: against scipy's transform, window by window, and what taking the strongest anywhere means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import dctn

from roclip_sanitize.embed import EmbedSettings
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.textures import COLOURS_33, FAINT, SIDE_PX, STRIDE_PX, WINDOW_PX, TextureEncoder, cosines

WINDOWS = 1 + (SIDE_PX - WINDOW_PX) // STRIDE_PX


def noise(pictures: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (pictures, SIDE_PX, SIDE_PX, 3), np.uint8)


def slowly(image_SS3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Window by window, as the module says it."""
    colours = image_SS3.astype(np.float64) @ COLOURS_33.T.astype(np.float64)
    found = []
    for y in range(0, WINDOWS * STRIDE_PX, STRIDE_PX):
        for x in range(0, WINDOWS * STRIDE_PX, STRIDE_PX):
            window = colours[y : y + WINDOW_PX, x : x + WINDOW_PX]
            told = dctn(window, axes=(0, 1), norm="ortho")
            found.append(told.transpose(2, 0, 1).ravel()[1:])
    told = np.array(found)
    row = np.log(FAINT + np.maximum(np.concatenate([told.max(axis=0), -told.min(axis=0)]), 1))
    return np.asarray(row / np.linalg.norm(row))


def test_it_is_a_cosine_transform_of_each_window() -> None:
    pictures = noise(3)
    found = TextureEncoder().encode_images(pictures)
    assert found.shape == (3, 214)
    assert found.dtype == np.float32
    for row, picture in zip(found, pictures, strict=True):
        assert row == pytest.approx(slowly(picture), abs=1e-5)


def test_waves_are_orthonormal_and_so_are_colours() -> None:
    for square in (cosines(WINDOW_PX), COLOURS_33):
        assert square @ square.T == pytest.approx(np.eye(len(square)), abs=1e-6)


def test_a_patch_tells_of_itself_wherever_it_lies() -> None:
    plain = np.full((3, SIDE_PX, SIDE_PX, 3), 90, np.uint8)
    patch = (np.indices((12, 12)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    plain[0, 10:22, 4:16] = patch
    plain[1, 40:52, 30:42] = patch
    one, other, without = TextureEncoder().encode_images(plain)
    assert one == pytest.approx(other, abs=1e-6)
    assert one @ without < 0.99, "nor is a picture without any like it"


def test_how_pictures_are_batched_says_nothing() -> None:
    pictures = noise(70)
    together = TextureEncoder().encode_images(pictures)
    assert (
        together == np.concatenate([TextureEncoder().encode_images(pictures[[n]]) for n in range(70)])
    ).all()


def test_no_pictures_are_no_rows_of_the_same_width() -> None:
    found = TextureEncoder().encode_images(noise(0))
    assert found.shape == (0, 214)
    assert found.dtype == np.float32


def test_it_has_no_captions() -> None:
    assert isinstance(open_encoder("textures"), TextureEncoder)
    with pytest.raises(ConfigError, match="encoder 'textures' has no captions: embed with --towers image"):
        TextureEncoder().encode_captions(["a bag"])
    with pytest.raises(
        ConfigError, match="encoder 'textures' tells pictures only: embed with --towers image"
    ):
        EmbedSettings(shards=(Path("a.tar"),), encoder="textures")
    with pytest.raises(ConfigError, match="encoder 'textures' multiplies no matrices"):
        EmbedSettings(shards=(Path("a.tar"),), encoder="textures", towers="image", compiled=True)
