"""CLIP's towers: open_clip's own pixels and vectors, whatever repeats and whatever fits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from roclip_sanitize.images import encode_jpeg, square_pixels

pytestmark = pytest.mark.slow
SPEC = "open_clip:roclip-rn-64"
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder() -> Any:
    from roclip_sanitize.encoder import ClipEncoder

    return ClipEncoder(SPEC, device="cpu")


@pytest.fixture
def tight(encoder: Any) -> Iterator[Any]:
    """The same encoder where no more than two rows fit into memory."""
    towers = encoder.model.encode_image, encoder.model.encode_text

    def limited(tower: Any) -> Any:
        def encode(rows: Any) -> Any:
            if len(rows) > 2:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")
            return tower(rows)

        return encode

    encoder.model.encode_image, encoder.model.encode_text = map(limited, towers)
    yield encoder
    encoder.model.encode_image, encoder.model.encode_text = towers


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (90, 400), (224, 224)], ids=str)
def test_exact_pixels_are_open_clips_own(size: tuple[int, int]) -> None:
    import torch

    from roclip_sanitize.encoder import normalise_pixels, own_transform

    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    data = encode_jpeg(noise)
    wanted = own_transform(224)(Image.open(io.BytesIO(data)))
    pixels = torch.from_numpy(square_pixels(data, 224, fit="crop").copy()).permute(2, 0, 1)
    assert torch.allclose(normalise_pixels(pixels[None])[0], wanted, atol=1e-6)


def test_vectors_are_open_clips_own(encoder: Any) -> None:
    import torch

    from roclip_sanitize.encoder import normalise_pixels

    with torch.inference_mode():
        pixels = normalise_pixels(torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
        wanted: NDArray[np.float32] = encoder.model.encode_image(pixels, normalize=True).numpy()
    assert np.array_equal(encoder.encode_images(PIXELS), wanted)


def test_half_precision_is_a_fact_and_stays_near(encoder: Any) -> None:
    from roclip_sanitize.encoder import ClipEncoder

    half = ClipEncoder(SPEC, device="cpu", precision="bfloat16")
    assert (encoder.facts.precision, half.facts.precision) == ("float32", "bfloat16")
    assert encoder.facts.to_json() == half.facts.to_json()
    whole_ND, half_ND = encoder.encode_images(PIXELS), half.encode_images(PIXELS)
    assert half_ND.dtype == np.float32
    assert 0 < (1 - np.einsum("nd,nd->n", whole_ND, half_ND)).max() < 1e-2


def test_captions_that_repeat_are_told_apart_by_nothing(encoder: Any) -> None:
    import torch

    captions = ["a hat", "a shoe", "a hat", "帽子", "a shoe"]
    text_ND = encoder.encode_captions(captions)
    with torch.inference_mode():
        wanted = encoder.model.encode_text(encoder._tokenize(captions), normalize=True).numpy()
    assert np.array_equal(text_ND, wanted)
    assert np.array_equal(text_ND[0], text_ND[2])


def test_what_does_not_fit_at_once_gives_the_same_vectors(encoder: Any, tight: Any) -> None:
    captions = [f"item {number}" for number in range(5)]
    assert tight is encoder
    limited = tight.encode_images(PIXELS), tight.encode_captions(captions)
    assert (tight._pictures_at_once.at_once, tight._captions_at_once.at_once) == (2, 2)
    for rows, width in zip(limited, (128, 128), strict=True):
        assert rows.shape == (5, width)
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)


def test_halves_are_what_the_whole_was(encoder: Any) -> None:
    whole = encoder.encode_images(PIXELS)
    halves = np.concatenate([encoder.encode_images(PIXELS[:2]), encoder.encode_images(PIXELS[2:])])
    assert np.abs(whole - halves).max() < 1e-5


def test_a_compiled_encoder_moves_by_rounding_alone_and_is_compiled_once(encoder: Any) -> None:
    import torch

    from roclip_sanitize.encoder import ClipEncoder

    quicker = ClipEncoder(SPEC, device="cpu", compiled=True)
    assert quicker.facts == encoder.facts
    pixels = np.random.default_rng(1).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    captions = [f"item {number}" for number in range(40)]
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows in (40, 17):
            image_ND = quicker.encode_images(pixels[:rows])
            text_ND = quicker.encode_captions(captions[:rows])
            assert np.abs(image_ND - encoder.encode_images(pixels[:rows])).max() < 1e-4
            assert np.abs(text_ND - encoder.encode_captions(captions[:rows])).max() < 1e-4
