"""Attacks as strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.attacks import ATTACKS
from roclip_sanitize.attacks.multi_trigger import MultiTrigger
from roclip_sanitize.attacks.patch import Patch
from roclip_sanitize.attacks.specs import (
    build_attack,
    build_attacks,
    describe,
    parameter_defaults,
    parameter_types,
    write_spec,
)
from roclip_sanitize.attacks.targeted import Targeted
from roclip_sanitize.errors import ConfigError


def test_a_name_alone_is_the_attack_as_it_is() -> None:
    assert build_attacks(["targeted", "patch"]) == {"targeted": Targeted(), "patch": Patch()}


@pytest.mark.parametrize(
    ("spec", "attack"),
    [
        ("patch:rate=0.003,target=Shirts", Patch(rate=0.003, target="Shirts")),
        (" patch : rate = 120 ", Patch(rate=120)),
        ("patch:", Patch()),
        ("targeted:targets=3,captions=5", Targeted(targets=3, captions=5)),
        ("patch:target=Shirts, long,rate=3", Patch(target="Shirts, long", rate=3)),
        ("patch:target=a=b: c", Patch(target="a=b: c")),
    ],
)
def test_parameters_are_read_as_what_they_are(spec: str, attack: object) -> None:
    assert build_attack(spec)[1] == attack


def test_a_second_instance_has_a_name_of_its_own() -> None:
    assert build_attacks(["patch:rate=3", "patch:rate=30,as=many"]) == {
        "patch": Patch(rate=3),
        "many": Patch(rate=30),
    }


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no attack named: known are targeted, patch, .*frontrunning$"),
        (["sparkle"], "there is no attack 'sparkle': known are targeted, patch, .*frontrunning$"),
        (["targeted,patch"], "there is no attack 'targeted,patch': known are"),
        (["patch", "targeted", "patch:rate=3"], "'patch' is named twice in patch targeted patch:rate=3"),
        (["targeted:as=patch", "patch"], "'patch' is named twice"),
        (["patch:as=a/b"], "'a/b' is no name, wanted letters, digits"),
        (["patch:size=3"], "attack 'patch' has no parameter 'size': known are rate, target, .*, as$"),
        (["patch:rate"], "'rate' is no PARAM=VALUE"),
        (["patch:rate=1,rate=2"], "parameter 'rate' is given twice"),
        (["patch:rate=some"], "parameter 'rate' of attack 'patch' is 'some', wanted a number"),
        (["patch:rate=nan"], "is 'nan', wanted a number"),
        (["patch:pattern=dots"], "is 'dots', wanted one of checkerboard, stripes, yellow, noise, corners"),
        (
            ["clean_label:trigger=dots"],
            "there is no trigger 'dots': known are checkerboard, noise, .*nashville",
        ),
        (["multi_trigger:triggers=yellow|yellow"], "wanted one or more, each once"),
        (["multi_trigger:targets=2"], "2 targets for 3 triggers, wanted 1 or as many"),
        (["multi_trigger:classes=a|b"], "names 2 classes for 1 targets"),
        (["badclip"], "badclip needs file=PATH, a patch made by 'roclip attacks optimise-patch'"),
        (["wanet:cross_ratio=-1"], "cross_ratio is -1, wanted 0 or more"),
        (["adaptive_blend:hidden=16"], "16 of 4² tiles are hidden, wanted fewer than all"),
        (["blended:alpha=0"], "the blend's alpha is 0.0, wanted more than 0"),
        (["sig:frequency=0"], "its frequency 0.0, wanted both above 0"),
        (["text_trigger:text="], "the text trigger is empty"),
        (["natural:copies=0"], "natural has 4 targets and 0 captions"),
        (["targeted:captions=2.5"], "'captions' of attack 'targeted' is '2.5', wanted a whole number"),
    ],
)
def test_what_a_spec_must_not_be(specs: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_attacks(specs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"badclip"}))  # which has no default file
def test_defaults_written_out_are_the_attack_as_it_is(name: str) -> None:
    defaults = parameter_defaults(ATTACKS[name])
    assert list(defaults) == list(parameter_types(ATTACKS[name]))
    assert build_attack(write_spec(name, defaults))[1] == ATTACKS[name]()


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_parameter_is_explained(name: str) -> None:
    told = describe(name)
    assert list(told["meanings"]) == list(told["parameters"])
    assert all((told["family"], told["changes"], told["source"], told["does"]))


def test_lists_are_joined_by_bars() -> None:
    attack = build_attack("multi_trigger:triggers=yellow|stripes,targets=2,classes=a b|c")[1]
    assert attack == MultiTrigger(triggers=("yellow", "stripes"), targets=2, classes=("a b", "c"))


@given(rate=st.one_of(st.integers(1, 10_000), st.floats(0.0001, 0.9999)), target=st.sampled_from(["", "a b"]))
def test_a_written_spec_is_read_back(rate: float, target: str) -> None:
    spec = write_spec("patch", {"rate": rate, "target": target, "as": "other"})
    assert build_attack(spec) == ("other", Patch(rate=float(rate), target=target))
