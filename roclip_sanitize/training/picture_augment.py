"""The image augmentation of the RoCLIP paper, as its released code has it, on the device.

    flip half · crop 8–100 % of the area, shaped 3:4 to 4:3 · jitter colours of 80 %, in random order ·
    a fifth to grey · blur all, sigma 0.1–2.0

The originals work on single PIL pictures in worker processes; here all draws of a batch are made at
once, and what a picture looks like depends on its own row of them and on nothing else.

Sigma, and the 21 taps of the kernel, are the paper's at 224 pixels a side. On smaller pictures both
shrink with the side, so that the same share of a picture is blurred away.

Dimension key: B pictures, H = W = S side in pixels, T taps of the blur, K tries of a crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch.nn import functional

from roclip_sanitize.training.colour import NEUTRAL, change_some, grey_values, jitter_colours
from roclip_sanitize.training.moving import moved

LEAST_ASPECT = 3 / 4
CROP_TRIES = 10  # torchvision's; a picture of which none fits stays whole
JITTERED = 0.8
JITTER = (0.5, 0.5, 0.5, 0.1)  # brightness, contrast, saturation; hue as a share of the circle
GREYED = 0.2
SIGMAS = (0.1, 2.0)  # pixels of a picture that has REFERENCE_SIDE of them
BLUR_RADIUS = 10  # likewise: a kernel of 21
LEAST_TAP = (
    1e-9  # what float32 cannot see in a sum of 1; the far ends of narrow kernels would be subnormal: slow
)
REFERENCE_SIDE = 224
COLUMNS = [1, CROP_TRIES, CROP_TRIES, 2, 1, 4, 4, 1, 1]  # random numbers that each step of a picture takes
VALUES_AT_ONCE = 160_000  # floats that stay in a core's cache: 1 picture of 224 px, 13 of 64


@dataclass(frozen=True, slots=True)
class PictureDraws:
    """What is done to each picture of a batch. On the CPU.

    Attributes:
        flip_B: whether it is mirrored, before all else.
        box_B4: int64 (top, left, height, width) of the crop in pixels, within the picture.
        factor_B4: float32, as in jitter_colours(); neutral where colours stay.
        order_B4: int64, as in jitter_colours().
        grey_B: whether it loses its colours.
        sigma_B: float32, of the blur, in pixels of a picture of 224 px.
    """

    flip_B: torch.Tensor
    box_B4: torch.Tensor
    factor_B4: torch.Tensor
    order_B4: torch.Tensor
    grey_B: torch.Tensor
    sigma_B: torch.Tensor

    def __getitem__(self, rows: slice) -> PictureDraws:
        return PictureDraws(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw_pictures(count: int, side: int, *, least_area: float, generator: torch.Generator) -> PictureDraws:
    """Decide what happens to ``count`` pictures of ``side`` pixels.

    Args:
        count: B.
        side: S.
        least_area: of a crop, as a share of the picture; the most is 1.
        generator: on the CPU; each picture takes one row of numbers, and rows do not depend on ``count``.
    """
    draw = torch.split(torch.rand(count, sum(COLUMNS), generator=generator), COLUMNS, dim=1)
    flip_B1, area_BK, shape_BK, corner_B2, jitter_B1, factor_B4, order_B4, grey_B1, sigma_B1 = draw
    jitter_4, neutral_4 = torch.tensor(JITTER), torch.tensor(NEUTRAL)
    return PictureDraws(
        flip_B=flip_B1[:, 0] < 0.5,
        box_B4=_boxes(area_BK, shape_BK, corner_B2, side=side, least_area=least_area),
        factor_B4=torch.where(jitter_B1 < JITTERED, neutral_4 + jitter_4 * (2 * factor_B4 - 1), neutral_4),
        order_B4=order_B4.argsort(dim=1),
        grey_B=grey_B1[:, 0] < GREYED,
        sigma_B=SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * sigma_B1[:, 0],
    )


def augment_pictures(pixels_B3HW: torch.Tensor, draws: PictureDraws) -> torch.Tensor:
    """Do to each picture what was drawn for it.

    Args:
        pixels_B3HW: uint8 from 0 to 255, or float32 from 0 to 1; square.
        draws: one row for each picture.

    Returns:
        (B, 3, S, S) float32, 0 to 1, new.
    """
    out_B3HW = torch.empty(pixels_B3HW.shape, device=pixels_B3HW.device)
    at_once = len(pixels_B3HW)
    if pixels_B3HW.device.type == "cpu":  # some forty passes: a third quicker where they stay in the cache
        at_once = max(1, VALUES_AT_ONCE // math.prod(pixels_B3HW.shape[1:]))
    for start in range(0, len(pixels_B3HW), at_once):
        rows = slice(start, start + at_once)
        out_B3HW[rows] = _augmented(pixels_B3HW[rows], draws[rows])
    return out_B3HW


def flip_and_crop(pixels_B3HW: torch.Tensor, draws: PictureDraws) -> torch.Tensor:
    """Mirror, cut the boxes out and stretch them to the whole, bilinearly, in one go.

    Beyond a box's outermost pixels its own edge goes on, as if nothing were around it.
    """
    side = pixels_B3HW.shape[-1]
    top_B, left_B, height_B, width_B = draws.box_B4.float().unbind(1)
    row_BS, column_BS = _places(top_B, height_B, side), _places(left_B, width_B, side)
    column_BS = torch.where(draws.flip_B[:, None], side - 1 - column_BS, column_BS)
    centre_BS2 = moved(torch.stack([column_BS, row_BS], dim=2), pixels_B3HW.device)
    centre_BS2 = (2 * centre_BS2 + 1) / side - 1  # grid_sample's units: -1 and 1 are the outer edges
    grid_BHW2 = centre_BS2.new_empty(len(pixels_B3HW), side, side, 2)
    grid_BHW2[..., 0], grid_BHW2[..., 1] = centre_BS2[:, None, :, 0], centre_BS2[:, :, None, 1]
    return functional.grid_sample(pixels_B3HW, grid_BHW2, padding_mode="border", align_corners=False)


def blur(pixels_B3HW: torch.Tensor, sigma_B: torch.Tensor) -> torch.Tensor:
    """Gaussian blur, each picture by its own sigma, in pixels of a picture of 224 px; edges are mirrored.

    Both directions are products with a matrix that holds the taps, mirrored edges included: more
    arithmetic than a convolution, but of the kind that any machine is best at.
    """
    sigma_B = moved(sigma_B, pixels_B3HW.device).to(pixels_B3HW.dtype)
    matrix_B1SS = blur_matrices(sigma_B, pixels_B3HW.shape[-1])[:, None]
    return matrix_B1SS @ pixels_B3HW @ matrix_B1SS.transpose(2, 3)


def blur_matrices(sigma_B: torch.Tensor, side: int) -> torch.Tensor:
    """(B, S, S): row i holds how much each pixel of a line counts for pixel i of the blurred one."""
    scale = side / REFERENCE_SIDE
    radius = max(1, round(BLUR_RADIUS * scale))
    offset_T = torch.arange(-radius, radius + 1, device=sigma_B.device)
    tap_BT = torch.exp(-0.5 * (offset_T / (sigma_B[:, None] * scale)) ** 2)
    tap_BT = tap_BT / tap_BT.sum(dim=1, keepdim=True)
    tap_BT = functional.threshold(tap_BT, LEAST_TAP, 0.0)
    place_S = torch.arange(side, device=sigma_B.device)
    source_ST = (place_S[:, None] + offset_T).abs()
    source_ST = ((side - 1) - ((side - 1) - source_ST).abs()).clamp(min=0)
    shape = (len(sigma_B), side, 2 * radius + 1)
    matrix_BSS = tap_BT.new_zeros(len(sigma_B), side, side)
    return matrix_BSS.scatter_add_(2, source_ST.expand(shape), tap_BT[:, None].expand(shape))


def _augmented(pixels_B3HW: torch.Tensor, draws: PictureDraws) -> torch.Tensor:
    pixels_B3HW = pixels_B3HW.contiguous()
    if pixels_B3HW.dtype == torch.uint8:
        pixels_B3HW = pixels_B3HW.float() / 255
    pixels_B3HW = flip_and_crop(pixels_B3HW, draws)
    jitter_colours(pixels_B3HW, draws.factor_B4, draws.order_B4)
    change_some(pixels_B3HW, draws.grey_B, grey_values)
    return blur(pixels_B3HW, draws.sigma_B).clamp_(0, 1)


def _boxes(
    area_BK: torch.Tensor, shape_BK: torch.Tensor, corner_B2: torch.Tensor, *, side: int, least_area: float
) -> torch.Tensor:
    """The first of K sizes that fits, anywhere in the picture: (B, 4)."""
    root_BK = (least_area + (1 - least_area) * area_BK).sqrt() * side
    aspect_BK = torch.exp(math.log(LEAST_ASPECT) * (2 * shape_BK - 1)).sqrt()
    size_BK2 = torch.stack([root_BK / aspect_BK, root_BK * aspect_BK], dim=2).round().long()
    fits_BK = ((size_BK2 > 0) & (size_BK2 <= side)).all(dim=2)
    first_B = fits_BK.int().argmax(dim=1)
    size_B2 = size_BK2[torch.arange(len(size_BK2)), first_B]
    size_B2 = torch.where(fits_BK.any(dim=1, keepdim=True), size_B2, side)
    room_B2 = side - size_B2
    corner_B2 = torch.minimum((corner_B2 * (room_B2 + 1)).long(), room_B2)
    return torch.cat([corner_B2, size_B2], dim=1)


def _places(start_B: torch.Tensor, length_B: torch.Tensor, side: int) -> torch.Tensor:
    """Where, in pixels of the picture, each of S pixels of a stretched box comes from: (B, S)."""
    within_BS = (torch.arange(side) + 0.5) * (length_B / side)[:, None] - 0.5
    last_B1 = length_B[:, None] - 1
    return start_B[:, None] + torch.minimum(within_BS.clamp(min=0), last_B1)
