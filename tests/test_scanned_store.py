"""A store that was made anew since it was scanned: nobody takes the scan for one of what it holds now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from roclip_sanitize.audit import AuditSettings, measure
from roclip_sanitize.canaries.stage import CanarySettings, count_canaries
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.export import ExportSettings, export_scan
from roclip_sanitize.rewrite import RewriteSettings, read_keep_list, rewrite_shards
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.scan.one_pair import find_pair
from roclip_sanitize.verification import verify_folder
from tests.test_rewrite import HERE, embed, picture, run, uid, write_shard


@pytest.fixture
def settings(tmp_path: Path) -> RewriteSettings:
    """A pair could not be decoded when the store was scanned; it was repaired, and embedded since."""
    images = [picture(0), picture(1), b"no picture"]
    shard = write_shard(tmp_path / "a.tar", [(uid(n), image, "thing") for n, image in enumerate(images)])
    settings = run([shard], tmp_path)
    rewrite_shards(settings, out=tmp_path / "before", executor=HERE)
    write_shard(shard, [(uid(n), picture(n), "thing") for n in range(3)])
    shutil.rmtree(settings.store)
    embed([shard], settings.store)
    return settings


@pytest.mark.parametrize(
    "ask",
    [
        lambda scan, out: rewrite_shards(
            RewriteSettings(store=scan.parent / "store", verdicts=scan), out=out, executor=HERE
        ),
        lambda scan, out: export_scan(ExportSettings(scan=scan), out=out, executor=HERE),
        lambda scan, out: count_canaries(CanarySettings(scan=scan), out=out, executor=HERE),
        lambda scan, out: measure(AuditSettings(scan=scan)),
        lambda scan, out: find_pair(scan, uid(0)),
    ],
    ids=["rewrite", "export", "canaries", "audit", "explain"],
)
def test_pairs_that_nobody_scanned_are_refused(
    settings: RewriteSettings, tmp_path: Path, ask: Callable[[Path, Path], object]
) -> None:
    told = r"store holds \w{16}, wanted \w{16}, of which .*scan was made: index and scan it again"
    with pytest.raises(MismatchError, match=told):
        ask(settings.verdicts, tmp_path / "out")


def test_what_was_rewritten_before_is_no_rewriting_of_it(settings: RewriteSettings, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"store: content since .*scan was made: found \w{16}, wanted"):
        list(verify_folder(tmp_path / "before"))


def test_a_scan_from_before_its_store_was_noted_is_taken_as_it_is(
    settings: RewriteSettings, tmp_path: Path
) -> None:
    told = read_json(settings.verdicts / "stage.json")
    del told["settings"]["store_content"]
    write_json(settings.verdicts / "stage.json", told)
    rewrite_shards(settings, out=tmp_path / "out", executor=HERE)
    assert read_keep_list(tmp_path / "out" / "keep.npy") == [uid(n) for n in range(3)]
