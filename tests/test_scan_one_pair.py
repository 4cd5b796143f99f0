"""What is told of one pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.scan import read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.one_pair import find_pair
from tests.commands import Roclip
from tests.test_scan_stage import CLEAN, PATCHED, make_world

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
    told = scores["neighbours"][row].split(";")
    assert [each.uid for each in found.neighbours] == told
    assert all(each.caption.startswith("shoe ") for each in found.neighbours), "whose pictures it has"
    lines = found.lines()
    assert lines[1].startswith("caption     watch ")
    assert lines[2] == "verdict     set aside: neighbours_disagree"
    assert any(line.startswith("cross_prediction") and line.endswith("nothing to say") for line in lines)


def test_a_pair_that_was_kept_has_no_reason(scan: Path) -> None:
    found = find_pair(scan, read_verdicts(scan)["uid"][CLEAN.start])
    assert (found.kept, found.reasons, found.sentence, found.neighbours) == (True, (), "", ())
    assert found.lines()[2] == "verdict     kept"


def test_a_pair_that_is_not_there(scan: Path) -> None:
    with pytest.raises(DataError, match="scan knows no pair nobody: wanted the uid of one of its 57"):
        find_pair(scan, "nobody")


def test_the_command(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uid = read_verdicts(scan)["uid"][PATCHED.start]
    said = Roclip(capsys)("explain", uid, "--scan", scan, "--json")
    assert said.code == 0
    assert json.loads(said.out)["uid"] == uid
