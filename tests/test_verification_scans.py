"""What a scan declares as a whole: each of it that was changed is found, and older scans may say less."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.audit import AuditSettings, measure
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.scan import ScanSettings, read_verdicts, scan_store
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.rejudging import ROOM_FOR_TRACES
from roclip_sanitize.scan.settings import DETECTORS, LEAN
from roclip_sanitize.verification import verify_folder
from tests.test_scan_trace_rounds import POISONS, make_world

pytestmark = pytest.mark.slow
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan whose budget was lowered, and in which a word has a trace; its work folder is gone."""
    root = tmp_path_factory.mktemp("declared")
    world = replace(make_world(root, (900, 0, 880, 20)), budget=0.06, times_mismatched=0.2)
    scan_store(world, out=root / "scan", executor=LocalExecutor())
    shutil.rmtree(root / "scan" / "work")
    return root / "scan"


@pytest.fixture
def scan(untouched: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(untouched, tmp_path / "scan")


def test_the_budget_has_room_for_all_that_carry_a_trace(untouched: Path, tmp_path: Path) -> None:
    """And verify and an audit derive as many; a scan from before there was such room is judged as then."""
    told = ScanSettings(store=untouched.parent / "store", index=untouched.parent / "index")
    lowered = replace(told, detectors=("cross_prediction", "traces"), times_mismatched=0.1)
    scan = tmp_path / "scan"
    scan_store(lowered, out=scan, executor=LocalExecutor())
    facts, verdicts = read_json(scan / "complete.json"), read_verdicts(scan)
    careful = Strangers.from_json(facts["strangers"]).careful_share
    assert careful is not None
    assert 0.1 * careful * len(verdicts) < 20
    assert facts["allowed"] == 30
    assert set(verdicts.filter(~verdicts["kept"])["uid"]) == {f"{row:032x}" for row in POISONS}
    assert any("lowered to 0.1 times a careful estimate" in check.what for check in verify_folder(scan))
    audited = measure(AuditSettings(scan=scan))["estimate"]
    assert (audited["times"], audited["carriers"], audited["allowed"]) == (0.1, 30, 30)
    stage = read_json(scan / "stage.json")
    stage["settings"]["tables"] = ROOM_FOR_TRACES - 1
    write_json(scan / "stage.json", stage)
    assert measure(AuditSettings(scan=scan))["estimate"]["allowed"] == int(0.1 * careful * len(verdicts))
    with pytest.raises(MismatchError, match=r"found set aside for .*, but its scores make it kept"):
        list(verify_folder(scan))


def declare(scan: Path, change: Change) -> None:
    """Change what it declares."""
    told = read_json(scan / "complete.json")
    change(told)
    write_json(scan / "complete.json", told)


def test_each_thing_that_holds_is_said(scan: Path) -> None:
    said = [check.what for check in verify_folder(scan)]
    told = read_json(scan / "complete.json")
    share, cut = told["strangers"]["share"], told["cut"]["suspicion"]
    assert "each pair was looked at once, as its settings say" in said
    assert f"{share:.2%} of its pairs are estimated to be mismatched, by its counts of strangers" in said
    assert f"its budget ends at a suspicion of {cut:.6f}, as the scores have it" in said
    assert f"{sum(told['reasons'].values())} reasons are told of them, as counted" in said
    assert "30 pictures carry the traces of 1 words, as counted" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.update(looks=7), "scan: looks at each pair: found 7, wanted 1"),
        (
            lambda told: told.update(mismatched=1.1 * told["mismatched"]),
            r"scan: share that it was judged by: found 0\.\d+, wanted 0\.\d+",
        ),
        (
            lambda told: told["strangers"].update(share=0.0001),
            r"scan: share of mismatched pairs: found 0\.0001, wanted 0\.\d+",
        ),
        (
            lambda told: told["strangers"].update(pairs_below=4),
            r"scan: share of mismatched pairs: found 0\.\d+, wanted 0\.\d+",
        ),
        (
            lambda told: told["strangers"].update(
                pairs=900, pairs_below=told["strangers"]["pairs_below"] / 2
            ),
            "scan: pairs that have ranks: found 900, wanted 1800",
        ),
        (
            lambda told: told["strangers"].update(pairs_below=1800, share=1.0),
            r"scan: pairs below: found 1800, wanted at most \d+",
        ),
        (
            lambda told: told.update(allowed=1234),
            r"scan: pairs that the budget allows: found 1234, wanted \d\d",
        ),
        (
            lambda told: told.update(cut={"suspicion": 0.1, "uid": ""}),
            r"scan: suspicion of the cut: found 0\.1, wanted 0\.\d+",
        ),
        (lambda told: told["cut"].update(uid="f" * 32), r"scan: pair of the cut: found f{32}, wanted \w{32}"),
        (lambda told: told.update(reasons={"x": 4}), r"scan: pairs with reason \w+: found 0, wanted \d+"),
        (lambda told: told["reasons"].update(x=4), "scan: pairs with reason x: found 4, wanted 0"),
        (lambda told: told.update(traces=[]), "scan: words that have a trace: found 0, wanted 1"),
        (
            lambda told: told["traces"][0].update(pairs=31),
            "scan: pictures with the trace of belt: found 31, wanted 30",
        ),
        (
            lambda told: told["traces"][0].update(word="shoe"),
            "scan: pictures with the trace of belt: found 0, wanted 30",
        ),
    ],
)
def test_what_was_changed_is_found(scan: Path, change: Change, message: str) -> None:
    declare(scan, change)
    with pytest.raises(MismatchError, match=message):
        list(verify_folder(scan))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda told: told.update(strangers=[1]),
            "strangers in .*complete.json is a list, wanted names with",
        ),
        (
            lambda told: told["strangers"].update(ghosts=3),
            "complete.json is no count of strangers: TypeError",
        ),
        (lambda told: told.update(cut=3), "complete.json is no cut: TypeError"),
        (lambda told: told.update(traces=[{}]), "complete.json is no list of traces: KeyError: 'word'"),
    ],
)
def test_what_is_of_another_kind_is_one_line(scan: Path, change: Change, message: str) -> None:
    declare(scan, change)
    with pytest.raises(DataError, match=message):
        list(verify_folder(scan))


@pytest.mark.parametrize("missing", ["looks", "mismatched", "allowed", "cut", "reasons", "traces"])
def test_what_an_older_scan_does_not_declare_is_not_compared(scan: Path, missing: str) -> None:
    everything = len(list(verify_folder(scan)))
    declare(scan, lambda told: told.pop(missing))
    left = len(list(verify_folder(scan)))
    assert left == everything - (missing in {"looks", "cut", "reasons", "traces"})


def test_a_scan_from_before_there_was_an_estimate_verifies(tmp_path: Path) -> None:
    world = make_world(tmp_path, (1_800,))
    scan_store(world, out=tmp_path / "scan", executor=LocalExecutor())
    declare(
        tmp_path / "scan", lambda told: [told.pop(name) for name in ("strangers", "mismatched", "allowed")]
    )
    assert not any("estimated to be mismatched" in check.what for check in verify_folder(tmp_path / "scan"))


@pytest.mark.parametrize("detector", sorted({*DETECTORS} - {*LEAN}))
def test_a_scan_by_a_single_detector_verifies(untouched: Path, tmp_path: Path, detector: str) -> None:
    told = ScanSettings(store=untouched.parent / "store", index=untouched.parent / "index")
    alone = replace(told, detectors=(detector,))
    scan_store(alone, out=tmp_path / "scan", executor=LocalExecutor())
    said = [check.what for check in verify_folder(tmp_path / "scan")]
    assert "1,800 verdicts are what the scores of the same pairs make them" in said


def test_an_audit_derives_what_the_budget_allows(scan: Path) -> None:
    wanted = measure(AuditSettings(scan=scan))["estimate"]
    assert wanted["allowed"] == read_json(scan / "complete.json")["allowed"]
    declare(scan, lambda told: (told.update(allowed=1234), told["strangers"].update(share=0.0001)))
    assert measure(AuditSettings(scan=scan))["estimate"] == wanted
    assert json.dumps(wanted), "plain values"
