"""All stages that clean a dataset, in one folder and one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.sanitize import SanitizeSettings, sanitize_shards
from roclip_sanitize.scan import read_verdicts
from tests.commands import Roclip
from tests.squares import write_square_shards

pytestmark = pytest.mark.slow


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


def test_one_command_gives_kept_and_quarantined_shards(tmp_path: Path, roclip: Roclip) -> None:
    write_square_shards(tmp_path / "squares", shards=2, pairs=80)
    told = (
        *("sanitize", "--shards", tmp_path / "squares" / "{00000..00001}.tar", "--out", tmp_path / "out"),
        *("--budget", 0.1, "--young-clips", 0, "--executor", "local", "--json"),
    )
    said = roclip(*told)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["seen"] == 160 == found["kept"] + sum(found["quarantined"].values())
    assert {path.name for path in Path(found["kept_shards"]).glob("*.tar")} == {"00000.tar", "00001.tar"}
    assert Path(found["manifest"]).exists()
    begun = [line for line in said.lines if line.endswith("…")]
    stages = ("embed", "embed textures", "index", "scan", "rewrite")
    assert begun == [f"sanitize: {stage} …" for stage in stages]
    assert roclip(*told).code == 0, "the same command again finds all of it done"


def test_a_budget_that_makes_no_sense_is_refused_before_anything_is_done() -> None:
    with pytest.raises(ConfigError, match=r"budget is 7\.0, wanted a share from 0 to 1"):
        SanitizeSettings(shards=(Path("a.tar"),), scan={"budget": 7.0})
    with pytest.raises(ConfigError, match=r"young_clips is -1, wanted 0 \(look once\) or more"):
        SanitizeSettings(shards=(Path("a.tar"),), young_clips=-1)


def test_textures_are_told_for_traces_alone(tmp_path: Path) -> None:
    told = SanitizeSettings(shards=(Path("a.tar"),))
    assert told.scan_settings(tmp_path).textures == tmp_path / "textures"
    without = SanitizeSettings(shards=(Path("a.tar"),), scan={"detectors": ("cross_prediction",)})
    assert without.scan_settings(tmp_path).textures is None


def test_a_second_look_is_trained_for_and_taken(tmp_path: Path) -> None:
    shards = write_square_shards(tmp_path / "squares", shards=2, pairs=80)
    lines = list[str]()
    told = SanitizeSettings(shards=shards)
    tally = sanitize_shards(told, out=tmp_path / "out", executor=LocalExecutor(), say=lines.append)
    assert tally.seen == 160
    assert [line for line in lines if line.endswith("…")] == [
        f"{stage} …"
        for stage in (
            *("embed", "embed textures", "index", "train young_1, young_2"),
            *("embed by young_1", "embed by young_2", "scan", "rewrite"),
        )
    ]
    scan = read_json(tmp_path / "out" / "scan" / "stage.json")["settings"]
    assert scan["second_look"] == [str(tmp_path / "out" / f"young_{n}_store") for n in (1, 2)]
    seeds = [read_json(tmp_path / "out" / f"young_{n}" / "stage.json")["settings"]["seed"] for n in (1, 2)]
    assert seeds == [0, 1], "two of the same seed would be one"
    assert not (tmp_path / "out" / "young_cache").exists(), "decoded pairs are of no more use"
    assert len(read_verdicts(tmp_path / "out" / "scan")) == 160
