"""All stages that clean a dataset, in one folder and one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.sanitize import SanitizeSettings, sanitize_shards
from roclip_sanitize.scan import read_verdicts
from roclip_sanitize.shard_writer import ShardWriter
from tests.commands import Roclip
from tests.squares import colour_of, draw_square, uid_of, write_square_shards

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


def write_copies(path: Path, *, pairs: int, different: int) -> tuple[Path, ...]:
    """A shard of few pictures, each of them several times, in bytes of its own each time."""
    with ShardWriter(path) as writer:
        for number in range(pairs):
            picture = encode_jpeg(draw_square(number % different)) + bytes(
                [number]
            )  # what follows is not read
            caption = f"a {colour_of(number % different)} square, seen {number} times"
            writer.add(f"{number:06d}", image=picture, caption=caption, fields={"uid": uid_of(number)})
    return (path,)


@pytest.mark.parametrize(
    ("pairs", "different", "young", "transform"),
    [
        pytest.param(50, 50, 1, "pca49", id="few pairs, fewer than a batch of the young CLIP"),
        pytest.param(100, 7, 0, "pca6", id="few pictures"),
        pytest.param(100, 1, 0, "", id="one picture"),
    ],
)
def test_as_many_directions_as_there_are_will_do(
    tmp_path: Path, pairs: int, different: int, young: int, transform: str
) -> None:
    told = SanitizeSettings(
        shards=write_copies(tmp_path / "copies.tar", pairs=pairs, different=different), young_clips=young
    )
    for _ in range(2):
        tally = sanitize_shards(told, out=tmp_path / "out", executor=LocalExecutor(), say=list[str]().append)
        assert tally.seen == pairs == tally.kept + sum(tally.quarantined.values())
    assert read_json(tmp_path / "out" / "index" / "stage.json")["settings"]["transform"] == transform
    assert (tally.kept > 40) == (pairs == different), "what is shown under many captions is set aside"


def test_of_enough_pairs_nothing_is_taken_away(tmp_path: Path) -> None:
    told = SanitizeSettings(
        shards=write_square_shards(tmp_path / "squares", shards=1, pairs=110), young_clips=0
    )
    sanitize_shards(told, out=tmp_path / "out", executor=LocalExecutor(), say=list[str]().append)
    assert read_json(tmp_path / "out" / "index" / "stage.json")["settings"]["transform"] == "pca96"
