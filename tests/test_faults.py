"""Whatever fails while stages run, the same command finishes, with the bytes of an undisturbed run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.pairing import PairSettings, pair_store
from tests.faulty import NODES, DoomedNode, tree, wait_for
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
    }


@pytest.fixture(scope="module")
def undisturbed(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each stage leaves behind if nothing goes wrong, on one worker in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, stage in stages(shards).items():
            stage(Path(name), LocalExecutor())
    return {name: tree(folder / name) for name in stages(shards)}


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
    for name, stage in stages(shards).items():
        flag = tmp_path / f"{name} held work"
        taker = threading.Thread(target=_take_away, args=(cluster, node, flag))
        taker.start()
        stage(Path(name), DoomedNode(executor, node.node_id, flag))
        taker.join()
        assert flag.exists()
        assert tree(Path(name)) == undisturbed[name]
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()


def _take_away(cluster: Any, node: Any, flag: Path) -> None:
    wait_for(flag)
    cluster.remove_node(node, allow_graceful=False)
