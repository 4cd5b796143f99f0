"""Pictures: strict about what is no picture, quick about what only claims to be one."""

from __future__ import annotations

import contextlib
import io
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from roclip_sanitize.errors import BadPair
from roclip_sanitize.images import (
    FORMATS,
    MAX_IMAGE_BYTES,
    Fit,
    decode_image,
    encode_jpeg,
    square_pixels,
    to_square,
)
from tests.corpora import forged_jpeg, picture

NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette_with_alpha() -> bytes:
    image = Image.fromarray(NOISE).quantize(16)
    return encoded(image, "PNG", transparency=bytes(range(16)))


# What is a picture


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    data = encoded(Image.fromarray(NOISE), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(np.asarray(decode_image(data)), NOISE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "CMYK", "YCbCr"], ids=lambda mode: f"{mode} pixels")
def test_every_colour_model_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"
    grey = Image.new("RGB", (20, 24), (200, 200, 200)).convert(mode, dither=Image.Dither.NONE)
    image = decode_image(encoded(grey, kind))
    assert (image.mode, image.size) == ("RGB", (20, 24))
    wanted = 255 if mode == "1" else 200
    assert np.abs(np.asarray(image).astype(int) - wanted).max() <= 3


def test_a_palette_with_alpha_becomes_rgb() -> None:
    image = decode_image(palette_with_alpha())
    assert (image.mode, image.size) == ("RGB", (20, 24))


def test_sixteen_bits_of_grey_keep_their_shades() -> None:
    """Pillow's own conversion turns everything above 255 of 65,535 white."""
    deep = np.linspace(0, 65_535, 400).astype(np.uint16).reshape(20, 20)
    image = decode_image(encoded(Image.fromarray(deep), "PNG"))
    assert np.array_equal(np.asarray(image)[..., 0], deep // 256)


@pytest.mark.parametrize("kind", [np.uint16, np.dtype(">u2")], ids=["little", "big"])
def test_sixteen_bits_of_a_tiff_do_too(kind: np.dtype[np.uint16]) -> None:
    deep = np.linspace(0, 65_535, 400).astype(kind).reshape(20, 20)
    image = decode_image(encoded(Image.fromarray(deep), "TIFF"))
    assert np.array_equal(np.asarray(image)[..., 0], deep // 256)


# What is none


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "image_undecodable: cannot identify", id="nothing"),
        pytest.param(b"<html>404</html>", "image_undecodable: cannot identify", id="an error page"),
        pytest.param(picture(0)[:-99], "image_undecodable: image file is truncated", id="a cut JPEG"),
        pytest.param(picture(0)[:30], "image_undecodable: Truncated File Read", id="a JPEG's first bytes"),
        pytest.param(palette_with_alpha()[:-60], "image_undecodable: ", id="a cut PNG"),
        pytest.param(
            encoded(Image.fromarray(NOISE), "EPS"), "image_undecodable: is EPS, wanted", id="a program"
        ),
        pytest.param(
            encoded(Image.new("RGB", (1, 1)), "GIF"), "image_too_small: 1 × 1, at least 8", id="a pixel"
        ),
        pytest.param(encoded(Image.new("RGB", (900, 7)), "PNG"), "image_too_small: 900 × 7", id="a spacer"),
        pytest.param(
            forged_jpeg(5_001, 5_000), "image_too_large: header says 5001 × 5000", id="a forged header"
        ),
        pytest.param(b"\0" * (MAX_IMAGE_BYTES + 1), "image_too_large: 50,000,001 bytes", id="too many bytes"),
        pytest.param(
            encoded(Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)), "TIFF"),
            r"image_undecodable: its greys are numbers without a range \(mode F\), wanted 8 or 16 bits",
            id="fractions, which would all be black",
        ),
        pytest.param(
            encoded(Image.fromarray(np.arange(400, dtype=np.int32).reshape(20, 20) * 160), "TIFF"),
            r"image_undecodable: its greys are numbers without a range \(mode I\)",
            id="32 bits, which would be white",
        ),
    ],
)
def test_what_is_no_picture_is_told_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(BadPair, match=f"^{reason}") as caught:
        decode_image(data)
    assert str(caught.value).isprintable()


def test_a_forged_header_costs_neither_time_nor_memory() -> None:
    """Decoded, it would be 1.2 GB."""
    data = forged_jpeg(20_000, 20_000)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(BadPair, match=r"image_too_large: .*400000000 pixels"):
        decode_image(data)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.5
    assert peak < 1_000_000


@settings(max_examples=150)
@given(data=st.data())
def test_no_bytes_make_the_decoder_raise_anything_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
    spoilt = bytearray(encoded(Image.fromarray(NOISE), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[place : place + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    with contextlib.suppress(BadPair):
        assert decode_image(bytes(spoilt)).mode == "RGB"


def test_formats_are_those_of_pillow() -> None:
    Image.init()
    assert set(FORMATS) - {"AVIF"} <= set(Image.SAVE)  # AVIF depends on how Pillow was built


# Squares


@pytest.mark.parametrize("size", [(20, 24), (24, 20), (16, 16), (200, 9)], ids=str)
def test_squashing_is_pillows_bicubic_resize(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    for given_as in (pixels, Image.fromarray(pixels)):
        square = to_square(given_as, 16)
        assert square.dtype == np.uint8
        assert np.array_equal(square, wanted)


@settings(max_examples=100)
@given(width=st.integers(8, 120), height=st.integers(8, 120), side=st.integers(1, 64))
def test_cropping_is_torchvisions_resize_and_centre_crop(width: int, height: int, side: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3)).astype(np.uint8)
    shorter, longer = sorted((width, height))
    long_side = int(side * longer / shorter)
    scaled = (side, long_side) if width < height else (long_side, side)
    resized = Image.fromarray(pixels).resize(scaled, Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in scaled)
    wanted = np.asarray(resized)[top : top + side, left : left + side]
    assert np.array_equal(to_square(pixels, side, fit="crop"), wanted)


@pytest.mark.parametrize("lying", [True, False], ids=["lying", "standing"])
def test_a_crop_keeps_the_centre_and_a_squash_keeps_all(lying: bool) -> None:
    thirds = np.repeat(np.eye(3, dtype=np.uint8) * 255, 16, axis=0)  # red, green and blue, 16 px each
    pixels = np.broadcast_to(thirds, (16, 48, 3)) if lying else np.broadcast_to(thirds[:, None], (48, 16, 3))
    cropped, squashed = (to_square(np.ascontiguousarray(pixels), 16, fit=fit) for fit in ("crop", "squash"))
    assert np.array_equal(cropped.reshape(-1, 3)[[0, -1]], [[0, 255, 0]] * 2)
    assert squashed.reshape(-1, 3)[[0, -1]].argmax(axis=1).tolist() == [0, 2]


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(8, 60_000), (60_000, 8)], ids=str)
def test_a_ribbon_costs_no_memory(size: tuple[int, int], fit: Fit) -> None:
    """Scaled until its short side were 224 px, its long one would be 1.7 million."""
    started = time.perf_counter()
    square = to_square(Image.new("RGB", size, (9, 99, 199)), 224, fit=fit)
    assert np.array_equal(np.unique(square.reshape(-1, 3), axis=0), [[9, 99, 199]])
    assert time.perf_counter() - started < 1.0


# The fast way


@settings(max_examples=60)
@given(width=st.integers(8, 300), height=st.integers(8, 300), enough=st.integers(8, 64))
def test_a_jpeg_is_never_shrunk_below_what_is_needed(width: int, height: int, enough: int) -> None:
    data = encoded(Image.new("RGB", (width, height), (9, 99, 199)), "JPEG")
    image = decode_image(data, enough=enough)
    assert min(image.size) >= min(enough, width, height)
    if min(width, height) >= 2 * enough:
        assert image.size < (width, height)
    if min(width, height) < 2 * enough:
        assert np.array_equal(np.asarray(image), np.asarray(decode_image(data)))


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(200, 300), (640, 180), (20, 30), (32, 32)], ids=str)
def test_fast_pixels_are_nearly_exact(size: tuple[int, int], fit: Fit) -> None:
    across, down = np.linspace(0, 200, size[0]), np.linspace(0, 55, size[1])
    ramp = np.add.outer(down, across).astype(np.uint8)
    data = encode_jpeg(np.stack([ramp, 255 - ramp, ramp // 2], axis=2))
    exact, fast = (square_pixels(data, 32, fit=fit, decode=decode) for decode in ("exact", "fast"))
    assert fast.shape == exact.shape == (32, 32, 3)
    assert fast.dtype == np.uint8
    difference = np.abs(exact.astype(int) - fast)
    assert difference.mean() < 3
    assert difference.max() <= 12


def test_exact_pixels_are_the_default() -> None:
    assert np.array_equal(
        square_pixels(picture(0, 40), 16, fit="crop"), to_square(decode_image(picture(0, 40)), 16, fit="crop")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(forged_jpeg(5_001, 5_000), "image_too_large: header says", id="a forged header"),
        pytest.param(forged_jpeg(900, 7), "image_too_small: 900 × 7", id="a spacer"),
        pytest.param(picture(0, 256)[:-99], "image_undecodable: image file is truncated", id="a cut JPEG"),
    ],
)
def test_the_fast_way_is_as_strict(data: bytes, reason: str) -> None:
    with pytest.raises(BadPair, match=f"^{reason}"):
        square_pixels(data, 16, fit="squash", decode="fast")


def test_what_is_wrong_is_told_without_addresses() -> None:
    """Lists of failures must be the same bytes each time."""
    with pytest.raises(BadPair) as caught:
        decode_image(b"?")
    assert str(caught.value) == "image_undecodable: cannot identify image file"


# Encoding


def test_encoding_is_deterministic_and_near_lossless() -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    smooth = np.stack([ramp, 255 - ramp, ramp // 2], axis=2)
    data = encode_jpeg(smooth)
    assert data == encode_jpeg(smooth)
    assert np.abs(np.asarray(decode_image(data)).astype(int) - smooth).max() <= 8
