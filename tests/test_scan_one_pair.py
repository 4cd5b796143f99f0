"""What is told of one pair."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars
import pytest

from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.scan import ScanSettings, read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.explain import why_kept
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.one_pair import find_pair
from roclip_sanitize.scan.traces import JOINS
from roclip_sanitize.scan.verdicts import TELLING_KIN, TELLING_LIFT
from roclip_sanitize.store import write_parquet
from tests.commands import Roclip
from tests.test_scan_stage import CLEAN, PATCHED, TARGETED, make_world
from tests.test_scan_trace_rounds import make_world as make_traced_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one pair")
    scan_store(make_world(root), out=root / "scan", executor=LocalExecutor())
    return root / "scan"


def test_a_pair_that_was_set_aside(scan: Path) -> None:
    row = PATCHED.start
    uid = read_verdicts(scan)["uid"][row]
    found = find_pair(scan, uid)
    scores = read_scores(scan)
    assert (found.kept, found.reasons) == (False, ("neighbours_disagree",))
    assert found.scores["agreement"] == scores["agreement"][row]
    assert found.scores["cross_prediction"] is None, "the detector did not run"
    lower = (scores["agreement"] < scores["agreement"][row]).sum()
    assert found.percentiles["agreement"] == pytest.approx(100 * lower / len(scores))
    assert found.percentiles["captions_of_picture"] == 0, "all other pairs have one caption, too"
    assert found.percentiles["cross_prediction"] is None
    told = scores["neighbours"][row].split(";")
    assert [each.uid for each in found.neighbours] == told
    assert all(each.caption.startswith("shoe ") for each in found.neighbours), "whose pictures it has"
    lines = found.lines()
    assert lines[1].startswith("caption     watch ")
    assert lines[2] == "verdict     set aside: neighbours_disagree"
    assert any(line.startswith("cross_prediction") and line.endswith("nothing to say") for line in lines)


def test_a_pair_that_was_kept(scan: Path) -> None:
    found = find_pair(scan, read_verdicts(scan)["uid"][CLEAN.start])
    assert (found.kept, found.reasons) == (True, ())
    assert found.lines()[2:4] == ["verdict     kept", "why         no detector suspects it"]
    assert [each.caption[:4] for each in found.neighbours] == ["shoe"] * 6


def test_a_collision_has_its_place_among_all(scan: Path) -> None:
    found = find_pair(scan, read_verdicts(scan)["uid"][TARGETED.start])
    assert found.scores["captions_of_picture"] == len(TARGETED)
    assert found.percentiles["captions_of_picture"] == pytest.approx(100 * 51 / 57)


def test_many_neighbours_are_not_all_told(scan: Path) -> None:
    found = find_pair(scan, read_verdicts(scan)["uid"][CLEAN.start])
    assert len([line for line in found.lines() if line.startswith("neighbour ")]) == 6
    many = replace(found, neighbours=found.neighbours * 2)
    assert many.lines()[-1] == "and 2 neighbours more: --json lists them"


def test_why_a_suspected_pair_is_kept() -> None:
    told = why_kept(["cross_prediction", "agreement"], budget=0.06)
    assert told == (
        "cross prediction and agreement suspect it, but less than those pairs that used up the budget of 6.0%"
    )


def test_without_a_budget_no_pair_is_said_to_have_used_it_up(scan: Path, tmp_path: Path) -> None:
    told = read_json(scan / "stage.json")["settings"]
    none = ScanSettings(store=Path(told["store"]), index=Path(told["index"]), neighbours=6, budget=0.0)
    world = replace(none, detectors=tuple(told["detectors"]))
    scan_store(world, out=tmp_path / "scan", executor=LocalExecutor())
    uid, why = read_verdicts(scan)["uid"][PATCHED.start], "the budget of 0.0% leaves room for no pair"
    assert find_pair(tmp_path / "scan", uid).sentence == f"agreement suspects it, but {why}"
    complete = read_json(tmp_path / "scan" / "complete.json")
    del complete["allowed"]
    write_json(tmp_path / "scan" / "complete.json", complete)  # as an older version left it
    assert find_pair(tmp_path / "scan", uid).sentence.endswith(why)
    used = why_kept(["kin"], budget=0.06, label="belt")
    assert used == "kin suspects it, but less than those pairs that used up the share of 'belt' in the budget"
    spared = why_kept(["kin"], budget=0.06, label="belt", room=False)
    assert spared == "kin suspects it, but the share of 'belt' in the budget leaves room for no pair"


def test_what_its_company_says_is_told_of_a_kept_pair(scan: Path, tmp_path: Path) -> None:
    shutil.copytree(scan, tmp_path / "scan")
    path = table_file(tmp_path / "scan", "scores", "00000")
    table, uid = polars.read_parquet(path), read_verdicts(scan)["uid"][CLEAN.start]
    ordinary = {"word_lift": TELLING_LIFT / 2, "trace": JOINS / 2, "kin": TELLING_KIN / 2}
    for name, least, told in (
        ("word_lift", TELLING_LIFT, "word lift suspects it"),
        ("trace", JOINS, "trace suspects it"),
        ("kin", TELLING_KIN, "kin suspects it"),
    ):
        for scores, why in (({**ordinary, name: least}, told), (ordinary, "no detector suspects it")):
            columns = [polars.lit(value, polars.Float32).alias(each) for each, value in scores.items()]
            write_parquet(path, table.with_columns(columns))
            assert find_pair(tmp_path / "scan", uid).sentence.partition(",")[0] == why
    write_parquet(path, table.drop(ordinary))  # as an older version left it
    assert find_pair(tmp_path / "scan", uid).sentence == "no detector suspects it"


def test_the_budget_that_is_told_is_what_was_left_of_it(tmp_path: Path) -> None:
    world = make_traced_world(tmp_path, (900, 0, 880, 20), unseen=True)
    alone = replace(world, detectors=("cross_prediction",), textures=None)
    lowered = replace(alone, budget=0.06, times_mismatched=0.05)
    scan_store(lowered, out=tmp_path / "scan", executor=LocalExecutor())
    verdicts, scores = read_verdicts(tmp_path / "scan"), read_scores(tmp_path / "scan")
    suspected = scores.filter(verdicts["kept"]).sort("cross_prediction")["uid"][-1]
    assert (~verdicts["kept"]).sum() / len(verdicts) == pytest.approx(0.0044, abs=1e-4)
    assert find_pair(tmp_path / "scan", suspected).sentence == (
        "cross prediction suspects it, but less than those pairs that used up the budget of 0.4%"
    )
    complete = read_json(tmp_path / "scan" / "complete.json")
    del complete["allowed"]
    write_json(tmp_path / "scan" / "complete.json", complete)  # as an older version left it
    assert find_pair(tmp_path / "scan", suspected).sentence.endswith("the budget of 6.0%")


def test_without_the_work_folder_a_kept_pair_has_no_neighbours(scan: Path, tmp_path: Path) -> None:
    shutil.copytree(scan, tmp_path / "scan", ignore=shutil.ignore_patterns("work"))
    assert find_pair(tmp_path / "scan", read_verdicts(scan)["uid"][CLEAN.start]).neighbours == ()


def test_a_pair_that_is_not_there(scan: Path) -> None:
    with pytest.raises(DataError, match="scan knows no pair nobody: wanted the uid of one of its 57"):
        find_pair(scan, "nobody")


def test_the_command(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uid = read_verdicts(scan)["uid"][PATCHED.start]
    said = Roclip(capsys)("explain", uid, "--scan", scan, "--json")
    assert said.code == 0
    assert json.loads(said.out)["uid"] == uid
