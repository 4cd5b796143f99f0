"""What a batch goes through before the towers see it, on the device, whole batches at once.

All random numbers of a step are drawn for the whole batch from a generator that depends on
seed and step alone, and each rank takes its slice: the same pairs look the same however many
ranks there are, and after a resume.

    mild     flip, brightness and contrast ± 30 %, a tenth of the words dropped
    strong   mild, and a crop of 60–100 % of the area; half of the pictures get a grey square of 30 % a
             side, half a 3-tap blur

Crops belong to the strong kind: a small model that is trained briefly pays for them in accuracy,
and what the scan left of an attack does not take without them either (benchmarks/LOG.md).

Dimension key: B pairs, H = W side in pixels, L tokens.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from roclip_sanitize.training.settings import Augmentation

LEAST_AREA = 0.6
JITTER = 0.3
WORD_DROP = 0.1
ERASED_SIDE = 0.3
BLUR_TAPS = (1.0, 2.0, 1.0)


def augment_batch(
    pixels_B3HW: torch.Tensor, tokens_BL: torch.Tensor, *, kind: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment one batch.

    Args:
        pixels_B3HW: float32, 0 to 1.
        tokens_BL: int64 token ids, start token first, 0 after the end token.
        kind: how strongly; "none" returns the batch as it is.
        generator: on the CPU; what is drawn from it decides everything.

    Returns:
        Pixels and tokens of the same shapes, types and ranges.
    """
    if kind == "none":
        return pixels_B3HW, tokens_BL
    pixels_B3HW = jitter(flip_some(pixels_B3HW, generator), generator)
    if kind == "strong":
        pixels_B3HW = blur_some(erase_square(crop(pixels_B3HW, generator), generator), generator)
    return pixels_B3HW, drop_words(tokens_BL, generator)


def flip_some(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures are mirrored."""
    chosen_B = (torch.rand(len(pixels_B3HW), generator=generator) < 0.5).to(pixels_B3HW.device)
    return torch.where(chosen_B.view(-1, 1, 1, 1), pixels_B3HW.flip(-1), pixels_B3HW)


def jitter(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Brightness and contrast, each by a factor of 0.7 to 1.3."""
    draw_B2 = torch.rand(len(pixels_B3HW), 2, generator=generator).to(pixels_B3HW.device)
    factor_B2 = 1 + JITTER * (2 * draw_B2 - 1)
    bright = pixels_B3HW * factor_B2[:, 0].view(-1, 1, 1, 1)
    mean_B111 = bright.mean(dim=(1, 2, 3), keepdim=True)
    return ((bright - mean_B111) * factor_B2[:, 1].view(-1, 1, 1, 1) + mean_B111).clamp(0, 1)


def crop(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random part of the picture, of 60 to 100 % of its area, stretched to the whole."""
    batch, device = len(pixels_B3HW), pixels_B3HW.device
    draw_B3 = torch.rand(batch, 3, generator=generator).to(device)
    scale_B = (LEAST_AREA + (1 - LEAST_AREA) * draw_B3[:, 0]).sqrt()
    theta_B23 = torch.zeros(batch, 2, 3, device=device)
    theta_B23[:, 0, 0] = theta_B23[:, 1, 1] = scale_B
    theta_B23[:, :, 2] = (2 * draw_B3[:, 1:] - 1) * (1 - scale_B)[:, None]
    grid = functional.affine_grid(theta_B23, list(pixels_B3HW.shape), align_corners=False)
    return functional.grid_sample(pixels_B3HW, grid, padding_mode="border", align_corners=False)


def erase_square(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures lose a square of 30 % a side to grey, so that no small mark can be relied on."""
    side = pixels_B3HW.shape[-1]
    square = round(side * ERASED_SIDE)
    draw_B3 = torch.rand(len(pixels_B3HW), 3, generator=generator).to(pixels_B3HW.device)
    corner_B2 = (draw_B3[:, :2] * (side - square + 1)).long()
    axis = torch.arange(side, device=pixels_B3HW.device)
    inside_B2S = (axis >= corner_B2[..., None]) & (axis < corner_B2[..., None] + square)
    mask_BHW = inside_B2S[:, 0, :, None] & inside_B2S[:, 1, None, :] & (draw_B3[:, 2] < 0.5).view(-1, 1, 1)
    return pixels_B3HW.masked_fill(mask_BHW[:, None], 0.5)


def blur_some(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures are blurred with the separable kernel (1, 2, 1) / 4."""
    chosen_B = (torch.rand(len(pixels_B3HW), generator=generator) < 0.5).to(pixels_B3HW.device)
    taps = torch.tensor(BLUR_TAPS, device=pixels_B3HW.device) / sum(BLUR_TAPS)
    kernel = (taps[:, None] * taps).expand(3, 1, 3, 3)
    padded = functional.pad(pixels_B3HW, (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=3)
    return torch.where(chosen_B.view(-1, 1, 1, 1), blurred, pixels_B3HW)


def drop_words(tokens_BL: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Drop a tenth of the tokens between start and end; what follows moves up, the end stays the end."""
    draw_BL = torch.rand(tokens_BL.shape, generator=generator).to(tokens_BL.device)
    length_B = (tokens_BL != 0).sum(dim=1)
    place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    framed_BL = (place_L == 0) | (place_L == length_B[:, None] - 1)
    kept_BL = (tokens_BL != 0) & (framed_BL | (draw_BL >= WORD_DROP))
    order_BL = (~kept_BL).long().argsort(dim=1, stable=True)  # kept ones first, in their order
    return torch.where(kept_BL, tokens_BL, 0).gather(1, order_BL)
