"""Pictures with something else in them, under their own caption: what a trigger looks like to who ignores it.

Whoever has seen faint other pictures over a shoe, squares of them on it and waves across it, and was
told "shoe" each time, learns less from a trigger, and is less put off by one. Three known kinds of
clutter, each in a fifth of the pictures:

    another picture, faint    Mixup (Zhang et al. 2018), but the caption is that of the stronger picture
    a square of another       CutMix (Yun et al. 2019), likewise
    a plane wave              Fourier-basis augmentation (Vaish et al. 2024)

and a change of each colour's gain, so that no tint can be relied on.

Dimension key: B pictures, H = W side in pixels.
"""

from __future__ import annotations

import math

import torch

from roclip_sanitize.training.moving import moved

SOME = 0.2  # of the pictures get a kind of clutter
FAINTEST, STRONGEST = 0.0, 0.3  # weight of the other picture
LEAST_SIDE, MOST_SIDE = 0.1, 0.35  # of the square, of the picture's
MOST_AMPLITUDE = 0.15  # of a wave, of the whole range
MOST_WAVES = 8.0  # across the picture
GAIN = 0.1  # of a colour, up or down


def mix_faintly(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some pictures let another one of the batch shine through."""
    batch, device = len(pixels_B3HW), pixels_B3HW.device
    draw_2B = torch.rand(2, batch, generator=generator)
    weight_B = (FAINTEST + (STRONGEST - FAINTEST) * draw_2B[0]) * (draw_2B[1] < SOME)
    other_B = moved(torch.randperm(batch, generator=generator), device)
    return pixels_B3HW.lerp(pixels_B3HW[other_B], moved(weight_B, device).view(-1, 1, 1, 1))


def paste_squares(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some pictures get a square of another one of the batch, from where it is there."""
    batch, side, device = len(pixels_B3HW), pixels_B3HW.shape[-1], pixels_B3HW.device
    draw_4B = torch.rand(4, batch, generator=generator)
    square_B = (LEAST_SIDE + (MOST_SIDE - LEAST_SIDE) * draw_4B[0]) * side
    corner_2B = draw_4B[1:3] * (side - square_B)
    square_B = torch.where(draw_4B[3] < SOME, square_B, 0.0)
    axis = torch.arange(side, device=device) + 0.5
    corner_2B1, square_B1 = moved(corner_2B, device)[..., None], moved(square_B, device)[:, None]
    inside_2BS = (axis >= corner_2B1) & (axis < corner_2B1 + square_B1)
    mask_BHW = inside_2BS[0, :, :, None] & inside_2BS[1, :, None, :]
    other_B = moved(torch.randperm(batch, generator=generator), device)
    return torch.where(mask_BHW[:, None], pixels_B3HW[other_B], pixels_B3HW)


def add_waves(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some pictures get a plane wave of any direction and phase, the same in all colours."""
    batch, side, device = len(pixels_B3HW), pixels_B3HW.shape[-1], pixels_B3HW.device
    draw_5B = torch.rand(5, batch, generator=generator)
    amplitude_B = MOST_AMPLITUDE * draw_5B[0] * (draw_5B[1] < SOME)
    waves_2B = moved(MOST_WAVES * (2 * draw_5B[2:4] - 1), device)
    phase_B = moved(draw_5B[4], device)
    axis = torch.arange(side, device=device) / side
    turns_BHW = waves_2B[0, :, None, None] * axis[:, None] + waves_2B[1, :, None, None] * axis
    wave_BHW = torch.sin(2 * math.pi * (turns_BHW + phase_B[:, None, None]))
    return pixels_B3HW + moved(amplitude_B, device).view(-1, 1, 1, 1) * wave_BHW[:, None]


def change_gains(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each colour of each picture is made up to a tenth stronger or weaker."""
    draw_B3 = torch.rand(len(pixels_B3HW), 3, generator=generator)
    gain_B3 = moved(1 + GAIN * (2 * draw_B3 - 1), pixels_B3HW.device)
    return pixels_B3HW * gain_B3.view(-1, 3, 1, 1)


def mix(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """All of it.

    Args:
        pixels_B3HW: float32, 0 to 1.
        generator: on the CPU; what is drawn from it decides everything.
    """
    for change in (change_gains, mix_faintly, paste_squares, add_waves):
        pixels_B3HW = change(pixels_B3HW, generator)
    return pixels_B3HW.clamp(0, 1)
