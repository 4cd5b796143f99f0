"""The data plane on an object store that fails at times: the bytes of a run on this disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import atomic_file, here, names_in, remove
from tests.commands import Roclip
from tests.faulty import DoomedNode, wait_for
from tests.object_store import BUCKET, Faulty, object_store
from tests.squares import write_square_shards

pytestmark = pytest.mark.slow

SHARDS = 3
TOLD = ("stage.json", "complete.json", "manifest.json", "run.toml", "events.jsonl")  # of paths, and of times
LOSING = ("embed", "scan")  # stages during which a node is taken away
PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with object_store(tmp_path_factory.mktemp("cache")) as faulty:
        yield faulty


@pytest.fixture(scope="module")
def shards(server: Faulty, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Shards on this disk, which are in the store too."""
    paths = write_square_shards(tmp_path_factory.mktemp("shards"), shards=SHARDS, pairs=20)
    for path, there in zip(paths, in_store(paths), strict=True):
        with atomic_file(there) as file:
            file.write(path.read_bytes())
    return paths


def stages(shards: tuple[Path, ...], root: Path) -> dict[str, Any]:
    """embed, index, scan, rewrite in folders of a root, wherever it is."""
    store, index, scan = root / "store", root / "index", root / "scan"

    def embed(executor: Executor) -> None:
        embed_shards(
            EmbedSettings(shards=shards, encoder="plain", batch_size=8), out=store, executor=executor
        )

    def make_index(executor: Executor) -> None:
        build_index(IndexSettings(store=store, parts=2), out=index, executor=executor)

    def judge(executor: Executor) -> None:
        scan_store(ScanSettings(store=store, index=index), out=scan, executor=executor)

    def rewrite(executor: Executor) -> None:
        rewrite_shards(RewriteSettings(store=store, verdicts=scan), out=root / "rewrite", executor=executor)

    return {"embed": embed, "index": make_index, "scan": judge, "rewrite": rewrite}


@pytest.fixture(scope="module")
def undisturbed(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("disk")
    for stage in stages(shards, root).values():
        stage(LocalExecutor())
    files = [path for path in root.rglob("*") if path.is_file()]
    return results({str(path.relative_to(root)): path.read_bytes() for path in files})


def results(files: dict[str, bytes]) -> dict[str, bytes]:
    """All but what tells of paths and times."""
    return {
        name: data
        for name, data in files.items()
        if Path(name).name not in TOLD and "done" not in Path(name).parts
    }


def stored(root: str) -> dict[str, bytes]:
    """All files under a root, in the store."""
    top, files, folders = source_path(f"s3://{BUCKET}/{root}"), dict[str, bytes](), [""]
    while folders:
        inside = folders.pop()
        for name in (f"{inside}{each}" for each in names_in(top / inside)):
            if "." in Path(name).name:
                files[name] = here(top / name).read_bytes()
            else:
                folders.append(f"{name}/")
    return results(files)


def in_store(shards: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(source_path(f"s3://{BUCKET}/shards/{path.name}") for path in shards)


def test_commands_run_from_the_store_to_the_store(
    server: Faulty,
    shards: tuple[Path, ...],
    undisturbed: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    roclip, out = Roclip(capsys), f"s3://{BUCKET}/sanitized"
    spec = f"s3://{BUCKET}/shards/{{00000..{SHARDS - 1:05d}}}.tar"
    said = roclip(
        "embed", "--shards", spec, "--batch-size", 8, "--out", f"{out}/store", "--executor", "local"
    )
    assert (said.code, f"s3://{BUCKET}/sanitized/store" in said.out) == (0, True)
    for command in (
        f"index --store {out}/store --parts 2 --out {out}/index",
        f"scan --store {out}/store --index {out}/index --out {out}/scan",
        f"rewrite --store {out}/store --verdicts {out}/scan --out {out}/rewrite",
    ):
        assert roclip(*command.split(), "--executor", "local").code == 0
    assert stored("sanitized") == undisturbed
    assert server.failed > 5
    said = roclip("verify", out)
    assert said.code == 0, said.err
    assert "byte for byte" in said.out
    remove(source_path(f"{out}/rewrite/keep.npy"))
    assert roclip("verify", out).code != 0


def test_a_killed_stage_goes_on_in_the_store(
    server: Faulty, shards: tuple[Path, ...], undisturbed: dict[str, bytes]
) -> None:
    root = source_path(f"s3://{BUCKET}/killed")
    run = stages(in_store(shards), root)

    class Killed(Exception):
        pass

    class Dying(LocalExecutor):
        def map(self, make_worker: Any, tasks: Any) -> Iterator[Any]:
            for _ in super().map(make_worker, tasks):
                raise Killed
            yield from ()

    for name in ("embed", "index"):
        with pytest.raises(Killed):
            run[name](Dying())
        run[name](LocalExecutor())
    wanted = {name: data for name, data in undisturbed.items() if name.startswith(("store/", "index/"))}
    assert stored("killed") == wanted


def test_three_nodes_share_nothing_but_the_store(
    server: Faulty,
    shards: tuple[Path, ...],
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from roclip_sanitize.executors import crew
    from roclip_sanitize.executors.cluster import RayExecutor

    ray.shutdown()
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr(crew, "PATIENCE_SECONDS", 10.0)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1, env_vars={"ROCLIP_CACHE": str(tmp_path / "second")})
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        executor, root = RayExecutor(3), source_path(f"s3://{BUCKET}/cluster")
        for name, stage in stages(in_store(shards), root).items():
            if name not in LOSING:
                stage(executor)
                continue
            third = cluster.add_node(num_cpus=1, env_vars={"ROCLIP_CACHE": str(tmp_path / name)})
            cluster.wait_for_nodes()
            flag = tmp_path / f"{name} held work"
            taker = threading.Thread(target=take_away, args=(cluster, third, flag))
            taker.start()
            stage(DoomedNode(executor, third.node_id, flag))
            taker.join()
        assert stored("cluster") == undisturbed
        assert any((tmp_path / "second").rglob("*.npy"))  # that node kept copies of its own
    finally:
        ray.shutdown()
        cluster.shutdown()


def take_away(cluster: Any, node: Any, flag: Path) -> None:
    wait_for(flag)
    cluster.remove_node(node, allow_graceful=False)
