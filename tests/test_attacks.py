"""What targeted poisoning and the patch plan to do, and what plans and censuses are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars
import pytest

from roclip_sanitize.attacks import ATTACKS
from roclip_sanitize.attacks.choosing import choose_class
from roclip_sanitize.attacks.contract import Backdoor, Plan, Swap, Target, TextBackdoor
from roclip_sanitize.attacks.patch import Patch
from roclip_sanitize.attacks.targeted import Targeted, new_uid
from roclip_sanitize.attacks.text_triggers import TextTrigger
from roclip_sanitize.attacks.triggers.patches import PatchTrigger
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.records import is_uid
from roclip_sanitize.store import write_parquet
from tests.scenes import SHOES_AND_HATS, TESTED, listed, make_scene, rng


def test_a_census_numbers_pairs_through_all_shards(tmp_path: Path) -> None:
    census, _ = listed(tmp_path, "train", SHOES_AND_HATS)
    assert (census.size, census.starts.tolist()) == (16, [0, 10, 10, 16])
    assert list(census.counts.items()) == [("shoe", 6), ("hat", 5), ("scarf", 3)]
    assert np.flatnonzero(census.has_label("hat")).tolist() == [6, 7, 8, 9, 10]
    assert not census.has_label("sock").any()
    entries = census.entries([10, 0, 9, 10])
    assert [entry.uid for entry in entries] == ["train_2_0", "train_0_0", "train_0_9", "train_2_0"]
    assert [(entry.shard, entry.row) for entry in entries] == census.places([10, 0, 9, 10])
    assert [census.row_at(entry.shard, entry.row) for entry in entries] == [10, 0, 9, 10]


def test_equally_common_classes_are_ranked_by_name(tmp_path: Path) -> None:
    census, _ = listed(tmp_path, "train", [["b", "c", "a", "c", "b", "a"]])
    assert list(census.counts) == ["a", "b", "c"]


def test_targets_are_held_out_pictures_with_real_captions_of_another_class(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, TESTED)
    plan = Targeted(targets=3, captions=3).plan(scene, rng())
    assert {target.uid for target in plan.targets} == {
        "test_0_0",
        "test_0_1",
        "test_1_0",
    }  # gloves are no class
    for target in plan.targets:
        poisons = [poison for poison in plan.poisons if poison.picture_uid == target.uid]
        assert target.adversarial in set(scene.classes) - {target.true_label}
        assert len({poison.caption for poison in poisons}) == 3
        assert all(poison.caption.startswith(f"{target.adversarial} train_") for poison in poisons)
        assert all(poison.added and poison.target == target.adversarial for poison in poisons)
    assert len({poison.uid for poison in plan.poisons}) == 9


def test_new_pairs_are_spread_over_the_shards_in_proportion(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, [["hat"] * 600 + ["shoe"] * 300, ["shoe"] * 300], [["hat"]])
    plan = Targeted(targets=1, captions=400).plan(scene, rng())
    per_shard = Counter(poison.shard for poison in plan.poisons)
    assert 260 < per_shard["00000"] < 340  # three quarters of 400
    assert len({(poison.shard, poison.row) for poison in plan.poisons}) > 300


def test_a_picture_that_was_trained_on_is_no_target(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, TESTED)
    seen = polars.read_parquet(tmp_path / "test_00000.parquet")
    write_parquet(tmp_path / "test_00000.parquet", seen.with_columns(image_hash=polars.lit("train_0_0")))
    plan = Targeted(targets=1, captions=2).plan(scene, rng())
    assert [target.uid for target in plan.targets] == ["test_1_0"]
    with pytest.raises(DataError, match="wants 2 target pictures, but the test shards have only 1"):
        Targeted(targets=2, captions=2).plan(scene, rng())


def test_a_picture_that_is_tested_twice_is_one_target(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, TESTED)
    twins = polars.read_parquet(tmp_path / "test_00000.parquet").with_columns(image_hash=polars.lit("twin"))
    write_parquet(tmp_path / "test_00000.parquet", twins)
    with pytest.raises(DataError, match="have only 2 of a known class"):
        Targeted(targets=3, captions=2).plan(scene, rng())


def test_too_few_captions_are_told_before_anything_is_drawn(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, TESTED)
    with pytest.raises(DataError, match="wants 4 captions of a class, but only 3 pairs are labelled 'scarf'"):
        Targeted(targets=1, captions=4).plan(scene, rng())


def test_patched_pairs_are_of_other_classes_and_speak_of_the_target(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS)
    plan = Patch(rate=0.25, target="hat").plan(scene, rng())
    assert plan.backdoors == (Backdoor(variant="checkerboard", target="hat"),)
    assert len(plan.poisons) == 4  # a quarter of all 16 pairs
    assert (
        len({poison.uid for poison in plan.poisons}) == len({poison.caption for poison in plan.poisons}) == 4
    )
    for poison in plan.poisons:
        assert poison.true_label in {"shoe", "scarf"}  # neither hats nor what has no label
        assert poison.caption.startswith("hat train_")
        assert not poison.added
    assert plan.triggers == {"checkerboard": PatchTrigger()}


def test_captions_repeat_only_where_there_are_too_few(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS)
    plan = Patch(rate=8, target="hat").plan(scene, rng())
    assert len(plan.poisons) == 8
    assert {poison.caption.split()[0] for poison in plan.poisons} == {"hat"}


def test_the_patchs_class_is_neither_the_commonest_nor_rare(tmp_path: Path) -> None:
    labels = [f"class {number:02d}" for number in range(30) for _ in range(40 - number)]
    scene = make_scene(tmp_path, [labels], classes=30)
    drawn = {choose_class("", scene, rng(seed)) for seed in range(300)}
    assert drawn == {f"class {number:02d}" for number in range(5, 25)}


def test_a_class_that_is_none_is_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, classes=2)
    with pytest.raises(DataError, match="'scarf' is not among the 2 commonest labels: shoe, hat"):
        Patch(target="scarf").plan(scene, rng())


@pytest.mark.parametrize("rate", [0.01, 10])
def test_a_rate_that_the_shards_cannot_meet_is_refused(tmp_path: Path, rate: float) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS)
    with pytest.raises(DataError, match="at most the 9 with a label other than 'hat'"):
        Patch(rate=rate, target="hat").plan(scene, rng())


def test_an_attack_leaves_alone_what_another_has_taken(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS)
    first = Patch(rate=5, target="hat").plan(scene, rng(1))
    second = Patch(rate=4, target="hat").plan(scene.after(first), rng(2))
    assert not {poison.uid for poison in first.poisons} & {poison.uid for poison in second.poisons}


def test_no_two_attacks_are_after_the_same_picture(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, TESTED)
    first = Targeted(targets=2, captions=2).plan(scene, rng(1))
    second = Targeted(targets=1, captions=2).plan(scene.after(first), rng(1))
    assert {target.uid for target in first.targets + second.targets} == {"test_0_0", "test_0_1", "test_1_0"}
    with pytest.raises(DataError, match=r"only 1 of a known class .* that no other attack is after"):
        Targeted(targets=2, captions=2).plan(scene.after(first), rng(1))


@pytest.mark.parametrize("attack", [Targeted(targets=2, captions=3), Patch(rate=3)])
def test_a_plan_depends_on_scene_and_stream_alone(tmp_path: Path, attack: Targeted | Patch) -> None:
    scene = make_scene(tmp_path, SHOES_AND_HATS, TESTED)
    assert attack.plan(scene, rng(7)) == attack.plan(scene, rng(7))
    assert attack.plan(scene, rng(7)) != attack.plan(scene, rng(8))


def test_a_plan_without_its_poisons_survives_json() -> None:
    target = Target(uid="0" * 32, true_label="hat", adversarial="shoe")
    plan = Plan(
        parameters={"rate": 0.1},
        targets=(target,),
        backdoors=(Backdoor(variant="a", target="scarf"),),
        text_backdoors=(TextBackdoor(variant="b", target="glove"),),
        swaps=(Swap(asked="sock", shown="boot"),),
        triggers={"a": PatchTrigger(0.5)},
        text_triggers={"b": TextTrigger(text="mango", place="end")},
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.classes == {"hat", "shoe", "scarf", "glove", "sock", "boot"}


def test_new_uids_look_like_any_and_tell_seed_target_and_number_apart() -> None:
    uids = {new_uid(seed, target, number) for seed in (0, 1) for target in "ab" for number in range(3)}
    assert len(uids) == 12
    assert all(is_uid(uid) for uid in uids)


def test_attacks_are_known_by_their_names() -> None:
    assert [attack.facts.name for attack in ATTACKS.values()] == list(ATTACKS)


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_rate_is_a_share_or_a_whole_number(rate: float) -> None:
    with pytest.raises(ConfigError, match="wanted a share below 1 or a whole number"):
        Patch(rate=rate)
