"""Pictures as shards have them: of any depth, their shades and colours stay."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from roclip_sanitize.images import decode_image
from roclip_sanitize.ingest.resizing import Resizer

SIDE = 64
RAMP = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 5).astype(np.uint16)  # to 20,475 of 65,535


def opencv(kind: str, pixels: NDArray[np.uint16], *told: int) -> bytes:
    _, data = cv2.imencode(kind, pixels, told)
    return bytes(data)


def resized(data: bytes) -> NDArray[np.uint8]:
    resize = Resizer(side=SIDE, mode="keep_ratio", quality=100, only_if_bigger=True)
    return np.asarray(Image.open(io.BytesIO(resize(data).data)).convert("RGB"))


@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_shades(kind: str, channels: int) -> None:
    shades = [RAMP, RAMP // 2, RAMP // 4][:channels]
    data = opencv(kind, np.squeeze(np.stack(shades, axis=-1)))
    off = resized(data).astype(int) - np.asarray(decode_image(data))
    assert np.abs(off).mean() < 2


def test_an_alpha_of_sixteen_bits_is_laid_on_white() -> None:
    clear = np.zeros((SIDE, SIDE, 4), np.uint16)
    clear[: SIDE // 2] = (0, 0, 40_000, 65_535)  # red, as OpenCV orders colours
    pixels = resized(opencv(".png", clear))
    assert np.abs(pixels[8:-40].astype(int) - (40_000 >> 8, 0, 0)).max() < 8
    assert pixels[40:].min() > 250


def test_ten_bits_keep_their_shades() -> None:
    grey = np.full((SIDE, SIDE, 3), 512, np.uint16)
    data = opencv(".avif", grey, cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 95)
    assert abs(resized(data).mean() - 128) < 3


def test_eight_bits_are_img2datasets_own() -> None:
    from img2dataset import resizer

    data = io.BytesIO()
    Image.fromarray((RAMP >> 7).astype(np.uint8)).save(data, "PNG")
    theirs, *_ = resizer.Resizer(SIDE, "keep_ratio", True, encode_quality=100)(io.BytesIO(data.getvalue()))
    mine = Resizer(side=SIDE, mode="keep_ratio", quality=100, only_if_bigger=True)(data.getvalue())
    assert mine.data == theirs
