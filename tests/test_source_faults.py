"""Shards that are hard to have: each failure is counted, costs its own shard alone, and can be made good."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.same_bytes import tree
from roclip_sanitize import remote, sources
from roclip_sanitize.cli import run
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.retry import retry_failed
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shards import content_uid, expand_shards
from roclip_sanitize.sources import open_source, source_path
from tests.corpora import read_shard
from tests.faulty import ForgetfulStore, ShakyStore, WithStores
from tests.stages import PAIRS, SHARDS, square_shards, stages, vectors_and_names

# A store that fails now and then


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return square_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def wanted(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What embedding leaves behind if nothing goes wrong."""
    out = tmp_path_factory.mktemp("undisturbed") / "store"
    stages(shards)["store"](out, LocalExecutor())
    return tree(out)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, so that there are many requests, and no pauses between them."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def shaky() -> Iterator[type[ShakyStore]]:
    """The store, with its dice as they were and nothing counted."""
    ShakyStore.dice.seed(0)
    yield ShakyStore
    ShakyStore.failed.clear()
    ShakyStore.dead.clear()


def behind(protocol: str, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The same files, as a store of this protocol has them."""
    return tuple(source_path(f"{protocol}:/{path}") for path in paths)


def retries_of(store: Path) -> Counter[str]:
    """What the markers count."""
    counts = Counter[str]()
    for marker in StageFolder(store).markers():
        counts.update(marker.facts.get("retries", {}))
    return counts


@pytest.mark.usefixtures("at_once")
def test_a_store_that_fails_one_read_in_twenty_costs_no_byte(
    shards: tuple[Path, ...], wanted: dict[str, object], tmp_path: Path, shaky: type[ShakyStore]
) -> None:
    """Every failure there was is counted, by its kind, beside the shard that it delayed."""
    settings = EmbedSettings(shards=behind("shaky", shards), encoder="plain", batch_size=8)
    embed_shards(settings, out=tmp_path, executor=LocalExecutor())
    assert vectors_and_names(tree(tmp_path)) == vectors_and_names(wanted)
    assert retries_of(tmp_path) == shaky.failed
    assert set(shaky.failed) >= {"OSError", "ConnectionResetError", "TimeoutError", "StoreError", "ShortRead"}


@pytest.mark.usefixtures("at_once")
def test_a_shard_that_cannot_be_had_costs_no_other(
    shards: tuple[Path, ...],
    wanted: dict[str, object],
    tmp_path: Path,
    shaky: type[ShakyStore],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shaky.dead.add("00002.tar")
    spec = f"shaky:/{shards[0].parent}/{{00000..00005}}.tar"
    command = ["embed", "--shards", spec, "--out", str(tmp_path), "--batch-size", "8", "--executor", "local"]
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("roclip: shard shaky://")
    assert line.endswith(
        "/00002.tar could not be read in 6 attempts: connection refused (1 of 6 shards could not be had; "
        "all others are done, and the same command again tries these)"
    )
    done = [marker.name for marker in StageFolder(tmp_path).markers()]
    assert done == ["00000", "00001", "00003", "00004", "00005"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_00001.*")}
    shaky.dead.clear()
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 0
    assert vectors_and_names(tree(tmp_path)) == vectors_and_names(wanted)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_00001.*")}


@pytest.mark.slow
def test_workers_of_ray_ask_again_too(
    shards: tuple[Path, ...], wanted: dict[str, object], tmp_path: Path
) -> None:
    import ray

    from roclip_sanitize.executors.cluster import RayExecutor

    settings = EmbedSettings(shards=behind("forgetful", shards), encoder="plain", batch_size=8)
    executor: Any = WithStores(RayExecutor(2))
    embed_shards(settings, out=tmp_path, executor=executor)
    ray.shutdown()
    assert vectors_and_names(tree(tmp_path)) == vectors_and_names(wanted)
    assert retries_of(tmp_path) == {"ConnectionResetError": 2 * SHARDS}  # its facts, and its one block
    assert not ForgetfulStore.asked  # here


class Overloaded(SimpleHTTPRequestHandler):
    """A web server that answers two requests in seven with 503, and breaks off every fifth answer.

    Two in a row, since fsspec asks for a file's facts by HEAD and then by GET.
    """

    requests: ClassVar[int] = 0
    failed: ClassVar[Counter[str]] = Counter()

    def do_HEAD(self) -> None:
        if not self._refuses():
            super().do_HEAD()

    def do_GET(self) -> None:
        if not self._refuses():
            super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """The body of an answer."""
        if self.requests % 5:
            super().copyfile(source, outputfile)
            return
        Overloaded.failed["broke off"] += 1
        outputfile.write(source.read(5_000))
        self.close_connection = True

    def _refuses(self) -> bool:
        Overloaded.requests += 1
        refuses = self.requests % 7 in {2, 3}
        if refuses:
            Overloaded.failed["refused"] += 1
            self.send_error(503)
        return refuses

    def log_message(self, *told: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(shards: tuple[Path, ...]) -> Iterator[str]:
    """The shards behind such a server."""
    Overloaded.requests, folder = 0, str(shards[0].parent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *told: Overloaded(*told, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("at_once")
def test_an_overloaded_web_server_is_neither_missing_nor_fatal(web: str, shards: tuple[Path, ...]) -> None:
    remote = expand_shards(f"{web}/{{00000..00005}}.tar")
    assert [read_shard(path) for path in remote] == [read_shard(path) for path in shards]
    assert Overloaded.failed["refused"] > 1
    assert Overloaded.failed["broke off"] > 0
    with (
        pytest.raises(ShardMissing, match=r"/00006\.tar does not exist"),
        open_source(source_path(f"{web}/00006.tar")),
    ):
        pass


# A store that keeps the first half of what was sent


def cuts(data: bytes) -> dict[str, int]:
    """Where an upload may break off."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    middle = members[len(members) // 2]
    return {
        "nothing arrived": 0,
        "in the first header": 100,
        "in a header": middle.offset + 100,
        "in a member": middle.offset_data + 1,
        "between two members": middle.offset,
        "before the end": members[-1].offset_data + -(-members[-1].size // 512) * 512,
    }


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "where",
    [
        "nothing arrived",
        "in the first header",
        "in a header",
        "in a member",
        "between two members",
        "before the end",
    ],
)
def test_an_upload_that_broke_off_is_a_failure_until_it_is_repeated(
    where: str, shards: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: Any
) -> None:
    """It costs its own shard alone, is told in the exit code, and leaves no trace once it was mended."""
    uploaded = tuple(Path(shutil.copy(path, tmp_path)) for path in shards)
    whole = shards[3].read_bytes()
    uploaded[3].write_bytes(whole[: cuts(whole)[where]])
    spec, out = f"shaky:/{tmp_path}/{{00000..00005}}.tar", tmp_path / "store"
    command = ["embed", "--shards", spec, "--out", str(out), "--batch-size", "8", "--executor", "local"]
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 3
    found, whole_store = vectors_and_names(tree(out)), vectors_and_names(wanted)
    differing = {name for name in whole_store if found[name] != whole_store[name]}
    assert {name.partition(".")[0][-5:] for name in differing} == {"00003", "plete"}
    uploaded[3].write_bytes(whole)
    retry_failed(out, executor=LocalExecutor())
    assert vectors_and_names(tree(out)) == vectors_and_names(wanted)


class Restless:
    """Replaces a file behind the back of whoever reads it, before its n-th block is handed out."""

    def __init__(self, patch: pytest.MonkeyPatch, *, versions: list[bytes], path: Path, every: int) -> None:
        self._versions, self._path, self._every, self._blocks = iter(versions), path, every, 0
        read = ShakyStore.cat_file

        def cat_file(store: Any, path: str, **told: Any) -> bytes:
            self._blocks += 1
            if self._blocks % self._every == 0 and (data := next(self._versions, None)) is not None:
                self._path.write_bytes(data)
            return read(store, path, **told)

        patch.setattr(ShakyStore, "rate", 0.0)
        patch.setattr(ShakyStore, "cat_file", cat_file)


@pytest.mark.usefixtures("at_once", "shaky")
def test_a_file_replaced_while_it_is_fetched_is_never_half_old_and_half_new(
    shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = Path(shutil.copy(shards[0], tmp_path)), shards[1].read_bytes()
    new = new.ljust(path.stat().st_size, b"\0")[: path.stat().st_size]  # as large as the old one
    Restless(monkeypatch, versions=[new], path=path, every=5)
    with open_source(behind("shaky", (path,))[0]) as opened:
        assert content_uid(b"", opened.data[:]) == content_uid(b"", new)
        assert opened.retries == {"replaced": 1}


@pytest.mark.usefixtures("at_once", "shaky")
def test_a_file_that_is_still_being_written_is_not_taken_for_a_shard(
    shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = shards[0].read_bytes(), tmp_path / "0.tar"
    path.write_bytes(whole[:5_000])
    Restless(monkeypatch, versions=[whole[:size] for size in range(6_000, 60_000, 500)], path=path, every=2)
    with (
        pytest.raises(ShardUnreadable, match=r"0\.tar was replaced 6 times while it was read"),
        open_source(behind("shaky", (path,))[0]),
    ):
        pass


def test_results_do_not_go_to_what_is_no_store(
    shards: tuple[Path, ...], monkeypatch: Any, tmp_path: Path
) -> None:
    """And to no folder named "nowhere:" here."""
    monkeypatch.chdir(tmp_path)
    settings = EmbedSettings(shards=shards, encoder="plain")
    with pytest.raises(ConfigError, match=r"nowhere://bucket/store.* cannot be read here"):
        embed_shards(settings, out=Path("nowhere://bucket/store"), executor=LocalExecutor())
    assert not list(tmp_path.iterdir())


# A shard that is damaged on this disk


@pytest.mark.parametrize("damage", ["garbage in the middle", "a picture's bytes", "cut"])
def test_a_damaged_shard_costs_itself_alone_until_it_is_repaired(
    damage: str, shards: tuple[Path, ...], wanted: dict[str, object], tmp_path: Path
) -> None:
    copies = tuple(Path(shutil.copy(path, tmp_path)) for path in shards)
    whole = bytearray(copies[2].read_bytes())
    with tarfile.open(copies[2]) as archive:
        member = archive.getmembers()[30]  # a picture
    broken = {
        "garbage in the middle": whole[: member.offset] + b"\xff" * 2_048 + whole[member.offset + 2_048 :],
        "a picture's bytes": whole[: member.offset_data] + bytes(64) + whole[member.offset_data + 64 :],
        "cut": whole[: member.offset_data + 10],
    }
    copies[2].write_bytes(broken[damage])
    out, settings = tmp_path / "store", EmbedSettings(shards=copies, encoder="plain", batch_size=8)
    tally = embed_shards(settings, out=out, executor=LocalExecutor())
    reason = "image_undecodable" if damage == "a picture's bytes" else "truncated_shard"
    assert tally.failed == {reason: 1}
    lost = {"a picture's bytes": 1}.get(damage, PAIRS - 9)  # nobody knows whether the tenth was whole
    assert tally.kept == SHARDS * PAIRS - lost
    again = embed_shards(settings, out=out, executor=LocalExecutor())  # the same command does no work
    assert again.failed == tally.failed
    copies[2].write_bytes(whole)
    retry_failed(out, executor=LocalExecutor())
    assert vectors_and_names(tree(out)) == vectors_and_names(wanted)
