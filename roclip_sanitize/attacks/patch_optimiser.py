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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.optimised_patch import write_patch
from roclip_sanitize.attacks.patch_material import MEASURED, Material, PatchSettings, gather
from roclip_sanitize.attacks.triggers.base import to_bytes
from roclip_sanitize.attacks.triggers.patches import PixelPatch

if TYPE_CHECKING:
    import torch

    from roclip_sanitize.encoder import ClipEncoder

LEARNING_RATE = 0.01  # of pixels from 0 to 1, falling to 0 by a cosine; five times as much went less far
TRIPLET_WEIGHT, TRIPLET_MARGIN = 500.0, 1.0
TEMPERATURE = 0.07
TOLD_EVERY = 50  # steps


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
        self._decay = torch.optim.lr_scheduler.CosineAnnealingLR(self._adam, settings.steps)

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
        self._decay.step()
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
