"""Bytes → the picture as a shard has it. Door to img2dataset, whose resizer and keys these are.

Its downloader is not used: it reads bodies of any length, for any time, from anywhere, and takes pictures
that were only encoded again for others. Nor is its writer: its bytes depend on the order of arrival.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import BadPair
from roclip_sanitize.images import eight_bits
from roclip_sanitize.records import FailureReason

ResizeMode = Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"]
SHARD_DIGITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """A picture as it goes into a shard.

    Attributes:
        data: JPEG.
        width, height: its pixels.
        original_width, original_height: pixels of the one that it was made of.
    """

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int


class Resizer:
    """img2dataset's resizer. May be called from several threads at once."""

    def __init__(self, *, side: int, mode: ResizeMode, quality: int, only_if_bigger: bool) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or the import asks the network for news
        from img2dataset import resizer

        # It points the process's stdout and stderr elsewhere around each picture, which two threads at once
        # never get back; the pictures that OpenCV would complain of are refused before.
        resizer.SuppressStdoutStderr = contextlib.nullcontext
        if not isinstance(resizer.cv2, _OpenCV):
            resizer.cv2 = _OpenCV(resizer.cv2)
        self._resize: Any = resizer.Resizer(
            image_size=side,
            resize_mode=mode,
            resize_only_if_bigger=only_if_bigger,
            encode_quality=quality,
        )

    def __call__(self, data: bytes) -> Resized:
        """Resize a picture that decode_image() takes.

        Raises:
            BadPair: OpenCV does not know it.
        """
        image, width, height, original_width, original_height, error = self._resize(io.BytesIO(data))
        if error is not None:
            text = " ".join(str(error).split())[:200]
            raise BadPair(f"{FailureReason.IMAGE_UNDECODABLE}: {text}")
        return Resized(
            data=image,
            width=width,
            height=height,
            original_width=original_width,
            original_height=original_height,
        )


class _OpenCV:
    """OpenCV as the resizer sees it: pictures of 10, 12 or 16 bits come in 8, since JPEG cuts off at 255."""

    def __init__(self, opencv: Any) -> None:
        self._opencv = opencv

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opencv, name)

    def imdecode(self, data: NDArray[np.uint8], flags: int) -> NDArray[np.uint8] | None:
        """Pixels as OpenCV has them: grey, BGR, or BGR and alpha."""
        image: NDArray[Any] | None = self._opencv.imdecode(data, flags)
        if image is None or image.dtype == np.uint8:
            return image
        shallow = eight_bits(data.tobytes())
        return (
            shallow
            if shallow.ndim == 2
            else np.ascontiguousarray(shallow[..., [2, 1, 0, 3][: shallow.shape[2]]])
        )


def key_of(row: int, shard: int, *, rows_per_shard: int) -> str:
    """The key that img2dataset gives a row of a shard, such as "000010042"."""
    from img2dataset.downloader import compute_key

    digits = math.ceil(math.log10(rows_per_shard)) if rows_per_shard > 1 else 1
    return str(compute_key(row, shard, digits, SHARD_DIGITS))
