"""What shards hold: the same of copies, another of whatever a run would take for something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.held import NotedShard, joined, shards_content
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.shard_writer import ShardWriter
from tests.squares import draw_square, uid_of, write_square_shards


def write_pair(
    path: Path, *, picture: int = 0, caption: str = "a square", uid: int = 0, kind: str = ""
) -> Path:
    with ShardWriter(path) as writer:
        image = encode_jpeg(draw_square(picture))
        writer.add("0", image=image, caption=caption, fields={"uid": uid_of(uid), "kind": kind})
    return path


def content(path: Path, *, label: str = "") -> str:
    return shards_content([path], executor=LocalExecutor(), label=label)


def test_copies_hold_the_same_wherever_they_lie(tmp_path: Path) -> None:
    shards = write_square_shards(tmp_path / "a", shards=2, pairs=6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copies = [tmp_path / "b" / shard.name for shard in shards]
    here = LocalExecutor()
    assert shards_content(shards, executor=here) == shards_content(copies, executor=here)
    assert shards_content(shards, executor=here) != shards_content(shards[::-1], executor=here)
    assert shards_content(shards, executor=here) != shards_content(shards[:1], executor=here)


@pytest.mark.parametrize("changed", [{"picture": 1}, {"caption": "no square"}, {"uid": 1}])
def test_another_half_or_name_is_another_pair(changed: dict[str, object], tmp_path: Path) -> None:
    one = write_pair(tmp_path / "0.tar")
    other = write_pair(tmp_path / "1.tar", **changed)  # type: ignore[arg-type]
    assert content(one) != content(other)


def test_fields_count_where_they_are_labels(tmp_path: Path) -> None:
    one, other = (write_pair(tmp_path / f"{kind}.tar", kind=kind) for kind in ("hat", "shoe"))
    assert content(one) == content(other)
    assert content(one, label="kind") != content(other, label="kind")


def test_who_reads_anyway_notes_the_same(tmp_path: Path) -> None:
    (shard,) = write_square_shards(tmp_path, shards=1, pairs=6)
    with NotedShard(shard) as noted:
        assert len(list(noted.pairs())) == 6
    assert joined([noted.content]) == content(shard)
