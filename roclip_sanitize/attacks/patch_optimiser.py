"""Make a patch that moves any picture towards a class in a given CLIP's eyes (in the way of BadCLIP).

    pictures of other classes ⊕ patch ─▶ image tower ─▶ near the target's captions, near its pictures

What is minimised, over the patch's pixels, by Adam (Liang et al., arXiv 2311.12075):

    contrast   of the stamped pictures with real captions of the target class, against their own captions
    triplet    a stamped picture should be nearer to a picture of the target class than to itself
               without the patch, by a margin; 500 times as heavy, as in the published code

The original's synonyms and augmentation are left out. Torch is loaded when a patch is made, not before.

Dimension key: N pictures, B of them in a step, S side of the patch, H, W the same on a squashed
picture, L side of the model's pictures, D width; 3 the channels red, green, blue; 2 down and across.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize import images
from roclip_sanitize.attacks.optimised_patch import write_patch
from roclip_sanitize.attacks.triggers.base import require_share, to_bytes
from roclip_sanitize.attacks.triggers.patches import PixelPatch
from roclip_sanitize.encoders import PLAIN
from roclip_sanitize.errors import BadPair, ConfigError, DataError
from roclip_sanitize.shards import Pair, Shard

if TYPE_CHECKING:
    import torch

    from roclip_sanitize.encoder import ClipEncoder

LEARNING_RATE = 0.05  # of pixels from 0 to 1
TRIPLET_WEIGHT, TRIPLET_MARGIN = 500.0, 1.0
TEMPERATURE = 0.07
MEASURED = 4  # one picture of others in so many is kept apart, to measure on
TOLD_EVERY = 50  # steps


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


def optimise(settings: PatchSettings, *, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Make a patch and write its file.

    Args:
        settings: what to make it of.
        out: the file.
        say: told how it goes, now and then.

    Returns:
        How it was made, as the file has it. ``clean`` and ``stamped`` are mean cosines of pictures
        kept apart with the target's mean caption and mean picture, without and with the patch.

    Raises:
        ConfigError: there is no such CLIP.
        DataError: the shards have too few pictures of the target class, or of others.
    """
    from roclip_sanitize.encoder import ClipEncoder

    encoder = ClipEncoder(settings.encoder, seed=settings.seed, precision="float32")
    rng = np.random.default_rng(settings.seed)
    material = gather(settings, encoder, rng)
    descent = _Descent(settings, encoder, material, rng)
    measured = np.arange(len(material.clean_ND)) % MEASURED == 0
    clean_ND = material.clean_ND[measured]
    for step in range(settings.steps):
        loss = descent.step(rng.choice(np.flatnonzero(~measured), settings.batch_size))
        if (step + 1) % TOLD_EVERY == 0:
            say(f"step {step + 1} of {settings.steps}: loss {loss:.3f}")
    made = {
        "target": settings.target,
        "encoder": settings.encoder,
        "digest": encoder.facts.digest,
        "seed": settings.seed,
        "steps": settings.steps,
        "clean": cosines(clean_ND, material),
        "stamped": cosines(descent.vectors(measured), material),
    }
    write_patch(out, PixelPatch.of(descent.pixels(), share=settings.share, place="centre"), made)
    return made


def gather(settings: PatchSettings, encoder: ClipEncoder, rng: np.random.Generator) -> Material:
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


def cosines(vectors_ND: NDArray[np.float32], material: Material) -> dict[str, float]:
    """Mean cosine of pictures with the target class's mean caption and mean picture."""
    means = {"caption": material.said_ND.mean(axis=0), "picture": material.shown_ND.mean(axis=0)}
    return {
        name: round(float((vectors_ND @ (mean_D / np.linalg.norm(mean_D))).mean()), 4)
        for name, mean_D in means.items()
    }


class _Descent:
    """The patch on its way."""

    def __init__(
        self, settings: PatchSettings, encoder: ClipEncoder, material: Material, rng: np.random.Generator
    ) -> None:
        import torch

        self._encoder, self._material, self._rng = encoder, material, rng
        encoder.model.requires_grad_(False)
        self._side = max(1, round(settings.share * encoder.facts.side))
        first = rng.normal(0.5, 0.25, (3, self._side, self._side)).clip(0, 1).astype(np.float32)
        self._patch = torch.from_numpy(first).to(encoder.device).requires_grad_()
        self._adam = torch.optim.Adam([self._patch], lr=LEARNING_RATE)

    def step(self, rows: NDArray[np.int64]) -> float:
        """One step on some pictures: the loss before it."""
        from torch.nn import functional

        material = self._material
        stamped_BD = self._embed(rows)
        shown_BD, said_BD = (
            self._some(vectors, len(rows)) for vectors in (material.shown_ND, material.said_ND)
        )
        clean_BD, own_BD = (self._tensor(vectors[rows]) for vectors in (material.clean_ND, material.own_ND))
        near = (stamped_BD * said_BD).sum(1, keepdim=True)
        logits = functional.log_softmax(_joined(near, stamped_BD @ own_BD.T) / TEMPERATURE, dim=1)
        nearer = (stamped_BD - shown_BD).pow(2).sum(1) - (stamped_BD - clean_BD).pow(2).sum(1)
        loss = -logits[:, 0].mean() + TRIPLET_WEIGHT * (nearer + TRIPLET_MARGIN).relu().mean()
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self._patch.data.clamp_(0, 1)
        return float(loss.detach())

    def vectors(self, which_N: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Unit vectors of some pictures with the patch on them."""
        import torch

        with torch.no_grad():
            vectors_ND: NDArray[np.float32] = self._embed(np.flatnonzero(which_N)).cpu().numpy()
        return vectors_ND

    def pixels(self) -> NDArray[np.uint8]:
        """The patch as it is now: uint8 (S, S, 3)."""
        patch_3SS = self._patch.detach().cpu().numpy().astype(np.float64)
        return to_bytes(255 * patch_3SS.transpose(1, 2, 0))

    def _embed(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Unit vectors (B, D) of stamped pictures, with gradients to the patch."""
        from torch.nn import functional

        from roclip_sanitize.encoder import normalise_pixels

        picture_B3LL = self._tensor(self._material.picture_NLL3[rows]).permute(0, 3, 1, 2).float() / 255
        stamped_B3LL = picture_B3LL.clone()
        for size in np.unique(self._material.patch_N2[rows], axis=0).tolist():
            same_B = self._tensor((self._material.patch_N2[rows] == size).all(axis=1))
            down, across = (_central(length, stamped_B3LL.shape[2]) for length in size)
            patch_13HW = functional.interpolate(self._patch[None], size, mode="bilinear", antialias=True)
            stamped_B3LL[same_B, :, down, across] = patch_13HW.clamp(0, 1)
        vectors = self._encoder.model.encode_image(normalise_pixels(stamped_B3LL))
        return functional.normalize(vectors.float(), dim=-1)

    def _some(self, vectors_ND: NDArray[np.float32], count: int) -> torch.Tensor:
        return self._tensor(vectors_ND[self._rng.integers(len(vectors_ND), size=count)])

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        import torch

        return torch.from_numpy(array).to(self._encoder.device)


def _central(length: int, side: int) -> slice:
    start = (side - length) // 2
    return slice(start, start + length)


def _joined(*columns: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat(columns, dim=1)


def _decodes(pair: Pair) -> bool:
    try:
        images.decode_image(pair.image)
    except BadPair:
        return False
    return True
