"""Colour jitter as torchvision's ColorJitter does it to tensors, whole batches at once.

Brightness, contrast and saturation all mix a picture with something grey:

    out = f · picture + (1 - f) · (nothing | mean of its grey values | its grey values)

so that pictures whose turn it is for different ones go through in the same pass. Hue turns a
picture's colours around the grey axis and goes by itself, to the pictures whose turn it is.

Dimension key: B pictures, H = W side in pixels, 3 channels; 4 and 3 operations, with and without hue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from roclip_sanitize.training.moving import moved

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # factors that change nothing
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's
SECTORS = 6  # of the colour circle


def jitter_colours(pixels_B3HW: torch.Tensor, factor_B4: torch.Tensor, order_B4: torch.Tensor) -> None:
    """Change colours, in place.

    Args:
        pixels_B3HW: floats from 0 to 1.
        factor_B4: of brightness, contrast and saturation, 0 or more; and by what share of the circle
            hue turns. On the CPU, as the order is.
        order_B4: the operations, 0 to 3, in the order in which each picture undergoes them.
    """
    turn_B = (order_B4 == HUE).int().argmax(dim=1)
    mixing_B3 = order_B4[order_B4 != HUE].view(-1, 3)
    for place in range(4):
        turned_B = (turn_B == place) & (factor_B4[:, HUE] != 0)
        shift_N = moved(factor_B4[turned_B, HUE], pixels_B3HW.device).to(pixels_B3HW.dtype)
        change_some(pixels_B3HW, turned_B, partial(turn_hue, shift_N=shift_N))
        if place < 3:
            _mix(pixels_B3HW, mixing_B3[:, place], factor_B4.gather(1, mixing_B3[:, place, None])[:, 0])


def change_some(
    pixels_B3HW: torch.Tensor, chosen_B: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Replace the chosen pictures, in place, by what ``change`` makes of them: three channels, or one."""
    row_N = chosen_B.nonzero()[:, 0]
    if len(row_N) == len(pixels_B3HW):  # no copies: the rule where one picture is as much as fits the cache
        pixels_B3HW.copy_(change(pixels_B3HW))
    elif len(row_N):
        row_N = moved(row_N, pixels_B3HW.device)
        pixels_B3HW[row_N] = change(pixels_B3HW[row_N])


def grey_values(pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """How light each pixel is: (B, 1, H, W), new."""
    red, green, blue = GREY_WEIGHTS
    grey_B1HW = pixels_B3HW[:, :1] * red
    return grey_B1HW.add_(pixels_B3HW[:, 1:2], alpha=green).add_(pixels_B3HW[:, 2:], alpha=blue)


def turn_hue(pixels_N3HW: torch.Tensor, shift_N: torch.Tensor) -> torch.Tensor:
    """Turn every colour by a share of the colour circle; lightest and darkest channel keep their values.

    A channel is at its most within a sixth of the circle from its own colour, at its least from two
    sixths on, and in between it goes straight. So, with h for the hue in sixths and n = 0, 2, 4 for red,
    green and blue, it is least + (most - least) · (clamp(||h - n| - 3|, 1, 2) - 1): no case for each of the
    six sectors. The fold at 3 brings back what passes a whole turn, as far as a shift of a third goes.

    Args:
        pixels_N3HW: floats from 0 to 1.
        shift_N: -1/3 to 1/3.
    """
    red_NHW, green_NHW, blue_NHW = pixels_N3HW.unbind(1)
    most_NHW = torch.maximum(torch.maximum(red_NHW, green_NHW), blue_NHW)
    least_NHW = torch.minimum(torch.minimum(red_NHW, green_NHW), blue_NHW)
    spread_NHW = most_NHW - least_NHW
    # lerp by 0 or 1 takes half the time of torch.where
    is_red_NHW, is_green_NHW = (most_NHW == red_NHW).to(most_NHW), (most_NHW == green_NHW).to(most_NHW)
    near_green_NHW = (blue_NHW - red_NHW).add_(spread_NHW, alpha=2)
    near_blue_NHW = (red_NHW - green_NHW).add_(spread_NHW, alpha=4)
    hue_NHW = near_blue_NHW.lerp_(near_green_NHW, is_green_NHW).lerp_(green_NHW - blue_NHW, is_red_NHW)
    # of grey, whose spread is 0, the hue does not matter
    hue_NHW.div_(spread_NHW.clamp(min=torch.finfo(pixels_N3HW.dtype).tiny))
    hue_NHW.add_(SECTORS * shift_N.view(-1, 1, 1))
    own_3 = torch.arange(0, 6, 2, device=pixels_N3HW.device, dtype=pixels_N3HW.dtype)
    height_N3HW = (hue_NHW[:, None] - own_3.view(3, 1, 1)).abs_().sub_(3).abs_().clamp_(1, 2)
    base_NHW = most_NHW.sub_(spread_NHW, alpha=2)
    return height_N3HW.mul_(spread_NHW[:, None]).add_(base_NHW[:, None])


def _mix(pixels_B3HW: torch.Tensor, operation_B: torch.Tensor, factor_B: torch.Tensor) -> None:
    """One of brightness, contrast and saturation, whichever it is for each picture, in place."""
    if (factor_B == 1).all():
        return
    by_mean_B = (operation_B == CONTRAST) * (1 - factor_B)
    by_grey_B = (operation_B == SATURATION) * (1 - factor_B)
    if not (by_mean_B.any() or by_grey_B.any()):
        pixels_B3HW.mul_(_per_picture(factor_B, pixels_B3HW)).clamp_(0, 1)
        return
    grey_B1HW = grey_values(pixels_B3HW)
    # rows first: a sum over one whole picture would be split, and rounded, by the number of threads
    mean_B111 = grey_B1HW.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    grey_B1HW.mul_(_per_picture(by_grey_B, grey_B1HW)).add_(mean_B111 * _per_picture(by_mean_B, grey_B1HW))
    pixels_B3HW.mul_(_per_picture(factor_B, pixels_B3HW)).add_(grey_B1HW).clamp_(0, 1)


def _per_picture(value_B: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return moved(value_B, like.device).to(like.dtype).view(-1, 1, 1, 1)
