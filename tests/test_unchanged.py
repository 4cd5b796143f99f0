"""Shards that were written anew under their names: refused, and at little cost where they are the same."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.retry import retry_failed
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.sources import source_path
from roclip_sanitize.unchanged import Look, looks_at
from tests.corpora import pair_members, picture, write_shard, write_tar
from tests.embedding import CountingExecutor, data_of
from tests.squares import write_squares

OTHERS = "holds other pairs than .* was made of: choose another folder or remove it"
HERE = LocalExecutor()


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, ...]:
    return tuple(write_squares(tmp_path / f"{n}.tar", first=20 * n, pairs=20) for n in range(2))


@pytest.fixture
def settings(shards: tuple[Path, ...]) -> EmbedSettings:
    return EmbedSettings(shards=shards, encoder="plain", batch_size=8)


@pytest.fixture
def out(settings: EmbedSettings, tmp_path: Path) -> Path:
    embed_shards(settings, out=tmp_path / "store", executor=HERE)
    return tmp_path / "store"


def parts_read(settings: EmbedSettings, out: Path) -> int:
    """Shards that the same command reads."""
    executor = CountingExecutor()
    embed_shards(settings, out=out, executor=executor)
    return executor.tasks


def notes(out: Path) -> list[dict[str, Any]]:
    """What the markers note of the shards."""
    return [marker.facts["shard"] for marker in StageFolder(out).markers()]


def test_other_pairs_in_as_many_bytes_are_refused(settings: EmbedSettings, out: Path) -> None:
    before, size = data_of(out), settings.shards[1].stat().st_size
    write_squares(settings.shards[1], first=500, pairs=20)
    assert settings.shards[1].stat().st_size == size
    with pytest.raises(MismatchError, match=rf"1\.tar {OTHERS}$") as caught:
        embed_shards(settings, out=out, executor=HERE)
    assert str(caught.value).isprintable()
    assert data_of(out) == before
    write_squares(settings.shards[0], first=700, pairs=20)
    with pytest.raises(MismatchError, match=r"0\.tar holds .* made of \(2 shards do\): choose"):
        embed_shards(settings, out=out, executor=HERE)
    for number, path in enumerate(settings.shards):  # put back
        write_squares(path, first=20 * number, pairs=20)
    assert parts_read(settings, out) == 2


def test_so_are_those_of_a_store_that_is_gone_on_with(settings: EmbedSettings, out: Path) -> None:
    for name in ("done/00001.json", "complete.json"):
        (out / name).unlink()
    write_squares(settings.shards[0], first=500, pairs=20)
    with pytest.raises(MismatchError, match=rf"0\.tar {OTHERS}$"):
        embed_shards(settings, out=out, executor=HERE)
    assert StageFolder(out).marker("00001") is None


@pytest.mark.parametrize(
    "numbers", [range(19), range(21), [1, 0, *range(2, 20)]], ids=["less", "more", "order"]
)
def test_pairs_less_pairs_more_and_another_order_are_others(
    tmp_path: Path, numbers: list[int] | range
) -> None:
    told = EmbedSettings(shards=(write_shard(tmp_path / "0.tar", range(20)),), encoder="plain")
    embed_shards(told, out=tmp_path / "out", executor=HERE)
    write_shard(tmp_path / "0.tar", numbers)
    with pytest.raises(MismatchError, match=OTHERS):
        embed_shards(told, out=tmp_path / "out", executor=HERE)


def test_the_same_written_anew_is_read_once_and_then_known(settings: EmbedSettings, out: Path) -> None:
    noted, before = notes(out), data_of(out)
    write_squares(settings.shards[1], first=20, pairs=20)
    assert parts_read(settings, out) == 1
    assert parts_read(settings, out) == 0
    assert (notes(out), data_of(out)) == (noted, before)
    with settings.shards[1].open("ab") as file:
        file.write(bytes(10_240))  # a tar may end with as many empty blocks as it likes
    assert parts_read(settings, out) == 1
    assert notes(out)[1]["bytes"] == noted[1]["bytes"] + 10_240
    assert parts_read(settings, out) == 0
    StageFolder(out).verify()


def test_copies_with_their_times_are_not_read(settings: EmbedSettings, out: Path, tmp_path: Path) -> None:
    for path in settings.shards:
        shutil.copy2(path, tmp_path / "copy")
        (tmp_path / "copy").replace(path)
    assert parts_read(settings, out) == 0


def test_others_put_in_place_with_older_times_are_refused(
    settings: EmbedSettings, out: Path, tmp_path: Path
) -> None:
    other = write_squares(tmp_path / "other.tar", first=500, pairs=20)
    os.utime(other, (1_000_000_000, 1_000_000_000))
    other.replace(settings.shards[0])
    with pytest.raises(MismatchError, match=rf"0\.tar {OTHERS}$"):
        embed_shards(settings, out=out, executor=HERE)


def test_notes_are_the_same_whenever_and_wherever_they_were_taken(
    settings: EmbedSettings, out: Path, tmp_path: Path
) -> None:
    copies = tuple(Path(shutil.copy(path, tmp_path / f"copy_{path.name}")) for path in settings.shards)
    os.utime(copies[0], (1_000_000_000, 1_000_000_000))
    embed_shards(replace(settings, shards=copies), out=tmp_path / "again", executor=HERE)
    assert notes(tmp_path / "again") == notes(out)
    assert all(set(note) == {"bytes", "blocks"} for note in notes(out))


def test_a_store_from_before_there_were_notes_is_taken_as_it_is(settings: EmbedSettings, out: Path) -> None:
    folder = StageFolder(out)
    for marker in folder.markers():
        facts = {name: fact for name, fact in marker.facts.items() if name != "shard"}
        folder.declare(replace(marker, facts=facts))
    write_squares(settings.shards[0], first=500, pairs=20)
    assert parts_read(settings, out) == 0


def test_shards_that_are_gone_tell_nothing(settings: EmbedSettings, out: Path) -> None:
    settings.shards[0].unlink()
    assert parts_read(settings, out) == 0


def test_a_mended_shard_is_for_another_try(tmp_path: Path) -> None:
    good = pair_members("good", 20)
    shard = write_tar(tmp_path / "0.tar", [*good, *pair_members("mute", 21, caption=b"")])
    told = EmbedSettings(shards=(shard,), encoder="plain")
    embed_shards(told, out=tmp_path / "store", executor=HERE)
    write_tar(shard, [*good, *pair_members("mute", 21, caption=b"a cat that speaks")])
    embed_shards(told, out=tmp_path / "store", executor=HERE)  # as many, one of which failed: still so
    write_tar(shard, [*good, *pair_members("mute", 21), *pair_members("new", 22)])
    with pytest.raises(MismatchError, match=r"mended, run 'roclip retry-failed .*store'"):
        embed_shards(told, out=tmp_path / "store", executor=HERE)
    retry_failed(tmp_path / "store", executor=HERE)
    assert parts_read(told, tmp_path / "store") == 0


def test_a_picture_that_could_not_be_decoded_does_not_count_as_another(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", pair_members("cut", 21, image=picture(21)[:-99]))
    told = EmbedSettings(shards=(shard,), encoder="plain")
    embed_shards(told, out=tmp_path / "store", executor=HERE)
    os.utime(shard)
    assert parts_read(told, tmp_path / "store") == 1


def test_shards_in_a_store_are_told_by_its_words(settings: EmbedSettings, tmp_path: Path) -> None:
    memory, names = fsspec.filesystem("memory"), [f"/unchanged/{path.name}" for path in settings.shards]
    for name, path in zip(names, settings.shards, strict=True):
        memory.pipe_file(name, path.read_bytes())
    told = replace(settings, shards=tuple(source_path(f"memory:/{name}") for name in names))
    embed_shards(told, out=tmp_path / "store", executor=HERE)
    assert [set(note) for note in notes(tmp_path / "store")] == [{"bytes"}, {"bytes"}]
    assert parts_read(told, tmp_path / "store") == 0
    write_squares(settings.shards[1], first=500, pairs=20)
    memory.pipe_file(names[1], settings.shards[1].read_bytes())
    with pytest.raises(MismatchError, match=rf"memory://unchanged/1\.tar {OTHERS}$"):
        embed_shards(told, out=tmp_path / "store", executor=HERE)
    memory.rm("/unchanged", recursive=True)
    assert parts_read(told, tmp_path / "store") == 0


class Listing:
    """A store that tells of its files in words of its own."""

    def __init__(self, **words: Any) -> None:
        self._words = words
        self.listed = 0

    def invalidate_cache(self, name: str) -> None:
        pass

    def ls(self, name: str, *, detail: bool) -> list[dict[str, Any]]:
        self.listed += 1
        return [{"name": f"{name}/{number}.tar", "size": 9, **self._words} for number in range(3)]


@pytest.mark.parametrize(
    ("words", "digests", "written"),
    [
        pytest.param(
            {"ETag": '"0a"', "LastModified": datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)},
            {"etag": "0a"},
            1e9,
            id="S3",
        ),
        pytest.param({"md5Hash": "b=", "updated": "2001-09-09"}, {"md5hash": "b="}, 0, id="GCS"),
        pytest.param({"Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT"}, {}, 1e9, id="a web server"),
        pytest.param({"mtime": 1e9, "created": 1e8}, {}, 1e9, id="SFTP"),
        pytest.param({}, {}, 0, id="nothing"),
    ],
)
def test_a_folder_of_a_store_is_listed_once(
    monkeypatch: pytest.MonkeyPatch, words: dict[str, Any], digests: dict[str, str], written: float
) -> None:
    store = Listing(**words)
    monkeypatch.setattr("roclip_sanitize.unchanged.file_system", lambda path: (store, "bucket"))
    paths = [source_path(f"s3://bucket/{number}.tar") for number in range(4)]
    found = looks_at(paths)
    assert (set(found), store.listed) == (set(paths[:3]), 1)
    assert all((look.size, look.digests, look.written) == (9, digests, written) for look in found.values())


@pytest.mark.parametrize(
    ("now", "noted", "same"),
    [
        pytest.param({"written": 9}, {"bytes": 5}, True, id="as large and older"),
        pytest.param({"written": 10}, {"bytes": 5}, False, id="as large and as new"),
        pytest.param({"size": 6, "written": 9}, {"bytes": 5}, False, id="larger"),
        pytest.param(
            {"digests": {"etag": "a"}, "written": 99}, {"bytes": 5, "etag": "a"}, True, id="its digest"
        ),
        pytest.param(
            {"digests": {"etag": "b"}, "written": 1}, {"bytes": 5, "etag": "a"}, False, id="another"
        ),
        pytest.param(
            {"digests": {"etag": "b", "crc32c": "c"}, "written": 99},
            {"bytes": 5, "etag": "a", "crc32c": "c"},
            True,
            id="uploaded again",
        ),
        pytest.param({"digests": {"etag": "a"}, "written": 99}, {"bytes": 5}, False, id="none noted"),
    ],
)
def test_what_seems_the_same(now: dict[str, Any], noted: dict[str, Any], same: bool) -> None:
    told = {"path": source_path("s3://bucket/0.tar"), "size": 5, "digests": {}, "placed": now["written"]}
    assert Look(**{**told, **now}).seems(noted, since=10) is same
