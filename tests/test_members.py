"""Single pairs out of shards, by uid: the same as a walk finds, and no more is read than they take."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import polars
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.members import MemberIndex, index_members
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shards import Shard, expand_shards
from tests.corpora import pair_members, picture, read_shard, uid, write_shard, write_tar


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """A good shard, a packed one, and one with strange pairs and broken ones."""
    good = write_shard(tmp_path / "0.tar", range(5))
    packed = tmp_path / "1.tar.gz"
    packed.write_bytes(gzip.compress(write_shard(tmp_path / "plain.tar", range(5, 10)).read_bytes()))
    odd = [
        *pair_members("n" * 150, 10),
        *[*pair_members("more", 11), ("more.seg.PNG", b"mask")],
        *pair_members("broken", 12)[1:],
        *pair_members("./folder/é", 13),
    ]
    return [good, packed, write_tar(tmp_path / "2.tar", odd)]


def indexed(shards: Sequence[Path], out: Path) -> tuple[MemberIndex, Tally]:
    tally = index_members(shards, out=out, executor=open_executor("local"))
    return MemberIndex.open(out), tally


def test_every_pair_is_read_as_a_walk_reads_it(shards: list[Path], tmp_path: Path) -> None:
    index, tally = indexed(shards, tmp_path / "members")
    walked = {pair.uid: pair for path in shards for pair in read_shard(path)[0]}
    assert len(walked) == 13
    assert index.read_many(walked) == walked
    assert all(index.read(name) == pair for name, pair in walked.items())
    assert (tally.seen, tally.kept, dict(tally.failed)) == (14, 13, {"no_image": 1})


def test_the_table_says_where_members_lie(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", range(3))
    indexed([path], tmp_path / "members")
    rows = polars.read_parquet(tmp_path / "members" / "members" / "members_00000.parquet")
    data = path.read_bytes()
    first = rows.row(0, named=True)
    assert (first["uid"], first["name"], first["start"], first["offset"]) == (uid(0), "000000.jpg", 0, 512)
    assert data[512 : 512 + first["size"]] == picture(0)
    assert rows["name"].to_list() == [f"{n:06d}.{kind}" for n in range(3) for kind in ("jpg", "txt", "json")]


def test_unknown_pairs_are_left_out_or_named(shards: list[Path], tmp_path: Path) -> None:
    index, _ = indexed(shards, tmp_path / "members")
    assert index.read_many([uid(99)]) == {}
    assert list(index.read_many([uid(99), uid(3)])) == [uid(3)]
    with pytest.raises(DataError, match=f"lists no pair {uid(12)}"):
        index.read(uid(12))  # it is broken


def test_equal_pairs_without_uids_are_one(tmp_path: Path) -> None:
    members = [member for key in "ab" for member in pair_members(key, 1)[:2]]
    path = write_tar(tmp_path / "0.tar", members)
    index, tally = indexed([path], tmp_path / "members")
    first, second = read_shard(path)[0]
    assert first.uid == second.uid
    assert index.read(first.uid) == first
    assert tally.seen == 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: write_shard(path, range(5, 10)), id="other pairs"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:700]), id="cut"),
        pytest.param(lambda path: path.write_bytes(b""), id="emptied"),
    ],
)
def test_a_shard_that_has_changed_is_not_believed(tmp_path: Path, change: object) -> None:
    path = write_shard(tmp_path / "0.tar", range(5))
    index, _ = indexed([path], tmp_path / "members")
    assert callable(change)
    change(path)
    with pytest.raises(MismatchError, match="has changed since its members were listed"):
        index.read(uid(3))


def test_of_a_remote_shard_only_the_pair_is_fetched(tmp_path: Path) -> None:
    system = MemoryFileSystem()
    data = write_shard(tmp_path / "0.tar", range(200)).read_bytes()
    system.pipe_file("/members/0.tar", data)
    index, _ = indexed(expand_shards("memory://members/0.tar"), tmp_path / "members")
    end = read_shard(tmp_path / "0.tar")[0][3].members[-1].end
    system.pipe_file("/members/0.tar", data[:end].ljust(len(data), b"?"))  # whoever walks on will notice
    assert index.read(uid(3)).image == picture(3)
    system.rm("/members/0.tar")


def test_a_second_run_does_no_work_and_a_killed_one_goes_on(shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "members"
    _, tally = indexed(shards, out)
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    (out / "complete.json").unlink()
    (out / "done" / "00001.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in before}
    assert indexed(shards, out)[1].seen == tally.seen
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    rewritten = {path.name for path in before if path.stat().st_mtime_ns != times[path]}
    assert rewritten == {"members_00001.parquet", "failures_00001.parquet"}
    StageFolder(out).verify()


def test_a_known_pair_can_be_copied_byte_for_byte(shards: list[Path], tmp_path: Path) -> None:
    index, _ = indexed(shards, tmp_path / "members")
    pair = index.read(uid(10))
    with Shard(shards[2]) as shard:
        assert shard.raw(pair.members) == shard.raw(next(shard.pairs()).members)
