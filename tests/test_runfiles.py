"""Files appear whole or not at all, and what is marked done stays done."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.cli import run
from roclip_sanitize.errors import DataError, MismatchError, StorageError
from roclip_sanitize.runfiles import (
    RECORDS,
    StageFolder,
    fingerprint,
    read_json,
    sha256_of,
    write_bytes,
    write_json,
)
from roclip_sanitize.storage import atomic_file
from tests.corpora import write_shard


def folder_with_two(path: Path) -> StageFolder:
    folder = StageFolder.create(path, stage="embed", settings={"seed": 0, "shards": ["a.tar", "b.tar"]})
    for name in ("00000", "00001"):
        write_bytes(path / "data" / name, name.encode())
        folder.commit(name, files=[path / "data" / name], facts={"rows": 1})
    return folder


# One file


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with atomic_file(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, BrokenPipeError])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"before")

    def fail() -> None:
        with atomic_file(path) as file:
            file.write(b"half of ")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(OSError(errno.ENOSPC, "full"), "no room left to write .*file: free", id="full disk"),
        pytest.param(OSError(errno.EDQUOT, "quota"), "no room left", id="quota"),
        pytest.param(OSError("600 requested and 100 written"), "no room left", id="full, says numpy"),
        pytest.param(OSError(errno.EROFS, "read-only"), "not allowed to write", id="read-only"),
    ],
)
def test_a_refused_write_is_one_line(tmp_path: Path, error: OSError, message: str) -> None:
    with pytest.raises(StorageError, match=message), atomic_file(tmp_path / "file"):
        raise error
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_system_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), atomic_file(tmp_path / "file"):
        raise OSError(errno.ETIMEDOUT, "the network is away")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which none can be made, as on Linux")
@pytest.mark.parametrize("name", ["file", "deeper/file"])
def test_a_folder_that_cannot_be_made_is_one_line(name: str) -> None:
    with pytest.raises(StorageError, match=rf"cannot write /proc/out/{name}: /proc/out.* cannot be made"):
        write_bytes(Path("/proc/out") / name, b"")


def test_a_source_that_is_not_there_is_no_failed_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        (tmp_path / "source").read_bytes()


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    for path in (tmp_path / "out" / "file", tmp_path / "out" / "deeper" / "file"):
        with pytest.raises(StorageError, match="a file stands where a folder should"):
            write_bytes(path, b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="or the reverse"):
        write_bytes(tmp_path / "folder", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "folder"}


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond ``room`` bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [100, 2_000, 8_000])
def test_a_full_disk_is_one_line_and_no_partial_file(
    tmp_path: Path, room: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no room for the settings, for vectors, and for a shard's table."""
    shard, out = write_shard(tmp_path / "0.tar", range(12)), tmp_path / "store"
    command = ["embed", "--shards", str(shard), "--out", str(out), "--executor", "local"]
    with full_disk(room), pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"roclip: no room left to write {out}")
    assert line.endswith("free some space and run again")
    assert not said.out
    assert not list(out.rglob("*.part"))
    assert not list(out.rglob("done/*"))
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 0
    StageFolder(out).verify()


@pytest.mark.parametrize("room", [3_000, 8_000, 9_900], ids=lambda room: f"{room} bytes")
def test_a_full_disk_leaves_no_shard(tmp_path: Path, room: int) -> None:
    """Whether a member has no room, or only the tar's own end."""
    with pytest.raises(StorageError, match="no room left"), full_disk(room):
        write_shard(tmp_path / "0.tar", range(2))
    assert not list(tmp_path.iterdir())


def test_equal_values_are_equal_json_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": "é"})
    write_json(tmp_path / "b", {"a": "é", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"a": "é", "b": 1}
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1}) != fingerprint({"a": 1, "b": 2})


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_bytes(b'{"half')
    (tmp_path / "latin.json").write_bytes(b'"\xe8"')
    for name in ("half.json", "latin.json"):
        with pytest.raises(DataError, match=f"{name} is not valid JSON"):
            read_json(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.json does not exist"):
        read_json(tmp_path / "gone.json")


# A stage's folder


def test_only_what_is_marked_is_done(tmp_path: Path) -> None:
    folder = folder_with_two(tmp_path)
    write_bytes(tmp_path / "data" / "00002", b"no marker: left over by a killed run")
    again = StageFolder.create(tmp_path, stage="embed", settings=folder.settings)
    assert [marker.name for marker in again.markers()] == ["00000", "00001"]
    assert again.marker("00002") is None
    marker = again.marker("00001")
    assert marker is not None
    assert marker.facts == {"rows": 1}
    assert marker.files == {"data/00001": sha256_of(tmp_path / "data" / "00001")}


def test_markers_beyond_five_digits_come_in_order(tmp_path: Path) -> None:
    folder = StageFolder.create(tmp_path, stage="embed", settings={})
    for name in ("100000", "99999", "100001", "00002"):
        folder.commit(name, files=[], facts={})
    assert [marker.name for marker in folder.markers()] == ["00002", "99999", "100000", "100001"]


def test_a_folder_counts_once_it_is_finished(tmp_path: Path) -> None:
    folder = folder_with_two(tmp_path)
    assert not folder.finished
    with pytest.raises(MismatchError, match="is unfinished: run 'roclip embed' again"):
        StageFolder.open(tmp_path, stage="embed")
    folder.finish({"rows": 2})
    assert StageFolder.open(tmp_path, stage="embed").facts == {"rows": 2}
    with pytest.raises(MismatchError, match="was made by 'roclip embed', wanted 'roclip index'"):
        StageFolder.open(tmp_path, stage="index")
    with pytest.raises(DataError, match="no folder made by 'roclip embed'"):
        StageFolder.open(tmp_path / "elsewhere", stage="embed")


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        ("embed", {"seed": 1, "shards": ["a.tar", "b.tar"]}, r"\(seed was 0, now 1\): choose another folder"),
        ("embed", {"seed": 0, "shards": ["a.tar"]}, r"shards was \['a.tar', 'b.tar'\], now \['a.tar'\]"),
        ("embed", {"seed": 0}, r"shards was \['a.tar', 'b.tar'\], now None"),
        ("index", {"seed": 0, "shards": ["a.tar", "b.tar"]}, "was made by 'roclip embed': choose another"),
    ],
)
def test_other_settings_are_named(
    tmp_path: Path, stage: str, settings: dict[str, object], message: str
) -> None:
    folder_with_two(tmp_path)
    before = (tmp_path / "stage.json").read_bytes()
    with pytest.raises(MismatchError, match=message):
        StageFolder.create(tmp_path, stage=stage, settings=settings)
    assert (tmp_path / "stage.json").read_bytes() == before


def test_another_format_is_named(tmp_path: Path) -> None:
    folder = folder_with_two(tmp_path)
    write_json(tmp_path / "stage.json", {**read_json(tmp_path / "stage.json"), "format": 0})
    with pytest.raises(MismatchError, match="format was 0, now 1"):
        StageFolder.create(tmp_path, stage="embed", settings=folder.settings)


def test_settings_compare_as_json(tmp_path: Path) -> None:
    """A tuple comes back as a list, and is still the same setting."""
    StageFolder.create(tmp_path, stage="embed", settings={"shards": ("a", "b")})
    StageFolder.create(tmp_path, stage="embed", settings={"shards": ["a", "b"]})
    assert json.loads((tmp_path / "stage.json").read_text())["settings"] == {"shards": ["a", "b"]}


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    folder = folder_with_two(tmp_path)
    folder.verify()
    path = tmp_path / "data" / "00001"
    path.write_bytes(b"0000l")
    with pytest.raises(MismatchError, match="data/00001 has changed since it was written"):
        folder.verify()
    path.unlink()
    with pytest.raises(MismatchError, match="data/00001 is missing, though its shard is marked done"):
        folder.verify()


# Whose a folder is


def test_other_settings_take_over_a_folder_in_which_nothing_was_made(tmp_path: Path) -> None:
    """What was refused for its settings leaves a folder to the run with those put right."""
    StageFolder.create(tmp_path, stage="poison", settings={"rate": 9})
    StageFolder.create(tmp_path / "census", stage="poison-census", settings={}).finish({})
    for name in (*RECORDS, ".00000.npy.1.part"):
        (tmp_path / name).touch()
    StageFolder.create(tmp_path / "cache" / "a1b2", stage="cache", settings={}).finish({})
    (tmp_path / "done").mkdir()
    again = StageFolder.create(tmp_path, stage="poison", settings={"rate": 1})
    assert again.settings == {"rate": 1}
    with pytest.raises(MismatchError, match="was made by 'roclip poison': choose another folder"):
        StageFolder.create(tmp_path, stage="embed", settings={"rate": 1})


@pytest.mark.parametrize(
    "name", ["log.jsonl", "plan/plan.json", "checkpoints/1.ckpt", "checkpoints/a/1.ckpt", "done/00000.json"]
)
def test_what_a_run_goes_on_from_is_not_taken_over(tmp_path: Path, name: str) -> None:
    StageFolder.create(tmp_path, stage="train", settings={"seed": 0})
    write_bytes(tmp_path / name, b"")
    with pytest.raises(MismatchError, match="seed was 0, now 1"):
        StageFolder.create(tmp_path, stage="train", settings={"seed": 1})


def test_inputs_are_told_by_what_they_hold(tmp_path: Path) -> None:
    told: dict[str, Any] = {"stage": "train", "settings": {"seed": 0}}
    StageFolder.create(tmp_path, **told, inputs={"pairs": "a"})
    StageFolder.create(tmp_path, **told, inputs={"pairs": "b"})  # nothing was made of the first
    write_bytes(tmp_path / "log.jsonl", b"")
    assert StageFolder.create(tmp_path, **told).inputs == {"pairs": "b"}
    StageFolder.create(tmp_path, **told, inputs={"pairs": "b", "words": "c"})
    with pytest.raises(MismatchError, match="was made of other words than are there now: choose another f"):
        StageFolder.create(tmp_path, **told, inputs={"pairs": "b", "words": "d"})


@pytest.mark.parametrize("finished", [False, True])
def test_a_folder_from_before_inputs_were_told_is_gone_on_with(finished: bool, tmp_path: Path) -> None:
    told: dict[str, Any] = {"stage": "train", "settings": {"seed": 0}}
    folder = StageFolder.create(tmp_path, **told)
    write_bytes(tmp_path / "log.jsonl", b"")
    if finished:
        folder.finish({})
    again = StageFolder.create(tmp_path, **told, inputs={"pairs": "a"})
    assert again.inputs == ({} if finished else {"pairs": "a"})
