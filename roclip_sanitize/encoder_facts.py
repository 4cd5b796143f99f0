"""What every encoder promises, and what a store must know of the one that made it.

No torch here: drivers and readers of stores need the facts, not the model.

Dimension key: N pictures or captions, D width of the vectors, H = W side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.images import Fit
from roclip_sanitize.storage import exists

OPEN_CLIP = "open_clip:"
MODEL_FOLDER = "model"  # of a training: the trained weights
MODEL_FILE = "model.json"  # beside weights: which open_clip model they are of
WEIGHTS_FILE = "weights.safetensors"

Precision = Literal["float32", "bfloat16"]
AskedPrecision = Literal["auto", "float32", "bfloat16"]  # auto: bfloat16 on a GPU, float32 elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What a store must know of the encoder that made it.

    Attributes:
        name: the specification it was opened by.
        digest: 16 hex digits of its weights.
        joint: whether images and captions lie in one space.
        side: pixels that it wants a side.
        fit: how a picture becomes square.
        precision: what its matrices are multiplied in; "" where there are none.
    """

    name: str
    digest: str
    joint: bool
    side: int
    fit: Fit
    precision: Precision | Literal[""] = ""

    def to_json(self) -> dict[str, Any]:
        """What names the encoder, as plain values. The precision is not of it: the machine chooses that."""
        return {name: value for name, value in asdict(self).items() if name != "precision"}


class Encoder(Protocol):
    """Two towers, or two plain features: pictures and captions to unit rows."""

    facts: EncoderFacts

    def encode_images(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB of side ``facts.side`` → (N, D) float32, unit rows."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """N captions → (N, D) float32, unit rows."""
        ...


def weights_folder(told: Path) -> Path | None:
    """The folder of weights that is meant; None where there are none.

    Args:
        told: that folder, the training's around it, or the file of weights in it.
    """
    meant = (told, told / MODEL_FOLDER, *([told.parent] if told.name == WEIGHTS_FILE else []))
    return next((folder for folder in meant if exists(folder / MODEL_FILE)), None)
