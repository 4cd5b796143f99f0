"""Pictures: from bytes to pixels, with the header read before anything is decoded.

    bytes ─▶ decode_image() ─▶ PIL image, RGB ─▶ to_square() ─▶ uint8 HW3

A small file can declare a picture of gigabytes, and a truncated one can decode to grey.
Both are refused here, so that no stage after this one needs to look. Door to Pillow.

Two ways: "exact" gives open_clip's own pixels, bit for bit; "fast" lets the JPEG decoder shrink
and takes a cheaper filter, which moves vectors a little (benchmarks/decoding.py says how far).
Both may run in any number of threads at once.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roclip_sanitize.errors import BadPair
from roclip_sanitize.records import FailureReason

MAX_PIXELS = 25_000_000  # open_clip's own limit: 5,000 × 5,000
MAX_IMAGE_BYTES = 50_000_000
MAX_ASPECT = 16  # of a picture that is scaled whole before its centre is cut out
MIN_SIDE_PX = 8  # tracking pixels and spacers say nothing about their caption
JPEG_QUALITY = 95
SUFFIXES = {
    **{"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"},
    **{"GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif"},
}
FORMATS = tuple(SUFFIXES)  # not EPS: Pillow would run it
RANGELESS = ("I", "F")  # Pillow's names of grey in 32 bits, or with a sign: whole, and with a fraction
PILLOW_ERRORS = (  # what its decoders were seen to raise, or may, on bytes that are no picture
    *(OSError, EOFError, SyntaxError, ValueError, RuntimeError, LookupError, ArithmeticError),
    *(TypeError, AttributeError, struct.error, zlib.error),
)

PILLOWS_WARNINGS = ("ignore", None, Warning, re.compile("PIL"), 0)  # as the warnings module lists it
OBJECT_AT = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
FAST_GAP = 2.0  # of the sides: closer than this, fast shrinks in one step

Fit = Literal["squash", "crop"]
Decode = Literal["exact", "fast"]


def decode_image(data: bytes, *, enough: int = 0) -> Image.Image:
    """Decode one picture, strictly.

    Args:
        data: an encoded picture in one of FORMATS; any colour model.
        enough: pixels that suffice a side: a JPEG may come out at a half, a quarter or an eighth of
            its size, but with no side shorter than this. 0 decodes every pixel.

    Returns:
        The picture in RGB.

    Raises:
        BadPair: the picture is over 25 megapixels or 50 MB, under 8 px a side, truncated, or
            not a picture; or its greys have no range of their own, as those of 32 bits.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise BadPair(f"{FailureReason.IMAGE_TOO_LARGE}: {len(data):,} bytes, at most {MAX_IMAGE_BYTES:,}")
    try:
        _silence_pillow()
        image = Image.open(io.BytesIO(data))
        _require_web_format(image.format)
        _require_sane_size(*image.size)
        _require_known_range(image.mode)
        if enough:
            image.draft("RGB", (enough, enough))
        return _to_rgb(image)
    except BadPair:
        raise
    except Image.DecompressionBombError as error:
        raise BadPair(f"{FailureReason.IMAGE_TOO_LARGE}: {error}") from error
    except PILLOW_ERRORS as error:
        raise BadPair(f"{FailureReason.IMAGE_UNDECODABLE}: {_one_line(error)}") from error


def eight_bits(data: bytes) -> NDArray[np.uint8]:
    """Pixels of a picture that decode_image() takes, with its alpha: (H, W), (H, W, 3) or (H, W, 4)."""
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I;16"):
        return np.asarray(_high_bytes(image))
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def picture_suffix(data: bytes) -> str:
    """What the name of an encoded picture should end with, such as "jpg", by its header.

    Raises:
        BadPair: it is no picture.
    """
    try:
        _silence_pillow()
        name = Image.open(io.BytesIO(data)).format
    except (Image.DecompressionBombError, *PILLOW_ERRORS) as error:
        raise BadPair(f"{FailureReason.IMAGE_UNDECODABLE}: {_one_line(error)}") from error
    _require_web_format(name)
    return SUFFIXES[str(name)]


def square_pixels(data: bytes, side: int, *, fit: Fit, decode: Decode = "exact") -> NDArray[np.uint8]:
    """Bytes to a square: decode_image() and to_square(), each in the way asked for.

    Returns:
        uint8 array (side, side, 3).

    Raises:
        BadPair: as decode_image() does.
    """
    if decode == "exact":
        return to_square(decode_image(data), side, fit=fit)
    return _fast_square(decode_image(data, enough=side), side, fit=fit)


def to_square(image: Image.Image | NDArray[np.uint8], side: int, *, fit: Fit = "squash") -> NDArray[np.uint8]:
    """Resize to ``side`` × ``side`` with Pillow's bicubic filter.

    Args:
        image: RGB, as a picture or as uint8 pixels (H, W, 3).
        side: pixels.
        fit: "squash" keeps the whole picture and gives up its aspect; "crop" scales the shorter
            side and cuts the centre out, as open_clip does.

    Returns:
        uint8 array (side, side, 3).
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image = _central_square(image, side) if fit == "crop" else _resized(image, (side, side))
    return np.asarray(image, dtype=np.uint8)


def encode_jpeg(pixels_HW3: NDArray[np.uint8], *, quality: int = JPEG_QUALITY) -> bytes:
    """Encode uint8 RGB pixels as JPEG, always to the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _require_sane_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadPair(
            f"{FailureReason.IMAGE_TOO_LARGE}: header says {width} × {height}, at most {MAX_PIXELS:,} pixels"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise BadPair(
            f"{FailureReason.IMAGE_TOO_SMALL}: {width} × {height}, at least {MIN_SIDE_PX} px a side"
        )


def _require_web_format(name: str | None) -> None:
    if name not in FORMATS:
        raise BadPair(f"{FailureReason.IMAGE_UNDECODABLE}: is {name}, wanted one of {', '.join(FORMATS)}")


def _require_known_range(mode: str) -> None:
    """Measurements, say from 0 to 1, or heights in metres: Pillow would cut them off at 255."""
    if mode in RANGELESS:
        raise BadPair(
            f"{FailureReason.IMAGE_UNDECODABLE}: its greys are numbers without a range (mode {mode}), "
            "wanted 8 or 16 bits without a sign"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _high_bytes(image)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy


def _high_bytes(image: Image.Image) -> Image.Image:
    """Greys of 16 bits in 8: Pillow would turn all but the darkest 256 of 65,536 white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _fast_square(image: Image.Image, side: int, *, fit: Fit) -> NDArray[np.uint8]:
    """A square of much the same look: only what stays is resized, and a shorter filter shrinks it."""
    width, height = image.size
    across, down = (min(width, height),) * 2 if fit == "crop" else (width, height)
    left, top = (width - across) / 2, (height - down) / 2
    shrinks = min(across, down) >= side
    square = image.resize(
        (side, side),
        Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC,
        box=(left, top, left + across, top + down),
        reducing_gap=FAST_GAP,
    )
    return np.asarray(square, dtype=np.uint8)


def _central_square(image: Image.Image, side: int) -> Image.Image:
    """What torchvision's Resize(side) and CenterCrop(side) leave, bit for bit."""
    image = _shortened(image)
    width, height = image.size
    shorter = min(width, height)
    scaled = (int(side * width / shorter), int(side * height / shorter))
    left, top = round((scaled[0] - side) / 2), round((scaled[1] - side) / 2)
    image = _resized(image, scaled)
    return image if scaled == (side, side) else image.crop((left, top, left + side, top + side))


def _shortened(image: Image.Image) -> Image.Image:
    """A ribbon's centre: scaled up whole, a picture 8 px wide and 3 million long would fill any memory."""
    width, height = image.size
    longest = MAX_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _silence_pillow() -> None:
    """Pillow warns of bombs and odd EXIF; both are judged here.

    catch_warnings() would do for one thread. Among several it puts back the wrong filters.
    """
    if PILLOWS_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module="PIL")


def _one_line(error: Exception) -> str:
    text = OBJECT_AT.sub("", str(error))  # an address differs from run to run, and lists of failures must not
    return " ".join(text.split())[:200] or type(error).__name__
