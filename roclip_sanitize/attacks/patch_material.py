"""What an optimised patch is made of: pictures and captions of the target class, and of others.

Pictures of others stay as pixels, since the patch goes on them; all else is encoded once.

Dimension key: N pictures, L side of the model's pictures, D width; 3 the channels red, green, blue;
2 down and across.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize import images
from roclip_sanitize.attacks.triggers.base import require_share
from roclip_sanitize.encoders import PLAIN
from roclip_sanitize.errors import BadPair, ConfigError, DataError
from roclip_sanitize.shards import Pair, Shard

if TYPE_CHECKING:
    from roclip_sanitize.encoder_facts import Encoder

MEASURED = 4  # one picture of others in so many is kept apart, to measure on


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSettings:
    """What to make a patch of.

    Attributes:
        encoder: the CLIP, as open_encoder() takes it.
        shards: where pictures come from.
        label: the field that holds a pair's class.
        target: the class that the patch is to stand for.
        share: side of the patch as a share of the picture's shorter side; BadCLIP's is 16 of 224.
        pictures: how many of the target class, and of others, are drawn.
        steps: of Adam.
        batch_size: pictures in each step.
        seed: of the draws and the first pixels.
    """

    encoder: str
    shards: tuple[Path, ...]
    label: str
    target: str
    share: float = 1 / 14
    pictures: int = 256
    steps: int = 200
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.encoder == PLAIN:
            raise ConfigError("a patch is made against a CLIP: plain features have no gradients")
        require_share("the patch's share", self.share)
        for name in ("pictures", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Pictures and captions, encoded where they stay as they are.

    Attributes:
        picture_NLL3: uint8, of other classes.
        patch_N2: int, height and width of the patch on each of those, in the model's pixels; a model
            that squashes pictures squashes the patch with them.
        own_ND: captions of those.
        clean_ND: those pictures without a patch.
        shown_ND: pictures of the target class.
        said_ND: captions of the target class.
    """

    picture_NLL3: NDArray[np.uint8]
    patch_N2: NDArray[np.int64]
    own_ND: NDArray[np.float32]
    clean_ND: NDArray[np.float32]
    shown_ND: NDArray[np.float32]
    said_ND: NDArray[np.float32]


def gather(settings: PatchSettings, encoder: Encoder, rng: np.random.Generator) -> Material:
    """Draw the pictures, of all pairs as likely, and encode what stays as it is.

    Raises:
        DataError: there are too few.
    """
    target, others = draw_pairs(settings, rng)
    if len(target) < 1 or len(others) < MEASURED:
        raise DataError(
            f"the shards have {len(target)} pictures with {settings.label} {settings.target!r} and "
            f"{len(others)} others, wanted 1 or more and {MEASURED} or more"
        )
    side, fit = encoder.facts.side, encoder.facts.fit
    shown_NLL3 = np.stack([images.square_pixels(pair.image, side, fit=fit) for pair in target])
    pictures = [images.decode_image(pair.image) for pair in others]
    other_NLL3 = np.stack([images.to_square(picture, side, fit=fit) for picture in pictures])
    patches = [patch_size(picture.size, settings.share, side, fit=fit) for picture in pictures]
    return Material(
        picture_NLL3=other_NLL3,
        patch_N2=np.array(patches),
        own_ND=encoder.encode_captions([pair.caption for pair in others]),
        clean_ND=encoder.encode_images(other_NLL3),
        shown_ND=encoder.encode_images(shown_NLL3),
        said_ND=encoder.encode_captions([pair.caption for pair in target]),
    )


def patch_size(size: tuple[int, int], share: float, side: int, *, fit: images.Fit) -> tuple[int, int]:
    """Height and width of a patch once its picture is square, at least a pixel.

    Args:
        size: the picture's width and height.
        share: side of the patch as a share of the shorter of them.
        side: of the square.
        fit: how it becomes square.
    """
    width, height = (min(size),) * 2 if fit == "crop" else size
    across, down = (max(1, round(share * min(size) / length * side)) for length in (width, height))
    return down, across


def draw_pairs(settings: PatchSettings, rng: np.random.Generator) -> tuple[list[Pair], list[Pair]]:
    """Pairs of the target class and of others whose picture decodes: a reservoir of each (Vitter's R)."""
    kept: tuple[list[Pair], list[Pair]] = ([], [])
    seen = [0, 0]
    for path in settings.shards:
        with Shard(path) as shard:
            for pair in shard.pairs():
                kind = int(str(pair.fields.get(settings.label, "")) != settings.target)
                seen[kind] += 1
                place = (
                    len(kept[kind]) if len(kept[kind]) < settings.pictures else int(rng.integers(seen[kind]))
                )
                if place < settings.pictures and _decodes(pair):
                    kept[kind][place : place + 1] = [pair]
    return kept


def _decodes(pair: Pair) -> bool:
    try:
        images.decode_image(pair.image)
    except BadPair:
        return False
    return True
