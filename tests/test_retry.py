"""Another try: only parts that list failures are made again, as a store made today would have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roclip_sanitize.adopt import AdoptSettings, adopt_embeddings
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import MismatchError, ShardMissing
from roclip_sanitize.executors.base import MakeWorker, Result, Task
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.features import PlainEncoder
from roclip_sanitize.retry import retry_failed
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.store import EmbeddingStore
from tests.corpora import Members, pair_members, write_shard, write_tar


class FullDisk(LocalExecutor):
    """Does the first task, then fails."""

    def map(self, make_worker: MakeWorker[Task, Result], tasks: object) -> Iterator[Result]:
        for number, task in enumerate(tasks):  # type: ignore[arg-type, var-annotated]
            if number:
                raise OSError("the disk is full")
            yield make_worker()(task)

    size = 2  # rows of one shard


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, ...]:
    """One without failures between two with some."""
    return (
        write_tar(tmp_path / "0.tar", broken(0)),
        write_shard(tmp_path / "1.tar", range(10, 15)),
        write_tar(tmp_path / "2.tar", broken(20)),
    )


@pytest.fixture
def store(shards: tuple[Path, ...], tmp_path: Path) -> Path:
    made(shards, tmp_path / "store")
    return tmp_path / "store"


def broken(start: int) -> Members:
    return [
        *pair_members("a", start),
        *pair_members("b", start + 1, image=b"?"),
        *pair_members("c", start + 2),
    ]


def repaired(start: int) -> Members:
    return [*pair_members("a", start), *pair_members("b", start + 1), *pair_members("c", start + 2)]


def made(shards: tuple[Path, ...], out: Path) -> None:
    embed_shards(EmbedSettings(shards=shards, encoder="plain"), out=out, executor=LocalExecutor())


def data_of(out: Path) -> dict[str, bytes]:
    """Every file's bytes, but for those that tell the seconds."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "done" and path.name != "complete.json"
    }


def test_a_repaired_shard_comes_out_as_if_it_had_never_been_broken(
    shards: tuple[Path, ...], store: Path, tmp_path: Path
) -> None:
    untouched = (store / "done" / "00001.json").stat().st_mtime_ns
    write_tar(shards[2], repaired(20))
    tally, changes = retry_failed(store, executor=LocalExecutor())
    assert (tally.seen, tally.failed) == (11, {"image_undecodable": 1})
    assert [change.line() for change in changes] == [
        "00000  0.tar: rows 2 → 2, failed 1 → 1",
        "00002  2.tar: rows 2 → 3, failed 1 → 0",
    ]
    made(shards, tmp_path / "today")
    assert data_of(store) == data_of(tmp_path / "today")
    assert EmbeddingStore.open(store).rows == 10
    assert (store / "done" / "00001.json").stat().st_mtime_ns == untouched
    StageFolder(store).verify()


def test_what_fails_again_stays_as_it_was(store: Path) -> None:
    before = data_of(store)
    _, changes = retry_failed(store, executor=LocalExecutor())
    assert [change.failed for change in changes] == [(1, 1), (1, 1)]
    assert data_of(store) == before


def test_nothing_failed_nothing_done(shards: tuple[Path, ...], tmp_path: Path) -> None:
    made(shards[1:2], tmp_path / "whole")
    before = read_json(tmp_path / "whole" / "complete.json")
    tally, changes = retry_failed(tmp_path / "whole", executor=LocalExecutor())
    assert (tally.seen, changes) == (5, [])
    assert read_json(tmp_path / "whole" / "complete.json") == before


def test_a_shard_that_is_gone_is_noticed_before_anything_is_changed(
    shards: tuple[Path, ...], store: Path
) -> None:
    shards[2].unlink()
    before = data_of(store)
    with pytest.raises(ShardMissing, match=r"2\.tar does not exist: nothing was changed"):
        retry_failed(store, executor=LocalExecutor())
    assert data_of(store) == before
    EmbeddingStore.open(store)


def test_another_encoder_is_noticed_before_anything_is_changed(store: Path) -> None:
    made_with = read_json(store / "stage.json")
    made_with["settings"]["encoder"]["digest"] = "plain-0"
    write_json(store / "stage.json", made_with)
    with pytest.raises(MismatchError, match=f"weights plain-0, which are now {PlainEncoder.facts.digest}"):
        retry_failed(store, executor=LocalExecutor())
    EmbeddingStore.open(store)


def test_a_run_that_breaks_off_leaves_a_store_that_can_be_read(shards: tuple[Path, ...], store: Path) -> None:
    """The first part was made again, the other is still the old one, and both are whole."""
    for shard, start in ((shards[0], 0), (shards[2], 20)):
        write_tar(shard, repaired(start))
    with pytest.raises(OSError, match="the disk is full"):
        retry_failed(store, executor=FullDisk())
    assert [part.rows for part in EmbeddingStore.open(store).parts] == [3, 5, 2]
    StageFolder(store).verify()
    _, changes = retry_failed(store, executor=LocalExecutor())
    assert [change.part for change in changes] == ["00002"]
    assert EmbeddingStore.open(store).rows == 11


def test_an_unfinished_store_is_not_tried(store: Path) -> None:
    (store / "complete.json").unlink()
    with pytest.raises(MismatchError, match="run 'roclip embed' again"):
        retry_failed(store, executor=LocalExecutor())


def test_a_store_of_relative_shards_is_tried_from_anywhere(
    shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tuple(Path(path.name) for path in shards), Path("store"))
    settings = read_json(Path("store/stage.json"))
    write_tar(shards[2], repaired(20))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tally, changes = retry_failed(Path("../store"), executor=LocalExecutor())
    assert [change.rows for change in changes] == [(2, 2), (2, 3)]
    assert tally.failed.total() == 1
    assert read_json(Path("../store/stage.json")) == settings


def test_what_was_adopted_is_not_embedded(shards: tuple[Path, ...], tmp_path: Path) -> None:
    made(shards[:1], tmp_path / "store")
    told = AdoptSettings(embeddings=tmp_path / "store", shards=shards[:1], model="plain")
    adopt_embeddings(told, out=tmp_path / "adopted", executor=LocalExecutor())
    with pytest.raises(MismatchError, match=r"was not embedded, but adopted of .*store: once"):
        retry_failed(tmp_path / "adopted", executor=LocalExecutor())
