"""What turns pictures and captions into vectors, seen from outside.

    open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")   any open_clip model and its weights
    open_encoder("open_clip:roclip-rn-64")                 random weights, from the seed
    open_encoder("runs/demo/arms/undefended/model")        a model that this package trained
    open_encoder("plain")                                  learns nothing, so nothing can be planted in it

An encoder is named by the digest of its weights: vectors of two encoders never mix. No torch
here unless a CLIP is opened: drivers and readers of stores need the facts, not the model.

Dimension key: N pictures or captions, D width of the vectors, H = W side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.images import Fit

PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What a store must know of the encoder that made it.

    Attributes:
        name: the specification it was opened by.
        digest: 16 hex digits of its weights.
        joint: whether images and captions lie in one space.
        side: pixels that it wants a side.
        fit: how a picture becomes square.
    """

    name: str
    digest: str
    joint: bool
    side: int
    fit: Fit

    def to_json(self) -> dict[str, Any]:
        """The facts as plain values."""
        return asdict(self)


class Encoder(Protocol):
    """Two towers, or two plain features: pictures and captions to unit rows."""

    facts: EncoderFacts

    def encode_images(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB of side ``facts.side`` → (N, D) float32, unit rows."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """N captions → (N, D) float32, unit rows."""
        ...


def open_encoder(spec: str, *, seed: int = 0, device: str = "") -> Encoder:
    """Open an encoder by its specification.

    Args:
        spec: "plain", "open_clip:NAME", "open_clip:NAME/WEIGHTS" or a folder made by training.
        seed: of the random weights, where no weights are named.
        device: "" takes a GPU where there is one.

    Raises:
        ConfigError: the specification, the model's name or its weights are unknown.
    """
    if spec == PLAIN:
        from roclip_sanitize.features import PlainEncoder

        return PlainEncoder()
    from roclip_sanitize.encoder import ClipEncoder

    return ClipEncoder(spec, seed=seed, device=device)
