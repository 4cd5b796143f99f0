"""Shards written: the same bytes each time, copies block by block, and what others read and write."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roclip_sanitize.records import is_uid
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard
from roclip_sanitize.tars import BLOCK
from tests.corpora import (
    FORMATS,
    blocks_of,
    pair_members,
    picture,
    read_shard,
    uid,
    write_shard,
    write_tar,
)


def test_the_same_pairs_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_shard(tmp_path / name / "0.tar", range(4)) for name in "ab")
    for name in ("0.tar", "0.parquet", "0_stats.json"):
        assert first.with_name(name).read_bytes() == second.with_name(name).read_bytes()


def test_a_written_shard_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    key = "long/" * 30 + "é"
    with ShardWriter(path) as writer:
        writer.add(key, image=picture(1), caption="caffè ☕", fields={"uid": uid(1), "kind": "cup"})
        writer.add("b", image=picture(2), caption="no uid", fields={})
    (first, second), failures = read_shard(path)
    assert not failures
    assert (first.key, first.uid, first.caption, first.image) == (key, uid(1), "caffè ☕", picture(1))
    assert first.fields["kind"] == "cup"
    assert is_uid(second.fields["uid"])
    assert second.uid == second.fields["uid"]
    rows = polars.read_parquet(path.with_suffix(".parquet"))
    assert rows["uid"].to_list() == [first.uid, second.uid]
    assert rows["sha256"].to_list() == [first.fields["sha256"], second.fields["sha256"]]
    stats = json.loads((tmp_path / "0_stats.json").read_text())
    assert stats == {"count": 2, "successes": 2, "failed_to_download": 0, "failed_to_resize": 0}
    with tarfile.open(path) as archive:
        assert archive.getnames() == [f"{k}.{e}" for k in (key, "b") for e in ("jpg", "txt", "json")]
    assert path.stat().st_size % tarfile.RECORDSIZE == 0


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:

    def fail() -> None:
        with ShardWriter(tmp_path / "0.tar") as writer:
            writer.add("a", image=picture(1), caption="x", fields={})
            raise RuntimeError("in the midst of it")

    with pytest.raises(RuntimeError, match="in the midst of it"):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields",
    [
        {"width": "640"},
        {"width": 1e99},
        {"width": float("nan")},
        {"width": 10**30},
        {"width": {"px": 640}},
        {"width": True},
        {"url": 5},
        {"url": ["a", "b"]},
        {"sha256": None},
    ],
    ids=str,
)
def test_odd_fields_fit_no_column_but_stay_in_the_tar(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Anyone may have written them; beside a good pair they must not cost the shard its table."""
    odd = json.dumps({"uid": uid(1), **fields}).encode()
    members = [*pair_members("a", 1, fields=odd), *pair_members("b", 2, fields={"width": 640, "url": "u"})]
    source, copy = write_tar(tmp_path / "x.tar", members), tmp_path / "copy.tar"
    with Shard(source) as shard, ShardWriter(copy) as writer:
        for pair in shard.pairs():
            writer.copy(shard, pair)
    assert blocks_of([copy]) == blocks_of([source])
    rows = polars.read_parquet(tmp_path / "copy.parquet")
    assert rows.select(*fields).row(0) == (None,)
    assert rows.select("width", "url").row(1) == (640, "u")


contents = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="./\0\n"), min_size=1, max_size=120),
        st.binary(max_size=1_100),
        st.text(st.characters(codec="utf-8", categories=["L", "P"]), min_size=1, max_size=40),
    ),
    unique_by=lambda pair: pair[0],
    max_size=4,
)


@FORMATS
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(contents=contents)
def test_a_copy_has_the_sources_blocks(
    tmp_path: Path, kind: int, contents: list[tuple[str, bytes, str]]
) -> None:
    members = [
        member
        for key, image, caption in contents
        for member in pair_members(key, 0, image=image, caption=caption.encode(), fields={"key": key})
    ]
    source, copy = write_tar(tmp_path / "x.tar", members, kind=kind), tmp_path / "copy.tar"
    with Shard(source) as shard, ShardWriter(copy) as writer:
        pairs = list(shard.pairs())
        for pair in pairs:
            writer.copy(shard, pair)
    assert [(pair.key, pair.image) for pair in pairs] == [(key, image) for key, image, _ in contents]
    end = pairs[-1].members[-1].end if pairs else 0
    data = copy.read_bytes()
    assert data[:end] == source.read_bytes()[:end]
    assert not data[end:].strip(b"\0")
    assert len(data) >= end + 2 * BLOCK
    with tarfile.open(source) as before, tarfile.open(copy) as after:
        assert after.getnames() == before.getnames()


# WebDataset's own reader and writer; it loads torch, hence slow


@pytest.mark.slow
def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = write_shard(tmp_path / "0.tar", range(5))
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    pairs, _ = read_shard(path)
    assert [sample["__key__"] for sample in samples] == [pair.key for pair in pairs]
    assert [sample["jpg"] for sample in samples] == [pair.image for pair in pairs]
    assert [sample["txt"].decode() for sample in samples] == [pair.caption for pair in pairs]
    assert [json.loads(sample["json"]) for sample in samples] == [pair.fields for pair in pairs]


@pytest.mark.slow
def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "0.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number, stem in enumerate(["000", "folder/é", "n" * 120]):
            fields = {"uid": uid(number)}
            writer.write({"__key__": stem, "jpg": picture(number), "txt": f"item {number}", "json": fields})
    pairs, failures = read_shard(path)
    assert not failures
    assert [(pair.key, pair.uid, pair.caption) for pair in pairs] == [
        ("000", uid(0), "item 0"),
        ("folder/é", uid(1), "item 1"),
        ("n" * 120, uid(2), "item 2"),
    ]
    assert all(pair.image == picture(number) for number, pair in enumerate(pairs))


@pytest.mark.slow
def test_readers_group_members_alike(tmp_path: Path) -> None:
    """Where WebDataset sees a sample with picture and caption, so do we."""
    webdataset = pytest.importorskip("webdataset")
    stems = ["a", "a.b/c", "d/e", "f"]
    extra = itertools.chain.from_iterable([(f"{stem}.cls", b"1"), (f"{stem}.seg.png", b"2")] for stem in "xy")
    members = [member for number, stem in enumerate(stems) for member in pair_members(stem, number)]
    path = write_tar(tmp_path / "x.tar", [*members[:6], *extra, *members[6:]])
    samples = webdataset.WebDataset(str(path), shardshuffle=False)
    assert [sample["__key__"] for sample in samples if "jpg" in sample] == [
        pair.key for pair in read_shard(path)[0]
    ]


def test_names_with_dots_keep_their_tables_apart(tmp_path: Path) -> None:
    names = ("train.0001", "train.0002")
    for number, name in enumerate(names):
        with ShardWriter(tmp_path / f"{name}.tar") as writer:
            writer.add(name, image=picture(number), caption="cup", fields={})
        assert writer.files == [tmp_path / f"{name}{end}" for end in (".tar", ".parquet", "_stats.json")]
    assert [polars.read_parquet(tmp_path / f"{name}.parquet")["key"].item() for name in names] == [*names]
