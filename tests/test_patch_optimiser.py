"""A patch made against a CLIP: the patch's file, what it was made of, and that it does what it is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.attacks.optimised_patch import read_patch
from roclip_sanitize.attacks.patch_material import PatchSettings, draw_pairs, patch_size
from roclip_sanitize.attacks.patch_optimiser import optimise
from roclip_sanitize.attacks.triggers.patches import PixelPatch
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.images import Fit
from tests.squares import write_square_shards


@pytest.fixture
def settings(tmp_path: Path) -> PatchSettings:
    return PatchSettings(
        encoder="open_clip:roclip-vit-64",
        shards=write_square_shards(tmp_path / "clean", shards=2, pairs=40),
        label="colour",
        target="blue",
        share=0.25,
        pictures=12,
        steps=15,
        batch_size=8,
    )


def test_pairs_are_drawn_from_all_shards_and_told_apart(settings: PatchSettings) -> None:
    target, others = draw_pairs(settings, np.random.default_rng(0))
    assert (len(target), len(others)) == (12, 12)
    assert {pair.fields["colour"] for pair in target} == {"blue"}
    assert {pair.fields["colour"] for pair in others} == {"red", "green", "yellow"}
    assert any(int(pair.key) >= 40 for pair in others)  # of the second shard, too
    assert len({pair.uid for pair in (*target, *others)}) == 24


@pytest.mark.parametrize(
    ("fit", "size"),
    [
        pytest.param("squash", (10, 13), id="12 of 80 px down, 12 of 60 across"),
        pytest.param("crop", (13, 13), id="a fifth of the side"),
    ],
)
def test_a_patch_is_squashed_with_its_picture(fit: Fit, size: tuple[int, int]) -> None:
    assert patch_size((60, 80), 0.2, 64, fit=fit) == size
    assert patch_size((80, 60), 0.2, 64, fit=fit) == size[::-1]
    assert patch_size((8, 80), 0.01, 64, fit=fit) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "plain"}, "a patch is made against a CLIP"),
        ({"share": 0}, "share is 0, wanted more than 0"),
        ({"steps": 0}, "steps is 0, wanted 1 or more"),
    ],
)
def test_what_a_patch_cannot_be_made_of(
    settings: PatchSettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(settings, **change)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_patch_moves_pictures_towards_its_class(settings: PatchSettings, tmp_path: Path) -> None:
    made = optimise(settings, out=tmp_path / "patch.json", say=lambda line: None)
    assert made["stamped"]["picture"] > made["clean"]["picture"]  # the heavier of the two terms
    trigger, told = read_patch(tmp_path / "patch.json")
    assert isinstance(trigger, PixelPatch)
    assert told == made
    again = optimise(settings, out=tmp_path / "again.json", say=lambda line: None)
    assert (again, read_patch(tmp_path / "again.json")[0]) == (made, trigger)


@pytest.mark.slow
def test_a_class_that_no_pair_has_is_refused(settings: PatchSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the shards have 0 pictures with colour 'purple' and 12 others"):
        optimise(replace(settings, target="purple"), out=tmp_path / "patch.json", say=lambda line: None)
