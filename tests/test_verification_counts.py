"""Counts and lists that only tables can tell: made again from them, whoever told them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.scan.keep_list import read_keep_list, write_keep_list
from roclip_sanitize.scoring.stage import ScoreSettings, score_pairs
from roclip_sanitize.screen import ScreenSettings, screen_shards
from roclip_sanitize.store import write_failures
from roclip_sanitize.verification import verify_folder
from tests.corpora import picture, write_shard
from tests.test_rewrite import embed, make_shards
from tests.test_scoring import store_of

HERE = LocalExecutor()


def said(folder: Path) -> list[str]:
    return [check.what for check in verify_folder(folder)]


def reseal(folder: Path, name: str, **tally: Any) -> None:
    """Tell a part's files as they are now, and its tally otherwise; the total, too."""
    stage = StageFolder(folder)
    marker = stage.marker(name)
    assert marker is not None
    facts = {**marker.facts, "tally": {**marker.facts.get("tally", {}), **tally}} if tally else marker.facts
    stage.commit(name, files=[folder / file for file in marker.files], facts=facts)
    if tally:
        write_json(folder / "complete.json", {"tally": facts["tally"]})


@pytest.fixture
def screening(tmp_path: Path) -> Path:
    """One shard of four pairs, the picture of one of which is known."""
    shard = write_shard(tmp_path / "0.tar", range(4))
    (tmp_path / "bad.txt").write_text(hashlib.sha256(picture(2)).hexdigest())
    told = ScreenSettings(shards=(shard,), known_bad=(tmp_path / "bad.txt",))
    screen_shards(told, out=tmp_path / "screening", executor=HERE)
    return tmp_path / "screening"


@pytest.fixture
def scoring(tmp_path: Path) -> Path:
    store_of(tmp_path / "store")
    told = ScoreSettings(
        store=tmp_path / "store", detectors=("clip_score",), reference=50, neighbours=5, worst=0.1
    )
    score_pairs(told, out=tmp_path / "scoring", executor=HERE)
    return tmp_path / "scoring"


def test_lists_are_made_again(screening: Path, scoring: Path) -> None:
    assert "listed.npy lists the 1 uids whose pictures are known" in said(screening)
    count = len(read_keep_list(scoring / "worst.npy"))
    assert count
    assert f"worst.npy lists the {count} uids with the worst scores" in said(scoring)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_list_that_was_emptied_is_found(screening: Path, scoring: Path, sealed: bool) -> None:
    for folder, name in ((screening, "listed"), (scoring, "worst")):
        write_keep_list(folder / f"{name}.npy", [])
        message = "has changed since it was written"
        if sealed:
            reseal(folder, name)
            message = rf"{name}.npy: not the \d+ uids .*: \w{{32}}"
        with pytest.raises(MismatchError, match=message):
            said(folder)


def test_lists_of_older_folders_are_in_no_marker(screening: Path, scoring: Path) -> None:
    for folder, name in ((screening, "listed"), (scoring, "worst")):
        (folder / f"done/{name}.json").unlink()
        assert any(f"{name}.npy lists the" in line for line in said(folder))


def test_screened_pairs_are_counted(screening: Path) -> None:
    reseal(screening, "00000", quarantined={})
    with pytest.raises(MismatchError, match="pairs quarantined as known_bad: found 0, wanted 1"):
        said(screening)


def test_failures_are_counted_by_reason(tmp_path: Path) -> None:
    store = embed(make_shards(tmp_path, ("a.tar", "b.tar", "c.tar", "d.tar")), tmp_path / "store")
    assert any("pairs have a name each" in line for line in said(store))
    failed = {"no_image": 1, "image_undecodable": 1}
    told = read_json(store / "done/00002.json")
    assert told["facts"]["tally"]["failed"] == failed
    told["facts"]["tally"]["failed"] = {"caption_too_long": 2}
    write_json(store / "done/00002.json", told)
    with pytest.raises(MismatchError, match="pairs failed as caption_too_long: found 2, wanted 0"):
        said(store)
    told["facts"]["tally"]["failed"] = failed
    write_json(store / "done/00002.json", told)
    write_failures(store, "00002", [])
    reseal(store, "00002")
    with pytest.raises(MismatchError, match="pairs failed as image_undecodable: found 1, wanted 0"):
        said(store)


@pytest.mark.parametrize("told", ["[]", "3", "{}", "null"])
def test_what_tells_no_stage_is_one_line(tmp_path: Path, told: str) -> None:
    (tmp_path / "stage.json").write_text(told)
    assert json.loads(told) in ([], 3, {}, None)
    with pytest.raises(DataError, match=r"stage.json (is a|has no 'stage')"):
        said(tmp_path)
