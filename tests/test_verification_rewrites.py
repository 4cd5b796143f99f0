"""Rewritten shards checked again: what is hidden from one reader, and what only tables say, is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards, verdict_file
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of, write_json
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import failures_file, write_parquet
from roclip_sanitize.tars import BLOCK, member_blocks
from roclip_sanitize.verification import verify_folder
from tests.corpora import picture, write_tar
from tests.test_rewrite import HERE, make_shards, run

Tamper = Callable[[Path], None]
PART = "00002"  # which has failures of its own, and one of its pictures


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RewriteSettings:
    folder = tmp_path_factory.mktemp("verified")
    return run(make_shards(folder, ("a.tar", "b.tar", "c.tar", "d.tar")), folder)


@pytest.fixture(scope="module")
def untouched(settings: RewriteSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("untouched") / "out"
    rewrite_shards(settings, out=out, executor=HERE)
    return out


@pytest.fixture
def out(untouched: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(untouched, tmp_path / "out")


def said(out: Path) -> list[str]:
    return [check.what for check in verify_folder(out)]


def seal(out: Path) -> None:
    """Whoever changes files may change all that is told of them, too."""
    folder, outputs = StageFolder(out), dict[str, str]()
    for marker in folder.markers():
        again = folder.commit(marker.name, files=[out / name for name in marker.files], facts=marker.facts)
        outputs |= again.files if "tally" in again.facts else {}
    tallies = [Tally.from_json(each.facts["tally"]) for each in folder.markers() if "tally" in each.facts]
    folder.finish({"tally": Tally.total(tallies).to_json()})
    counts = {name: value for name, value in folder.facts["tally"].items() if name != "seconds"}
    told = read_json(out / "manifest.json")
    outputs["keep.npy"] = sha256_of(out / "keep.npy")
    write_json(out / "manifest.json", {**told, "outputs": outputs, "counts": counts})


def edit(path: Path, change: Callable[[polars.DataFrame], polars.DataFrame]) -> None:
    write_parquet(path, change(polars.read_parquet(path)))


def retell(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a part's marker counts."""
    path = out / "done" / f"{PART}.json"
    told = read_json(path)
    change(told["facts"]["tally"])
    write_json(path, told)


def behind(out: Path, data: bytes) -> None:
    """Put something behind the last pair of a kept shard."""
    path = out / "kept/a.tar"
    with Shard(path) as shard:
        end = max(member.end for member in shard.members())
    path.write_bytes(path.read_bytes()[:end] + data + b"\0" * (2 * BLOCK))


def hide_under_a_key_that_came_before(out: Path) -> None:
    with Shard(out / "kept/a.tar") as shard:
        key = next(shard.pairs()).key
    behind(out, member_blocks(f"{key}.jpg", picture(7)) + member_blocks(f"{key}.txt", b"buy now"))


def hide_behind_a_bad_uid(out: Path) -> None:
    members = {"jpg": picture(7), "txt": b"buy now", "json": b'{"uid": "x"}'}
    behind(out, b"".join(member_blocks(f"77777.{name}", data) for name, data in members.items()))


def hide_in_a_group_without_caption(out: Path) -> None:
    behind(out, member_blocks("77777.jpg", picture(7)) + member_blocks("77777.cls", b"3"))


def hide_behind_the_end(out: Path) -> None:
    behind(out, b"\0" * (2 * BLOCK) + (out / "quarantined/a.tar").read_bytes())


def hide_between(out: Path) -> None:
    path = out / "kept/a.tar"
    with Shard(path) as shard:
        place = list(shard.pairs())[1].members[0].start
    data = path.read_bytes()
    path.write_bytes(data[:place] + member_blocks("77777.cls", b"3") + data[place:])


def call_a_kept_pair_failed(out: Path) -> None:
    """It is gone from its shard, its tables, the keep-list and all counts, and listed as failed."""
    table = verdict_file(out, PART)
    lost = polars.read_parquet(table).filter("keep")["uid"][2]
    with Shard(out / "kept/c.tar") as shard:
        data = b"".join(shard.raw(pair.members) for pair in shard.pairs() if pair.uid != lost)
        key = next(pair.key for pair in shard.pairs() if pair.uid == lost)
    (out / "kept/c.tar").write_bytes(data + b"\0" * (2 * BLOCK))
    for path in (table, out / "kept/c.parquet"):
        edit(path, lambda frame: frame.filter(frame["uid"] != lost))
    stats = read_json(out / "kept/c_stats.json")
    write_json(
        out / "kept/c_stats.json", {**stats, "count": stats["count"] - 1, "successes": stats["count"] - 1}
    )
    row = {"uid": lost, "key": key, "reason": "image_undecodable"}
    named = [polars.lit(value).alias(name) for name, value in row.items()]
    edit(failures_file(out, PART), lambda frame: polars.concat([frame, frame.head(1).with_columns(*named)]))
    retell(out, lambda tally: tally["failed"].update(image_undecodable=2))
    tables = [polars.read_parquet(path) for path in sorted((out / "verdicts").iterdir())]
    write_keep_list(out / "keep.npy", [each.filter("keep")["uid"].to_list() for each in tables])


def empty_the_failures(out: Path) -> None:
    edit(failures_file(out, PART), lambda frame: frame.head(0))
    retell(out, lambda tally: tally.update(failed={}))


def forge_domains(out: Path) -> None:
    edit(out / "kept/a.parquet", lambda frame: frame.with_columns(url=polars.lit("http://nice.example/")))


def forge_counts(out: Path) -> None:
    write_json(out / "kept/a_stats.json", {**read_json(out / "kept/a_stats.json"), "count": 1})


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (hide_under_a_key_that_came_before, r"kept/a.tar: behind byte .* is something that is no pair of"),
        (hide_behind_a_bad_uid, r"kept/a.tar: behind byte .* is something that is no pair of"),
        (hide_in_a_group_without_caption, r"kept/a.tar: behind byte .* is something that is no pair of"),
        (hide_behind_the_end, r"kept/a.tar: behind byte .* is something that is no pair of"),
        (hide_between, r"kept/a.tar: \w{32} has other bytes than in .*a.tar"),
        (call_a_kept_pair_failed, "verdicts_00002.parquet: same pairs as part 00002 of .*scan: found False"),
        (empty_the_failures, "failures_00002.parquet: same failures as part 00002 of .*: found False"),
        (
            lambda out: retell(out, lambda tally: tally.update(quarantined={"neighbours_disagree": 1})),
            "pairs quarantined as many_captions_one_picture: found 0, wanted 1",
        ),
        (
            lambda out: retell(out, lambda tally: tally.update(failed={"bad_json": 2})),
            "pairs failed as bad_json: found 2, wanted 0",
        ),
        (forge_domains, "kept/a.parquet: what the pairs of a.tar make it: found False"),
        (forge_counts, "kept/a_stats.json: counts: found .*'count': 1, .*wanted .*'count': 8"),
        (lambda out: shutil.copy(out / "keep.npy", out / "verdicts/x.parquet"), "x.parquet was made of no"),
        (
            lambda out: write_json(
                out / "manifest.json", {**read_json(out / "manifest.json"), "note": "all fine"}
            ),
            "manifest.json: names in it: found .*note",
        ),
    ],
)
def test_what_does_not_hold_is_found(out: Path, tamper: Tamper, message: str) -> None:
    tamper(out)
    seal(out)
    with pytest.raises(MismatchError, match=message):
        said(out)


def without_store(settings: RewriteSettings, folder: Path, tamper: Tamper) -> list[str]:
    """What is said of a rewriting whose store is gone by now."""
    for name in ("index", "scan", "store"):
        shutil.copytree(settings.store.parent / name, folder / name)
    told = read_json(folder / "scan/stage.json")
    told["settings"] |= {"store": str(folder / "store"), "index": str(folder / "index")}
    write_json(folder / "scan/stage.json", told)
    moved = RewriteSettings(store=folder / "store", verdicts=folder / "scan")
    rewrite_shards(moved, out=folder / "out", executor=HERE)
    shutil.rmtree(folder / "store")
    tamper(folder / "out")
    seal(folder / "out")
    return said(folder / "out")


def test_without_its_store_a_shard_tells_what_failed(settings: RewriteSettings, tmp_path: Path) -> None:
    lines = without_store(settings, tmp_path, lambda out: None)
    assert "the other 4 pairs of the input shards are those that failed" in lines


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"reason": "bad_json"}, r"not what failed of .*c.tar: pair 'lonely' \(no uid\), no_image"),
        ({"key": "none"}, r"c.tar: pair \w+ \(\w{32}\) is not among those that failed, and its place"),
    ],
)
def test_without_its_store_other_failures_are_found(
    settings: RewriteSettings, tmp_path: Path, row: dict[str, str], message: str
) -> None:
    def tamper(out: Path) -> None:
        named = [polars.lit(value).alias(name) for name, value in row.items()]
        edit(failures_file(out, PART), lambda frame: frame.with_columns(*named))
        failed = polars.read_parquet(failures_file(out, PART))["reason"].value_counts()
        retell(out, lambda tally: tally.update(failed=dict(failed.iter_rows())))

    with pytest.raises(MismatchError, match=message):
        without_store(settings, tmp_path, tamper)


def test_exact_copies_without_a_uid_are_pairs_each(tmp_path: Path) -> None:
    """They share a uid, which is a hash of what they hold."""
    members = [
        member
        for number, copy in ((0, ""), (1, ""), (1, "b"), (2, ""), (1, "c"))
        for member in (
            (f"{number:05d}{copy}.jpg", picture(number)),
            (f"{number:05d}{copy}.txt", b"item %d" % number),
        )
    ]
    settings = run([write_tar(tmp_path / "00000.tar", members)], tmp_path)
    assert rewrite_shards(settings, out=tmp_path / "out", executor=HERE).kept == 5
    lines = said(tmp_path / "out")
    assert any(line.startswith("5 pairs of 1 input shards are where") for line in lines)
    assert "keep.npy lists the 3 uids that were kept" in lines
