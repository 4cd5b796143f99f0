"""The paper's augmentation of pictures, against torchvision on single pictures in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as reference

from roclip_sanitize.training.colour import HUE, NEUTRAL, jitter_colours, turn_hue
from roclip_sanitize.training.picture_augment import (
    JITTER,
    SIGMAS,
    PictureDraws,
    augment_pictures,
    blur,
    blur_matrices,
    draw_pictures,
    flip_and_crop,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(7))


def drawn(count: int, side: int, seed: int = 0, least_area: float = 0.08) -> PictureDraws:
    return draw_pictures(count, side, least_area=least_area, generator=seeded(seed))


def jittered(picture: torch.Tensor, factors: list[float], order: list[int]) -> torch.Tensor:
    steps = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    for step in order:
        picture = steps[step](picture, factors[step])
    return picture


def one_by_one(picture: torch.Tensor, draws: PictureDraws, row: int) -> torch.Tensor:
    side = picture.shape[-1]
    picture = picture.double()
    if draws.flip_B[row]:
        picture = reference.hflip(picture)
    picture = reference.resized_crop(picture, *draws.box_B4[row].tolist(), [side, side])
    picture = jittered(picture, draws.factor_B4[row].tolist(), draws.order_B4[row].tolist())
    if draws.grey_B[row]:
        picture = reference.rgb_to_grayscale(picture, 3)
    taps = 2 * max(1, round(10 * side / 224)) + 1  # 21 at 224 px
    blurred: torch.Tensor = reference.gaussian_blur(picture, taps, float(draws.sigma_B[row]) * side / 224)
    return blurred


@pytest.mark.parametrize(("count", "side"), [(2, 224), (16, 64), (40, 20), (20, 3)])
def test_pictures_come_out_as_torchvision_makes_them(count: int, side: int) -> None:
    draws = drawn(count, side)
    found = augment_pictures(pictures(count, side), draws)
    wanted = [one_by_one(picture, draws, row) for row, picture in enumerate(pictures(count, side))]
    assert (found - torch.stack(wanted)).abs().max() < 1e-4  # a fortieth of one of 255 levels


@pytest.mark.parametrize("side", [1, 2, 64])
def test_type_range_and_shape(side: int) -> None:
    extreme = pictures(30, side).round()
    found = augment_pictures(extreme, drawn(30, side))
    assert (found.shape, found.dtype) == (extreme.shape, torch.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(extreme, pictures(30, side).round())  # what came in is untouched


def test_bytes_as_a_cache_holds_them_and_floats_are_the_same() -> None:
    bytes_BHW3 = (pictures(20, 64).permute(0, 2, 3, 1) * 255).to(torch.uint8).contiguous()
    bytes_B3HW = bytes_BHW3.permute(0, 3, 1, 2)
    found = augment_pictures(bytes_B3HW, drawn(20, 64))
    assert torch.equal(found, augment_pictures(bytes_B3HW.float() / 255, drawn(20, 64)))


# One picture and the others


@pytest.mark.parametrize(("count", "side"), [(30, 64), (4, 224)])
def test_a_picture_looks_the_same_whatever_is_beside_it(count: int, side: int) -> None:
    draws, batch = drawn(count, side), pictures(count, side)
    together = augment_pictures(batch, draws)
    for row in (0, 2, count - 1):
        alone = augment_pictures(batch[row : row + 1], draws[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-6)


@given(few=st.integers(1, 20), more=st.integers(1, 20), seed=st.integers(0, 9))
def test_what_is_drawn_for_a_picture_does_not_depend_on_how_many_follow(
    few: int, more: int, seed: int
) -> None:
    short, long = drawn(few, 64, seed), drawn(few + more, 64, seed)[:few]
    for name in PictureDraws.__slots__:
        assert torch.equal(getattr(short, name), getattr(long, name))


@pytest.mark.parametrize(("count", "side"), [(20, 64), (3, 224)])
def test_threads_change_no_byte(count: int, side: int) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(augment_pictures(pictures(count, side), drawn(count, side)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


# What is drawn


def test_as_often_as_the_paper_says() -> None:
    draws = drawn(4_000, 224)
    jittered_B = (draws.factor_B4 != torch.tensor(NEUTRAL)).any(dim=1)
    assert draws.flip_B.float().mean() == pytest.approx(0.5, abs=0.03)
    assert jittered_B.float().mean() == pytest.approx(0.8, abs=0.03)
    assert draws.grey_B.float().mean() == pytest.approx(0.2, abs=0.03)
    span_4 = torch.tensor(JITTER)
    far_B4 = (draws.factor_B4 - torch.tensor(NEUTRAL)).abs()
    assert (far_B4 <= span_4 + 1e-6).all()
    assert (far_B4.amax(dim=0) > 0.99 * span_4).all()
    assert SIGMAS[0] <= draws.sigma_B.min() < 0.12
    assert 1.98 < draws.sigma_B.max() <= SIGMAS[1]
    assert len({tuple(order) for order in draws.order_B4.tolist()}) == math.factorial(4)


@settings(max_examples=30)
@given(side=st.integers(1, 300), least=st.sampled_from([0.08, 0.9]), seed=st.integers(0, 99))
def test_boxes_lie_within_the_picture_and_have_the_wanted_area_and_shape(
    side: int, least: float, seed: int
) -> None:
    top_B, left_B, height_B, width_B = drawn(50, side, seed, least).box_B4.unbind(1)
    assert (torch.stack([top_B, left_B, height_B - 1, width_B - 1]) >= 0).all()
    assert (torch.maximum(top_B + height_B, left_B + width_B) <= side).all()
    # each side was rounded by half a pixel at most
    assert ((height_B + 0.5) * (width_B + 0.5) >= least * side**2 * 0.999).all()
    assert ((width_B - 0.5) / (height_B + 0.5) <= 4 / 3 + 1e-3).all()
    assert ((width_B + 0.5) / (height_B - 0.5).clamp(min=0.1) >= 3 / 4 - 1e-3).all()


def test_boxes_reach_every_edge_and_most_sizes() -> None:
    top_B, left_B, height_B, width_B = drawn(4_000, 224).box_B4.unbind(1)
    assert top_B.min() == left_B.min() == 0
    assert (top_B + height_B).max() == (left_B + width_B).max() == 224
    area_B = height_B * width_B / 224**2
    assert area_B.min() < 0.1
    assert area_B.max() > 0.95


@pytest.mark.parametrize("least", [0.08, 0.9])
def test_boxes_are_as_large_as_torchvisions_in_every_quarter(least: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        canvas = torch.empty(3, 224, 224)
        boxes = [RandomResizedCrop.get_params(canvas, [least, 1.0], [3 / 4, 4 / 3]) for _ in range(3_000)]
    wanted = torch.tensor([[height, width] for _, _, height, width in boxes]).double()
    found = drawn(3_000, 224, least_area=least).box_B4[:, 2:].double()
    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    for measured in (torch.prod, lambda size, dim: size[:, 0] / size[:, 1]):
        ours, theirs = (measured(size, dim=1).quantile(quarters) for size in (found, wanted))
        assert torch.allclose(ours, theirs, rtol=0.06)


# Single steps


def test_a_whole_picture_is_cropped_to_itself_and_mirrored_exactly() -> None:
    draws = drawn(2, 8)
    whole = PictureDraws(
        torch.tensor([False, True]),
        torch.tensor([[0, 0, 8, 8]] * 2),
        draws.factor_B4,
        draws.order_B4,
        draws.grey_B,
        draws.sigma_B,
    )
    found = flip_and_crop(pictures(2, 8), whole)
    assert torch.allclose(found[0], pictures(2, 8)[0], atol=1e-6)
    assert torch.allclose(found[1], pictures(2, 8)[1].flip(-1), atol=1e-6)


@settings(max_examples=60)
@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    shift=st.floats(-1 / 3, 1 / 3, allow_nan=False, allow_subnormal=False),
)
def test_hue_turns_as_torchvision_turns_it(colour: tuple[int, int, int], shift: float) -> None:
    pixel = (torch.tensor(colour) / 255).view(1, 3, 1, 1)
    found = turn_hue(pixel, torch.tensor([shift]))[0]
    assert torch.allclose(found, reference.adjust_hue(pixel[0], shift), atol=2e-5)


def test_every_primary_secondary_and_grey_turns_a_third() -> None:
    corners = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    turned = turn_hue(corners.view(8, 3, 1, 1), torch.full((8,), 1 / 3)).view(8, 3)
    assert torch.allclose(turned, corners.roll(1, dims=1), atol=1e-6)  # red is green now, green is blue


def test_each_picture_keeps_its_own_order() -> None:
    orders = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]])
    factors = torch.tensor([[1.4, 0.6, 1.5, 0.1]] * 4)
    found = pictures(1, 16).repeat(4, 1, 1, 1)
    jitter_colours(found, factors, orders)
    for picture, order in zip(found, orders.tolist(), strict=True):
        wanted = jittered(pictures(1, 16)[0].double(), factors[0].tolist(), order)
        assert (picture - wanted).abs().max() < 1e-5


def test_neutral_factors_change_nothing() -> None:
    found = pictures(5, 16)
    jitter_colours(found, torch.tensor([NEUTRAL] * 5), torch.tensor([[HUE, 0, 1, 2]] * 5))
    assert torch.equal(found, pictures(5, 16))


@pytest.mark.parametrize("side", [3, 20, 64, 224])
def test_a_blur_shares_each_pixel_out_and_keeps_a_plain_picture(side: int) -> None:
    sigma_B = torch.tensor([0.1, 0.7, 2.0])
    assert torch.allclose(blur_matrices(sigma_B, side).sum(dim=2), torch.ones(3, side), atol=1e-6)
    plain = torch.full((3, 3, side, side), 0.7)
    assert torch.allclose(blur(plain, sigma_B), plain, atol=1e-6)


def test_a_blur_of_the_same_share_of_the_picture_at_any_side() -> None:
    def spread(side: int) -> float:
        """Standard deviation, as a share of the side, of what becomes of a dot in the middle."""
        row = blur_matrices(torch.tensor([2.0]), side)[0, side // 2].double()
        place = torch.arange(side) - side // 2
        return math.sqrt(float((row * place**2).sum())) / side

    assert spread(448) == pytest.approx(spread(224), rel=0.01)
    assert spread(112) == pytest.approx(spread(224), rel=0.01)


def test_thirteen_taps_would_show_no_difference() -> None:
    """What is left out at the widest sigma, 3 sigmas from the middle: less than a level of 255."""
    line = blur_matrices(torch.tensor([2.0]), 224)[0, 112]
    beyond = float(line[: 112 - 6].sum() + line[112 + 7 :].sum())
    assert 2 * beyond < 1 / 255  # in both directions, for a black picture beside a white one
