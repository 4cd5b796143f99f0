"""Whatever fails while stages run, the same command finishes, with the bytes of an undisturbed run."""

from __future__ import annotations

import errno
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.core import url_to_fs

from roclip_sanitize import sources
from roclip_sanitize.cli import run
from roclip_sanitize.embed import EmbedSettings, EmbedWorker, ShardRow, embed_shards
from roclip_sanitize.errors import ConfigError, ShardUnreadable, StorageError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.pairing import PairSettings, pair_store
from roclip_sanitize.retry import retry_failed
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.shards import expand_shards
from roclip_sanitize.sources import open_source, source_path
from tests.corpora import read_shard
from tests.faulty import (
    NODES,
    DoomedNode,
    ForgetfulStore,
    RefusingDisk,
    ShakyStore,
    WithStores,
    tree,
    wait_for,
)
from tests.squares import write_square_shards

SHARDS = 6
PAIRS = 20  # per shard

Stage = Callable[[Path, Executor], Any]  # its folder, where it runs


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("shards"), shards=SHARDS, pairs=PAIRS)


def stages(shards: tuple[Path, ...]) -> dict[str, Stage]:
    """The data plane, by the folder that each stage fills: a relative one, the same in every run."""
    store = Path("store")
    return {
        "store": lambda out, executor: embed_shards(
            EmbedSettings(shards=shards, encoder="plain", batch_size=8), out=out, executor=executor
        ),
        "index": lambda out, executor: build_index(
            IndexSettings(store=store, parts=NODES), out=out, executor=executor
        ),
        "index_text": lambda out, executor: build_index(
            IndexSettings(store=store, modality="text", parts=NODES), out=out, executor=executor
        ),
        "pairs": lambda out, executor: pair_store(
            PairSettings(
                store=store, index_text=Path("index_text"), index_image=Path("index"), method="first"
            ),
            out=out,
            executor=executor,
        ),
        "scan": lambda out, executor: scan_store(
            ScanSettings(store=store, index=Path("index")), out=out, executor=executor
        ),
        "rewrite": lambda out, executor: rewrite_shards(
            RewriteSettings(store=store, verdicts=Path("scan")), out=out, executor=executor
        ),
    }


@pytest.fixture(scope="module")
def made(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all stages, nothing having gone wrong, on one worker in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, stage in stages(shards).items():
            stage(Path(name), LocalExecutor())
    return folder


@pytest.fixture(scope="module")
def undisturbed(made: Path) -> dict[str, Any]:
    """What each stage leaves behind."""
    return {path.name: tree(path) for path in made.iterdir()}


# A node that is taken away


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A node that nobody takes away, with the driver, and one more."""
    import ray
    from ray.cluster_utils import Cluster

    from roclip_sanitize.executors import cluster as executors

    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.setattr(executors, "PATIENCE_SECONDS", 10.0)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
def test_a_node_that_is_taken_away_costs_nothing_but_time(
    cluster: Any,
    shards: tuple[Path, ...],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In every stage the third node goes, and with it a third of the cores: none comes in its place."""
    from roclip_sanitize.executors.cluster import RayExecutor

    monkeypatch.chdir(tmp_path)
    node = cluster.add_node(num_cpus=1)
    executor = RayExecutor(NODES)
    for name in ("store", "index", "index_text", "pairs"):
        flag = tmp_path / f"{name} held work"
        taker = threading.Thread(target=_take_away, args=(cluster, node, flag))
        taker.start()
        stages(shards)[name](Path(name), DoomedNode(executor, node.node_id, flag))
        taker.join()
        assert flag.exists()
        assert tree(Path(name)) == undisturbed[name]
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()


def _take_away(cluster: Any, node: Any, flag: Path) -> None:
    wait_for(flag)
    cluster.remove_node(node, allow_graceful=False)


# A store that fails now and then


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, so that there are many requests, and no pauses between them."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(sources, "PAUSE_SECONDS", 0.0)


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


def vectors_and_names(found: Any) -> dict[str, Any]:
    """What a store holds, whatever its shards are called."""
    return {name: content for name, content in found.items() if name != "stage.json"}


def retries_of(store: Path) -> Counter[str]:
    """What the markers count."""
    counts = Counter[str]()
    for marker in StageFolder(store).markers():
        counts.update(marker.facts.get("retries", {}))
    return counts


@pytest.mark.usefixtures("at_once")
def test_a_store_that_fails_one_read_in_twenty_costs_no_byte(
    shards: tuple[Path, ...], undisturbed: dict[str, Any], tmp_path: Path, shaky: type[ShakyStore]
) -> None:
    """Every failure there was is counted, by its kind, beside the shard that it delayed."""
    settings = EmbedSettings(shards=behind("shaky", shards), encoder="plain", batch_size=8)
    embed_shards(settings, out=tmp_path, executor=LocalExecutor())
    assert vectors_and_names(tree(tmp_path)) == vectors_and_names(undisturbed["store"])
    assert retries_of(tmp_path) == shaky.failed
    assert set(shaky.failed) >= {"OSError", "ConnectionResetError", "TimeoutError", "StoreError", "ShortRead"}


@pytest.mark.usefixtures("at_once")
def test_a_shard_that_cannot_be_had_costs_no_other(
    shards: tuple[Path, ...],
    undisturbed: dict[str, Any],
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
        "/00002.tar could not be read in 6 attempts: connection refused; 1 of 6 shards are missing, "
        "all others are done: the same command again tries these"
    )
    done = [marker.name for marker in StageFolder(tmp_path).markers()]
    assert done == ["00000", "00001", "00003", "00004", "00005"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_00001.*")}
    shaky.dead.clear()
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 0
    assert vectors_and_names(tree(tmp_path)) == vectors_and_names(undisturbed["store"])
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_00001.*")}


@pytest.mark.slow
def test_workers_of_ray_ask_again_too(
    shards: tuple[Path, ...], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    import ray

    from roclip_sanitize.executors.cluster import RayExecutor

    settings = EmbedSettings(shards=behind("forgetful", shards), encoder="plain", batch_size=8)
    executor: Any = WithStores(RayExecutor(2))
    embed_shards(settings, out=tmp_path, executor=executor)
    ray.shutdown()
    assert vectors_and_names(tree(tmp_path)) == vectors_and_names(undisturbed["store"])
    assert retries_of(tmp_path) == {"ConnectionResetError": 2 * SHARDS}  # its facts, and its one block
    assert not ForgetfulStore.asked  # here


class Overloaded(SimpleHTTPRequestHandler):
    """A web server that answers every third request with 503, and breaks off in the middle of every fifth."""

    requests: ClassVar[int] = 0

    def do_HEAD(self) -> None:  # as the base class has it
        if not self._fails():
            super().do_HEAD()

    def do_GET(self) -> None:
        if not self._fails():
            super().do_GET()

    def _fails(self) -> bool:
        Overloaded.requests += 1
        if self.requests % 3 == 0:
            self.send_error(503)
        elif self.requests % 5 == 0:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        else:
            return False
        return True

    def log_message(self, *told: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(shards: tuple[Path, ...]) -> Iterator[str]:
    """The shards behind such a server."""
    folder = str(shards[0].parent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *told: Overloaded(*told, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("at_once")
def test_an_overloaded_web_server_is_neither_missing_nor_fatal(web: str, shards: tuple[Path, ...]) -> None:
    remote = expand_shards(f"{web}/{{00000..00005}}.tar")
    assert [read_shard(path) for path in remote] == [read_shard(path) for path in shards]
    with (
        pytest.raises(sources.ShardMissing, match=r"/00006\.tar does not exist"),
        open_source(source_path(f"{web}/00006.tar")),
    ):
        pass


# A store that keeps the first half of what was sent


def cuts(data: bytes) -> dict[str, int]:
    """Where an upload may break off."""
    with tarfile.open(fileobj=__import__("io").BytesIO(data)) as archive:
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
    where: str, shards: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], undisturbed: Any
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
    found, wanted = tree(out), undisturbed["store"]
    differing = {name for name in wanted if name != "stage.json" and found[name] != wanted[name]}
    assert {name.partition(".")[0][-5:] for name in differing} == {"00003", "plete"}
    uploaded[3].write_bytes(whole)
    retry_failed(out, executor=LocalExecutor())
    assert vectors_and_names(tree(out)) == vectors_and_names(wanted)
