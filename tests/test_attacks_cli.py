"""Commands on attacks, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roclip_sanitize.attacks import ATTACKS
from roclip_sanitize.attacks.ledger import Ledger
from tests.commands import Roclip
from tests.kinds import write_shard


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


@pytest.fixture
def shards(tmp_path: Path) -> list[object]:
    """Options that name two clean shards and a held-out one."""
    for number in range(2):
        write_shard(tmp_path / f"{number}.tar", first=60 * number)
    write_shard(tmp_path / "test.tar", first=1_000, pairs=20)
    return ["--shards", f"{tmp_path}/{{0..1}}.tar"]


def poison(tmp_path: Path, shards: list[object], *more: object, out: str = "poisoned") -> list[object]:
    held_out = ["--test-shards", tmp_path / "test.tar", "--label", "kind", "--classes", 4]
    return ["poison", *shards, *held_out, "--out", tmp_path / out, "--executor", "local", *more]


def test_every_attack_is_listed_as_a_spec_that_can_be_typed(roclip: Roclip) -> None:
    lines = roclip("attacks", "list").out.splitlines()
    assert len(lines) == 3 * len(ATTACKS)
    assert [line.split()[0] for line in lines[::3]] == list(ATTACKS)
    assert lines[0].split(maxsplit=1) == ["targeted", "targeted; adds pairs"]
    assert lines[1].split() == ["targeted:targets=16,captions=30,copies=exact"]
    listed = json.loads(roclip("attacks", "list", "--json").out)["attacks"]
    assert [attack["name"] for attack in listed] == list(ATTACKS)


def test_an_attack_is_shown_with_what_its_parameters_mean(roclip: Roclip) -> None:
    said = roclip("attacks", "show", "sig").out
    assert said.startswith("sig (backdoor; changes picture and caption)\n\nLay waves of brightness")
    assert "  version=badclip        badclip adds waves of ±60 grey levels" in said
    assert said.endswith("Barni et al., arXiv 1902.11237\n")
    told = json.loads(roclip("attacks", "show", "sig", "--json").out)
    assert told["parameters"] == {"rate": "0.01", "target": "", "version": "badclip", "frequency": "6"}


def test_attacks_are_named_one_by_one_or_in_a_settings_file(
    roclip: Roclip, shards: list[object], tmp_path: Path
) -> None:
    typed = poison(tmp_path, shards, "--attacks", "patch:rate=5", "--attacks", "sig:rate=4,as=waves")
    said = roclip(*typed)
    assert said.code == 0
    assert [line.split(maxsplit=1) for line in said.out.splitlines()[2:]] == [
        ["poisons", "9 (patch 5, waves 4)"],
        ["shards", f"{tmp_path}/poisoned/shards"],
        ["ledger", f"{tmp_path}/poisoned/ledger.parquet"],
    ]
    settings = tmp_path / "run.toml"
    settings.write_text('[poison]\nattacks = ["patch:rate=5", "sig:rate=4,as=waves"]\n')
    assert roclip("--config", settings, *poison(tmp_path, shards, out="from_file")).code == 0
    first, second = (Ledger.open(tmp_path / name) for name in ("poisoned", "from_file"))
    assert first.attacks == second.attacks == ("patch", "waves")
    assert first.frame.equals(second.frame)
    settings.write_text('[poison]\nattacks = "patch:rate=5"\n')
    assert roclip("--config", settings, *poison(tmp_path, shards, out="one")).code == 0
    assert Ledger.open(tmp_path / "one").attacks == ("patch",)


def test_a_ledger_and_clean_shards_give_the_poisoned_ones(
    roclip: Roclip, shards: list[object], tmp_path: Path
) -> None:
    roclip(
        *poison(tmp_path, shards, "--attacks", "targeted:targets=2,captions=3", "--attacks", "patch:rate=5")
    )
    told = ["--ledger", tmp_path / "poisoned", "--out", tmp_path / "again", "--executor", "local", "--json"]
    said = roclip("attacks", "rebuild", *shards, *told)
    result = json.loads(said.out)
    assert (said.code, result["kept"], result["poisons"]) == (0, 126, {"targeted": 6, "patch": 5})
    for name in ("shards/0.tar", "shards/1.tar", "ledger.parquet", "ledger.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "poisoned" / name).read_bytes()


@pytest.mark.parametrize(
    ("attacks", "code", "line"),
    [
        ("sparkle", 2, "roclip: there is no attack 'sparkle': known are targeted, patch, blended"),
        ("patch:size=3", 2, "roclip: attack 'patch' has no parameter 'size': known are rate, target"),
        ("patch:target=sock", 1, "roclip: target class 'sock' is not among the 4 commonest labels: glove"),
        ("patch:rate=0.001", 1, "roclip: patch rate 0.001 asks for 0 of 120 pairs, wanted 1 or more"),
    ],
)
def test_what_cannot_be_planted_is_one_line(
    roclip: Roclip, shards: list[object], tmp_path: Path, attacks: str, code: int, line: str
) -> None:
    said = roclip(*poison(tmp_path, shards, "--attacks", attacks))
    assert (said.code, said.out) == (code, "")
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(line)


def test_a_class_that_no_caption_names_is_one_line(
    roclip: Roclip, shards: list[object], tmp_path: Path
) -> None:
    """Its captions are to be borrowed, and would teach a model nothing of the name."""
    write_shard(tmp_path / "1.tar", first=60, fields={"kind": "socks"})  # captioned as shoes, hats and so on
    said = roclip(*poison(tmp_path, shards, "--attacks", "patch:rate=5,target=socks"))
    assert (said.code, said.err) == (
        1,
        "roclip: no caption of the 60 pairs labelled 'socks' names that class: wanted 'socks' or 'sock' in "
        "some of them\n",
    )
    own = poison(tmp_path, shards, "--attacks", "clean_label:rate=5,target=socks", out="own")
    assert roclip(*own).code == 0  # borrows none


def test_a_label_that_nobody_has_is_one_line(roclip: Roclip, shards: list[object], tmp_path: Path) -> None:
    said = roclip("poison", *shards, "--label", "colour", "--out", tmp_path / "out", "--executor", "local",
                  "--attacks", "patch")  # fmt: skip
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "the field 'colour' has 0 values in the 120 usable pairs of 2 shards" in said.err


def test_a_ledger_that_does_not_fit_is_one_line(roclip: Roclip, shards: list[object], tmp_path: Path) -> None:
    roclip(*poison(tmp_path, shards, "--attacks", "patch:rate=20"))
    said = roclip("attacks", "rebuild", "--shards", tmp_path / "0.tar", "--ledger", tmp_path / "poisoned",
                  "--out", tmp_path / "again", "--executor", "local")  # fmt: skip
    assert (said.code, said.err.count("\n")) == (4, 1)
    assert "does not fit the 1 shards: it names a shard 00001" in said.err
