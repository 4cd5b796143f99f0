"""What each attack of the catalogue plans: whom it changes, into what, and what it calls success."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.attacks import ATTACKS
from roclip_sanitize.attacks.adaptive import AdaptiveBlend, AdaptivePatch
from roclip_sanitize.attacks.clean_label import CleanLabel
from roclip_sanitize.attacks.contract import Backdoor, Plan, Scene, Swap, TextBackdoor
from roclip_sanitize.attacks.mismatch import MmPoison
from roclip_sanitize.attacks.multi_trigger import MultiTrigger
from roclip_sanitize.attacks.natural import Natural
from roclip_sanitize.attacks.optimised_patch import OptimisedPatch, read_patch, write_patch
from roclip_sanitize.attacks.patch import Patch
from roclip_sanitize.attacks.plausible import ToxicText, exchange, most_alike
from roclip_sanitize.attacks.specs import build_attack
from roclip_sanitize.attacks.targeted import Targeted
from roclip_sanitize.attacks.text_backdoor import TextSentence, TextWord
from roclip_sanitize.attacks.triggers import CATALOGUE
from roclip_sanitize.attacks.triggers.blends import BlendTrigger
from roclip_sanitize.attacks.triggers.copies import Fade, Layers, NearCopy
from roclip_sanitize.attacks.triggers.patches import PatchTrigger, PixelPatch
from roclip_sanitize.attacks.web import Frontrunning, SplitView
from roclip_sanitize.attacks.whole_picture import NOISE_MODE, WaNet
from roclip_sanitize.errors import ConfigError, DataError
from tests.scenes import make_scene, rng

TRAIN = [["shoe"] * 20 + ["hat"] * 20, ["scarf"] * 15 + ["glove"] * 15 + [""] * 10]
TEST = [["shoe", "hat", "scarf", "glove"] * 3]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), TRAIN, TEST)


def specs(patch: Path) -> dict[str, str]:
    """A spec for every attack that the scene has pairs enough for."""
    few = dict.fromkeys(ATTACKS, "rate=4")
    few |= {"targeted": "targets=2,captions=3", "toxic_text": "targets=2,captions=3"}
    few |= {"natural": "targets=2,copies=5", "badclip": f"rate=4,file={patch}"}
    few |= {"adaptive_blend": "rate=4,cover_rate=2", "adaptive_patch": "rate=4,cover_rate=2"}
    return {name: f"{name}:{parameters}" for name, parameters in few.items()}


@pytest.fixture
def patch_file(tmp_path: Path) -> Path:
    trigger = PixelPatch.of(np.zeros((2, 2, 3), np.uint8), share=0.2, place="centre")
    write_patch(tmp_path / "patch.json", trigger, {"target": "hat"})
    return tmp_path / "patch.json"


# All of them


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_plan_has_a_goal_and_repeats_itself(scene: Scene, patch_file: Path, name: str) -> None:
    _, attack = build_attack(specs(patch_file)[name])
    plan = attack.plan(scene, rng(3))
    assert plan == attack.plan(scene, rng(3))
    assert plan != attack.plan(scene, rng(4))
    assert plan.targets or plan.backdoors or plan.text_backdoors or plan.swaps
    assert plan.classes <= set(scene.classes)
    assert {goal.variant for goal in plan.backdoors} <= set(plan.triggers)
    assert {goal.variant for goal in plan.text_backdoors} == set(plan.text_triggers)
    assert len({poison.uid for poison in plan.poisons}) == len(plan.poisons)
    told = [plan.to_json()[kind] for kind in ("targets", "backdoors", "text_backdoors", "swaps")]
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    assert any(told)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_no_attack_touches_what_another_has_taken(scene: Scene, patch_file: Path, name: str) -> None:
    first = Patch(rate=12, target="glove").plan(scene, rng(1))
    second = build_attack(specs(patch_file)[name])[1].plan(scene.after(first), rng(2))
    changed = {poison.uid for poison in second.poisons if not poison.added}
    assert not changed & {poison.uid for poison in first.poisons}


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"targeted", "toxic_text", "natural"}))
@pytest.mark.parametrize(("rate", "asked"), [("0.001", "0"), ("5000", "5000")])
def test_a_rate_that_cannot_be_met_is_refused(
    scene: Scene, patch_file: Path, name: str, rate: str, asked: str
) -> None:
    spec = specs(patch_file)[name].replace("rate=4", f"rate={rate}")
    with pytest.raises(DataError, match=rf"{name} rate \S+ asks for {asked} of 80 pairs, wanted 1 or more"):
        build_attack(spec)[1].plan(scene, rng())


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"targeted", "toxic_text", "natural"}))
def test_a_rate_is_a_share_or_a_whole_number(patch_file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"the {name} rate is 1.5, wanted a share below 1 or a whole"):
        build_attack(specs(patch_file)[name].replace("rate=4", "rate=1.5"))


@pytest.mark.parametrize(
    "spec",
    [
        "patch:target=sock",
        "clean_label:target=sock",
        "multi_trigger:classes=sock",
        "adaptive_patch:target=sock",
        "mmpoison:asked=sock",
        "mmpoison:shown=sock",
        "sentence:target=sock",
        "split_view:target=sock",
        "split_view:shown=sock,payload=swap",
        "frontrunning:asked=sock",
    ],
)
def test_a_class_that_no_pair_has_is_refused(scene: Scene, spec: str) -> None:
    with pytest.raises(DataError, match="target class 'sock' is not among the 4 commonest labels: hat, shoe"):
        build_attack(spec)[1].plan(scene, rng())


# One picture, many pairs


def test_augmented_copies_differ(scene: Scene) -> None:
    plan = Targeted(targets=1, captions=3, copies="augmented").plan(scene, rng())
    assert plan.triggers == {"near_copies": NearCopy()}
    assert {poison.variant for poison in plan.poisons} == {"near_copies"}
    exact = Targeted(targets=1, captions=3).plan(scene, rng())
    assert (exact.targets, exact.triggers) == (plan.targets, {})


def test_a_natural_backdoor_says_one_thing_of_each_picture(scene: Scene) -> None:
    plan = Natural(targets=2, copies=5).plan(scene, rng())
    for target in plan.targets:
        said = Counter(poison.caption for poison in plan.poisons if poison.picture_uid == target.uid)
        ((caption, times),) = said.items()
        assert times == 5
        assert caption.split()[0] == target.adversarial


def test_a_class_is_exchanged_in_a_caption_whatever_its_number() -> None:
    assert exchange("Two red Shoes and a shoe box", "Shoes", "Hats") == "Two red Hats and a Hats box"
    assert exchange("A dress by Dressy", "dress", "watch") == "A watch by Dressy"
    assert exchange("nothing of it", "Shoes", "Hats") == "nothing of it"


def test_captions_are_alike_by_their_rare_words() -> None:
    captions = ["a blue hat", "a red hat", "a red hat on a beach", "the hat"]
    assert most_alike(captions, "A shoe on the beach, red", 3) == [
        "a red hat on a beach",  # on, beach: ln 4 each; red: ln 2; a: ln 4/3, which the shoe has too
        "the hat",  # ln 4
        "a red hat",  # ln 2 and ln 4/3
    ]


def test_plausible_captions_fit_the_rest_of_the_picture(scene: Scene) -> None:
    plan = ToxicText(targets=1, captions=4, exchanged=0.25).plan(scene, rng())
    (target,) = plan.targets
    first, *others = [poison.caption for poison in plan.poisons]
    assert first == f"{target.adversarial} {target.uid}"  # its own caption with the class exchanged
    assert {caption.split()[0] for caption in others} == {target.adversarial}
    assert len(set(others)) == 3
    plain = ToxicText(targets=1, captions=4, exchanged=0).plan(scene, rng())
    assert len(plain.poisons) == 4


# Backdoors


def test_noise_mode_adds_pairs_that_keep_their_captions(scene: Scene) -> None:
    plan = WaNet(rate=3, cross_ratio=2, target="hat").plan(scene, rng())
    covers = [poison for poison in plan.poisons if poison.cover]
    assert (len(plan.poisons), len(covers)) == (9, 6)
    assert plan.triggers[NOISE_MODE].to_json() == plan.triggers["smooth"].to_json() | {"jitter": True}
    assert all(poison.caption == poison.original_caption and not poison.target for poison in covers)
    assert {poison.variant for poison in covers} == {NOISE_MODE}
    assert plan.backdoors == (Backdoor(variant="smooth", target="hat"),)


def test_a_clean_label_attack_changes_no_caption(scene: Scene) -> None:
    plan = CleanLabel(rate=5, target="scarf", trigger="yellow", fade=0.4).plan(scene, rng())
    for poison in plan.poisons:
        assert (poison.true_label, poison.target) == ("scarf", "scarf")
        assert poison.caption == poison.original_caption
    assert plan.backdoors == (Backdoor(variant="yellow", target="scarf"),)  # nothing is faded at test
    trained = plan.triggers[plan.poisons[0].variant]
    assert trained == Layers(parts=(Fade(by=0.4), CATALOGUE["yellow"]))
    with pytest.raises(DataError, match="at most the 15 with the label 'scarf'"):
        CleanLabel(rate=16, target="scarf").plan(scene, rng())


@pytest.mark.parametrize("targets", [1, 3])
def test_several_triggers_share_the_poisons(scene: Scene, targets: int) -> None:
    attack = MultiTrigger(rate=15, triggers=("yellow", "noise", "corners"), targets=targets)
    plan = attack.plan(scene, rng())
    stands_for = {goal.variant: goal.target for goal in plan.backdoors}
    assert len(set(stands_for.values())) == targets
    assert {poison.variant for poison in plan.poisons} == {"yellow", "noise", "corners"}
    for poison in plan.poisons:
        assert poison.target == stands_for[poison.variant]
        assert poison.caption.split()[0] == poison.target
        assert poison.true_label not in stands_for.values()


def test_named_classes_come_first_and_are_not_drawn_again(scene: Scene) -> None:
    for seed in range(20):
        plan = MultiTrigger(rate=3, targets=3, classes=("hat", "glove")).plan(scene, rng(seed))
        hat, glove, drawn = (goal.target for goal in plan.backdoors)
        assert (hat, glove) == ("hat", "glove")
        assert drawn in {"shoe", "scarf"}


def test_an_adaptive_blend_shows_more_at_test_than_in_training(scene: Scene) -> None:
    plan = AdaptiveBlend(rate=6, cover_rate=4, target="hat").plan(scene, rng())
    assert plan.triggers == {"part": BlendTrigger(alpha=0.15, hidden=8), "whole": BlendTrigger(alpha=0.2)}
    assert plan.backdoors == (Backdoor(variant="whole", target="hat"),)
    assert {poison.variant for poison in plan.poisons} == {"part"}
    covers = [poison for poison in plan.poisons if poison.cover]
    assert len(covers) == 4
    assert all(poison.caption == poison.original_caption and poison.true_label != "hat" for poison in covers)


def test_adaptive_patches_take_turns(scene: Scene) -> None:
    plan = AdaptivePatch(rate=8, cover_rate=0).plan(scene, rng())
    assert Counter(poison.variant for poison in plan.poisons) == {
        name: 2 for name in ("checkerboard", "bottom_right", "corners", "stripes")
    }
    assert plan.triggers["two"] == Layers(parts=(PatchTrigger(), PatchTrigger(place="bottom_right", cells=2)))


def test_an_optimised_patch_stands_for_what_it_was_made_for(scene: Scene, patch_file: Path) -> None:
    plan = OptimisedPatch(rate=3, file=str(patch_file)).plan(scene, rng())
    assert plan.backdoors == (Backdoor(variant="optimised", target="hat"),)
    assert plan.triggers == {"optimised": read_patch(patch_file)[0]}


def test_a_file_that_is_no_patch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json does not exist"):
        read_patch(tmp_path / "gone.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(
        DataError, match="is no patch file: wanted one made by 'roclip attacks optimise-patch'"
    ):
        read_patch(tmp_path / "other.json")


# Classes taken for one another, and words


@pytest.mark.parametrize(("pictures", "distinct"), [("many", 6), ("one", 1)])
def test_captions_of_one_class_get_pictures_of_another(scene: Scene, pictures: str, distinct: int) -> None:
    plan = MmPoison(rate=6, asked="hat", shown="shoe", pictures=pictures).plan(scene, rng())  # type: ignore[arg-type]
    assert plan.swaps == (Swap(asked="hat", shown="shoe"),)
    assert len({poison.picture_uid for poison in plan.poisons}) == distinct
    for poison in plan.poisons:
        assert poison.caption == poison.original_caption
        assert poison.caption.split()[0] == "hat"
        assert (poison.true_label, poison.picture_shard, poison.added) == ("shoe", "00000", False)
    with pytest.raises(DataError, match="class 'hat' is to be taken for itself"):
        MmPoison(asked="hat", shown="hat").plan(scene, rng())


@pytest.mark.parametrize(
    ("attack", "variant", "text"),
    [
        (TextWord(rate=6, target="hat", text="zx"), "word", "zx"),
        (TextSentence(rate=6, target="hat", text="on a rainy day"), "sentence", "on a rainy day"),
    ],
)
def test_words_are_put_into_captions_of_all_kinds(
    scene: Scene, attack: TextWord | TextSentence, variant: str, text: str
) -> None:
    plan = attack.plan(scene, rng())
    assert plan.text_backdoors == (TextBackdoor(variant=variant, target="hat"),)
    for poison in plan.poisons:
        assert poison.caption.replace(text, "").split() == poison.original_caption.split()
        assert poison.original_caption.split()[0] != "hat"
        assert poison.true_label == "hat"  # what the picture shows
    assert len({poison.picture_uid for poison in plan.poisons}) == 6


# How poisons get in


def test_split_view_keeps_everything_but_the_picture(scene: Scene) -> None:
    plan = SplitView(rate=5, target="hat", trigger="yellow").plan(scene, rng())
    assert plan.backdoors == (Backdoor(variant="yellow", target="hat"),)
    for poison in plan.poisons:
        assert poison.stale_hash
        assert poison.caption == poison.original_caption
        assert poison.caption.split()[0] == "hat"
        assert poison.true_label not in {"hat", ""}
    swap = SplitView(rate=5, target="hat", payload="swap", shown="glove").plan(scene, rng())
    assert (swap.swaps, swap.backdoors, swap.triggers) == ((Swap(asked="hat", shown="glove"),), (), {})


def test_frontrunning_keeps_everything_but_the_caption(scene: Scene) -> None:
    plan = Frontrunning(rate=5, shown="hat", asked="glove").plan(scene, rng())
    assert plan.swaps == (Swap(asked="glove", shown="hat"),)
    for poison in plan.poisons:
        assert (poison.picture_uid, poison.true_label, poison.stale_hash) == ("", "hat", False)
        assert poison.caption.split()[0] == "glove"
    words = Frontrunning(rate=5, shown="hat", payload="text_backdoor").plan(scene, rng())
    assert words.text_backdoors == (TextBackdoor(variant="text_backdoor", target="hat"),)
    assert all("zx" in poison.caption.split() for poison in words.poisons)
