"""Shards read: one broken pair costs one pair, one broken shard what lies behind the break."""

from __future__ import annotations

import tarfile
from pathlib import Path

import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roclip_sanitize.errors import ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.records import FailureReason, is_uid
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard, expand_shards, shard_tasks
from roclip_sanitize.tars import BLOCK, split_name
from tests.corpora import (
    FORMATS,
    Members,
    blocks_of,
    pair_members,
    picture,
    read_shard,
    tar_header,
    uid,
    write_shard,
    write_tar,
)


def keys_and_reasons(path: Path) -> tuple[list[str], list[tuple[str, FailureReason]]]:
    pairs, failures = read_shard(path)
    return [pair.key for pair in pairs], [(failure.key, failure.reason) for failure in failures]


# Which shards are meant


def test_ranges_and_joins_name_shards_in_order(tmp_path: Path) -> None:
    names = ["a/00000.tar", "a/00001.tar", "a/00002.tar", "b.tar"]
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / name).touch()
    spec = f"{tmp_path}/b.tar :: {tmp_path}/a/{{00000..00002}}.tar::"
    assert expand_shards(spec) == [tmp_path / name for name in (names[3], *names[:3])]
    assert [task.name for task in shard_tasks(expand_shards(spec))] == ["00000", "00001", "00002", "00003"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    with pytest.raises(ShardMissing, match=r"1\.tar and 1 more do not exist, of 3 named$"):
        expand_shards(f"{tmp_path}/{{0..2}}.tar")
    with pytest.raises(ShardMissing, match=r"1\.tar does not exist, 1 of 2 named$"):
        expand_shards(f"{tmp_path}/{{0..1}}.tar")
    with pytest.raises(ShardMissing, match=r"gone\.tar does not exist"), Shard(tmp_path / "gone.tar"):
        pass


def test_a_shard_is_named_twice_by_two_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shard(tmp_path / "0.tar", range(1))
    monkeypatch.chdir(tmp_path)
    for other in ("0.tar", f"{tmp_path}/../{tmp_path.name}/0.tar", f"file://{path}"):
        with pytest.raises(ConfigError, match="names a shard twice"):
            expand_shards(f"{path.parent}/{{0..0}}.tar::{other}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param("", "no shards named", id="nothing"),
        pytest.param(" :: ", "no shards named", id="only joins"),
        pytest.param("{folder}/0.tar::{folder}/./0.tar", "names a shard twice", id="twice"),
        pytest.param(
            "{folder}", r"is a folder: name its shards, as in '.*/\{00000\.\.00009\}\.tar'", id="folder"
        ),
        pytest.param("{folder}/*.tar", r"globs are not read: .*/\*\.tar; wanted a range, as in", id="glob"),
        pytest.param("{folder}/0.tar,{folder}/1.tar", "several names are joined by '::'", id="commas"),
        pytest.param("{folder}/{{0..", "leaves a brace open", id="open brace"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "0.tar").touch()
    with pytest.raises(ConfigError, match=message):
        expand_shards(spec.format(folder=tmp_path))


def test_a_folder_is_no_shard(tmp_path: Path) -> None:
    with pytest.raises(ShardUnreadable, match="cannot be opened: Is a directory"), Shard(tmp_path):
        pass


# Shards that are broken as a whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shard of three pairs, as nothing has broken it yet."""
    return write_shard(tmp_path_factory.mktemp("whole") / "0.tar", range(3)).read_bytes()


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        pytest.param(b"", "x.tar is empty (0 bytes)", id="empty"),
        pytest.param(b"this is no tar, ", "x.tar is no tar: truncated header", id="a few words"),
        pytest.param(b"this is no tar, " * 99, "x.tar is no tar: invalid header", id="a page of words"),
        pytest.param(picture(0), "x.tar is no tar: ", id="a picture"),
        pytest.param(b"\0" * 100, "x.tar is no tar: truncated header", id="less than a block of zeros"),
        pytest.param(
            tar_header("a.jpg", 9_999), "x.tar breaks off inside a.jpg: 10,511 bytes", id="cut in the data"
        ),
        pytest.param(
            tar_header("a.jpg", -BLOCK) + b"\0" * 9_999,
            "x.tar has a member of -512 bytes at byte 0",
            id="a size that points backwards",
        ),
    ],
)
def test_a_shard_that_cannot_be_read_is_one_failure(tmp_path: Path, data: bytes, detail: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    pairs, (failure,) = read_shard(path)
    assert not pairs
    assert (failure.uid, failure.key, failure.shard) == ("", "", "x.tar")
    assert failure.reason == FailureReason.UNREADABLE_SHARD
    assert failure.detail.startswith(detail)


def test_a_tar_without_members_has_no_pairs_and_no_failures(tmp_path: Path) -> None:
    assert read_shard(write_tar(tmp_path / "x.tar", [])) == ([], [])


@pytest.mark.parametrize(
    ("member", "part", "lost", "detail"),
    [
        pytest.param(0, 100, "000002", "has no valid header at byte", id="in a pair's first header"),
        pytest.param(0, BLOCK + 5, "000002", "breaks off inside 000003.jpg", id="in a picture"),
        pytest.param(1, 0, "000003", "has no valid header at byte", id="before a caption"),
        pytest.param(2, BLOCK + 5, "000003", "breaks off inside 000003.json", id="in the fields"),
    ],
)
def test_a_cut_shard_yields_what_lies_before_the_cut(
    tmp_path: Path, member: int, part: int, lost: str, detail: str
) -> None:
    """Where no member of a pair has come, the one before it is lost: it might have had more members."""
    path = write_shard(tmp_path / "x.tar", range(6))
    whole, _ = read_shard(path)
    path.write_bytes(path.read_bytes()[: whole[3].members[member].start + part])
    before, (failure,) = read_shard(path)
    assert [pair.uid for pair in before] == [pair.uid for pair in whole[: int(lost)]]
    assert (failure.key, failure.reason) == (lost, FailureReason.TRUNCATED_SHARD)
    assert detail in failure.detail


def test_a_shard_without_end_blocks_is_a_cut_one(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "x.tar", range(3))
    pairs, _ = read_shard(path)
    path.write_bytes(path.read_bytes()[: pairs[-1].members[-1].end])
    assert keys_and_reasons(path) == (["000000", "000001"], [("000002", FailureReason.TRUNCATED_SHARD)])


def test_every_cut_is_survived(tmp_path: Path) -> None:
    """Wherever a shard breaks off: pairs before the break, and exactly one failure."""
    whole = write_shard(tmp_path / "whole.tar", range(3))
    pairs, _ = read_shard(whole)
    data, end = whole.read_bytes(), pairs[-1].members[-1].end
    for cut in range(0, end, 131):
        path = tmp_path / "cut.tar"
        path.write_bytes(data[:cut])
        before, failures = read_shard(path)
        assert [pair.uid for pair in before] == [pair.uid for pair in pairs[: len(before)]]
        assert len(failures) == 1
        assert len(before) <= sum(pair.members[-1].end <= cut for pair in pairs)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 9_000), junk=st.binary(min_size=1, max_size=40))
def test_no_bytes_make_the_reader_raise(whole: bytes, tmp_path: Path, place: int, junk: bytes) -> None:
    path, data = tmp_path / "x.tar", bytearray(whole)
    data[place : place + len(junk)] = junk
    path.write_bytes(data)
    pairs, failures = read_shard(path)
    assert len(pairs) + len(failures) <= 3 + 9  # at worst every member stands alone


# Pairs that are broken


BROKEN: dict[str, tuple[Members, FailureReason, str, str]] = {  # members, reason, uid listed, detail
    "no picture": (pair_members("b", 7)[1:], FailureReason.NO_IMAGE, uid(7), "has ['json', 'txt'], wanted"),
    "no caption": (pair_members("b", 7)[::2], FailureReason.NO_CAPTION, uid(7), "has ['jpg', 'json'], want"),
    "empty caption": (pair_members("b", 7, caption=b" \n"), FailureReason.EMPTY_CAPTION, uid(7), "2 bytes"),
    "a Latin-1 caption": (
        pair_members("b", 7, caption="caffè".encode("latin-1")),
        FailureReason.CAPTION_NOT_UTF8,
        uid(7),
        "byte 4 is 0xe8",
    ),
    "a caption of 5,000 characters": (
        pair_members("b", 7, caption=b"x" * 5_000),
        FailureReason.CAPTION_TOO_LONG,
        uid(7),
        "5000 characters, at most 4000",
    ),
    "JSON that is none": (pair_members("b", 7, fields=b"{"), FailureReason.BAD_JSON, "", "Expecting"),
    "JSON in Latin-1": (pair_members("b", 7, fields=b'{"a": "\xe8"}'), FailureReason.BAD_JSON, "", "'utf-8'"),
    "JSON without end": (
        pair_members("b", 7, fields=b"[" * 99_999),
        FailureReason.BAD_JSON,
        "",
        "maximum re",
    ),
    "half an emoji": (
        pair_members("b", 7, fields=b'{"a": "\\uD83D"}'),
        FailureReason.BAD_JSON,
        "",
        "'utf-8'",
    ),
    "JSON that is no object": (
        pair_members("b", 7, fields=b"[1]"),
        FailureReason.BAD_JSON,
        "",
        "a list, wanted an object",
    ),
    "a uid that is none": (
        pair_members("b", 7, fields={"uid": "7"}),
        FailureReason.BAD_JSON,
        "",
        "uid is '7', wanted 32 lower-case hex digits",
    ),
    "a uid in capitals": (
        pair_members("b", 7, fields={"uid": "A" * 32}),
        FailureReason.BAD_JSON,
        "",
        f"uid is '{'A' * 32}'",
    ),
    "a uid that came before": (
        pair_members("b", 7, fields={"uid": uid(1)}),
        FailureReason.DUPLICATE_KEY,
        uid(1),
        "this uid came before",
    ),
    "a key that came before": (pair_members("a", 7), FailureReason.DUPLICATE_KEY, "", "this key came before"),
    "a file that belongs to nothing": ([("notes.md", b"?")], FailureReason.NO_IMAGE, "", "has ['md']"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_pair_costs_no_other(tmp_path: Path, what: str) -> None:
    members, reason, listed, detail = BROKEN[what]
    shard = [*pair_members("a", 1), *pair_members("before", 2), *members, *pair_members("c", 3)]
    pairs, (failure,) = read_shard(write_tar(tmp_path / "x.tar", shard))
    assert [pair.uid for pair in pairs] == [uid(1), uid(2), uid(3)]
    assert (failure.reason, failure.uid) == (reason, listed)
    assert failure.detail.startswith(detail)
    assert failure.detail.isprintable()  # one line for people


def test_a_key_repeated_at_once_is_two_pairs(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [*pair_members("a", 1), *pair_members("a", 2)])
    assert keys_and_reasons(path) == (["a"], [("a", FailureReason.DUPLICATE_KEY)])


def test_a_pair_without_fields_is_named_by_its_content(tmp_path: Path) -> None:
    """And as often as it comes: equal content is one pair, whoever repeats it."""
    contents: dict[str, dict[str, None]] = {"a": {}, "b": {"uid": None}, "c": {}}
    members = [pair_members(key, 1, fields=fields) for key, fields in contents.items()]
    path = write_tar(tmp_path / "x.tar", [*members[0][:2], *members[1], *members[2]])
    pairs, failures = read_shard(path)
    assert not failures
    assert [pair.key for pair in pairs] == ["a", "b", "c"]
    assert len({pair.uid for pair in pairs}) == 1
    assert is_uid(pairs[0].uid)


def test_unknown_members_stay_with_their_pair(tmp_path: Path) -> None:
    members = [*pair_members("a", 1), ("a.seg.png", b"mask"), ("a.cls", b"3"), *pair_members("b", 2)]
    path = write_tar(tmp_path / "x.tar", members)
    pairs, failures = read_shard(path)
    assert not failures
    assert [len(pair.members) for pair in pairs] == [5, 3]
    assert pairs[0].image == picture(1)


def test_what_webdataset_passes_over_ends_no_pair(tmp_path: Path) -> None:
    """A Mac's tar puts a file of its own before each."""
    webdataset = pytest.importorskip("webdataset")
    members = [member for number in range(3) for member in pair_members(f"./{number}", number)]
    beside = [(name.replace("./", "./._"), b"\0\5\x16\7" * 30) for name, _ in members]
    noise = [("./README", b"none"), ("__index__/0.jpg", b"none")]
    mixed = [each for both in zip(beside, members, strict=True) for each in both]
    path = write_tar(tmp_path / "x.tar", [*noise, *mixed])
    pairs, failures = read_shard(path)
    assert not failures
    theirs = [sample["__key__"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)]
    assert [pair.key for pair in pairs] == theirs == ["./0", "./1", "./2"]
    assert [len(pair.members) for pair in pairs] == [3, 3, 3]


def test_folders_dots_and_capitals_in_names(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("./a.b")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    with path.open("r+b") as file:
        file.seek(BLOCK)
        named = [(name.replace(".jpg", ".JPEG"), data) for name, data in pair_members("./a.b/c", 1)]
        file.write(write_tar(tmp_path / "rest.tar", named).read_bytes())
    pairs, failures = read_shard(path)
    assert not failures
    assert [pair.key for pair in pairs] == ["./a.b/c"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("000.jpg", ("000", "jpg")),
        ("a.b/000.seg.PNG", ("a.b/000", "seg.png")),
        ("000.", ("000", "")),
        ("README", ("", "")),
        (".hidden", ("", "")),
        ("./._000.jpg", ("", "")),
        ("a.b/.000.jpg", ("", "")),
        ("__meta__/000.jpg", ("", "")),
        ("__meta__.jpg", ("__meta__", "jpg")),
    ],
)
def test_names_split_at_the_base_names_first_dot(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


@FORMATS
@pytest.mark.parametrize("stem", ["x" * 150, "é" * 90, "d/" * 80 + "x", "two\nlines " * 20], ids=repr)
def test_long_names_are_read_from_both_kinds_of_header(tmp_path: Path, kind: int, stem: str) -> None:
    members = [*pair_members(stem, 1), *pair_members("short", 2)]
    pairs, failures = read_shard(write_tar(tmp_path / "x.tar", members, kind=kind))
    assert not failures
    assert [pair.key for pair in pairs] == [stem, "short"]


@FORMATS
def test_names_that_are_no_text_become_text(tmp_path: Path, kind: int) -> None:
    """Tables hold keys, and tables hold UTF-8."""
    path = write_tar(tmp_path / "x.tar", pair_members("\udcff" * 2, 1), kind=kind)
    pairs, failures = read_shard(path)
    assert not failures
    assert [pair.key for pair in pairs] == [r"\xff\xff"]
    with Shard(path) as shard, ShardWriter(tmp_path / "copy.tar") as writer:
        writer.copy(shard, pairs[0])
    assert blocks_of([tmp_path / "copy.tar"]) == blocks_of([path])
    assert polars.read_parquet(tmp_path / "copy.parquet")["key"].to_list() == [r"\xff\xff"]
