"""From shards to weights on three nodes, each stage losing one: the bytes of a run on one machine.

A node holds work when it is taken away, and none comes in its place before the stage is done.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from benchmarks.same_bytes import tree
from roclip_sanitize.evaluation.evaluate import evaluate_arms
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json
from tests.faulty import NODES, DoomedNode, wait_for
from tests.squares import write_square_shards
from tests.stages import SHARDS, run_stages, square_shards, stages
from tests.trainings import VIT, settings_for

pytestmark = pytest.mark.slow

RANKS = 2
MIDDLE = "step_000000004.json"  # of seven steps: the checkpoint before which a node is taken away
REACHED, GONE = "reached", "gone"  # what tells of it
PROJECT = Path(__file__).parent.parent
SEES_SOON = {  # that a node is gone
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 1_000,
    "health_check_failure_threshold": 3,
}


class TwoProcesses(LocalExecutor):
    """Two ranks on this machine, without Ray."""

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        assert ranks == RANKS
        spawn(meet, (member, folder), nprocs=ranks)  # type: ignore[no-untyped-call]


def meet(rank: int, member: Callable[[int, int], None], folder: str) -> None:
    torch.set_num_threads(1)
    place = Path(folder).absolute()
    place.mkdir(parents=True, exist_ok=True)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{place / 'meeting'}", rank=rank, world_size=RANKS
    )
    member(rank, RANKS)
    torch.distributed.destroy_process_group()


class Traced:
    """A member that says on which node it runs, and whose training stands still until a node is gone."""

    def __init__(self, member: Callable[[int, int], None], folder: Path) -> None:
        self._member, self._folder = member, folder

    def __call__(self, rank: int, size: int) -> None:
        import ray

        torch.set_num_threads(1)
        (self._folder / ray.get_runtime_context().get_node_id()).touch()
        if not (self._folder / GONE).exists():
            sys.addaudithook(self._stand_still)
        self._member(rank, size)

    def _stand_still(self, event: str, told: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(told[1]).endswith(MIDDLE):
            (self._folder / REACHED).touch()
            wait_for(self._folder / GONE)


class TracedGang:
    """An executor whose gang leaves the names of its nodes."""

    name = "ray"

    def __init__(self, executor: Any, folder: Path) -> None:
        self._executor, self._folder, self.size = executor, folder, executor.size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def gang(self, member: Callable[[int, int], None], **told: Any) -> None:
        self._executor.gang(Traced(member, self._folder), **told)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return square_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def undisturbed(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each stage leaves behind where nothing goes wrong: on this machine, without Ray."""
    folder = run_stages(shards, tmp_path_factory.mktemp("undisturbed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(TwoProcesses())
    return {path.name: tree(path) for path in folder.iterdir()}


def train(executor: Any) -> None:
    from roclip_sanitize.training.train import train_clip

    kept = tuple(Path(f"rewrite/kept/{shard:05d}.tar") for shard in range(SHARDS))
    told = settings_for(kept, epochs=1, match_from=0.25, match_every=64, match_for=48, checkpoint_seconds=0)
    assert told.model == VIT
    train_clip(told, out=Path("trained"), executor=executor, ranks=RANKS)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A node that nobody takes away, with the driver, and one more."""
    import ray
    from ray.cluster_utils import Cluster

    from roclip_sanitize.executors import crew

    ray.shutdown()
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # nodes import these tests too
    told = {"num_cpus": 1, "include_dashboard": False, "_system_config": SEES_SOON}
    nodes = Cluster(initialize_head=True, head_node_args=told)
    nodes.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.setattr(crew, "PATIENCE_SECONDS", 10.0)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_nodes_and_drivers_that_are_taken_away_cost_nothing_but_time(
    cluster: Any,
    shards: tuple[Path, ...],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from roclip_sanitize.executors.cluster import RayExecutor

    monkeypatch.chdir(tmp_path)
    kill_a_driver(shards, Path("driven"))
    executor = RayExecutor(NODES)
    stages(shards)["store"](Path("driven"), executor)
    assert tree(Path("driven")) == undisturbed["store"]

    for name, stage in stages(shards).items():
        with_a_node_less(cluster, executor, partial(stage, Path(name)), tmp_path / f"{name} held work")
        assert tree(Path(name)) == undisturbed[name]

    train_without_a_node(cluster, executor, tmp_path / "nodes of ranks")
    assert trained(tree(Path("trained"))) == trained(undisturbed["trained"])

    told = EvaluateSettings(
        arms={"trained": Path("trained")},
        test_shards=write_square_shards(tmp_path / "test", shards=NODES, pairs=16, first=1_000),
        label="colour",
    )
    evaluate_arms(told, out=Path("evaluated at home"), executor=LocalExecutor())
    evaluate = partial(evaluate_arms, told, out=Path("evaluated"))
    with_a_node_less(cluster, executor, lambda where: evaluate(executor=where), tmp_path / "parts held")
    assert read_json(Path("evaluated/results.json")) == read_json(Path("evaluated at home/results.json"))


def with_a_node_less(cluster: Any, executor: Any, stage: Callable[[Any], object], flag: Path) -> None:
    """Run a stage on the cluster and one node more, which is taken away while it holds work."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    taker = threading.Thread(target=take_away, args=(cluster, node, flag))
    taker.start()
    stage(DoomedNode(executor, node.node_id, flag))
    taker.join()
    assert flag.exists()


def trained(found: dict[str, object]) -> dict[str, object]:
    """All but decoded pairs, whose folder is named after the time of the shards, and what executors keep."""
    return {name: content for name, content in found.items() if not name.startswith(("cache/", "ray/"))}


# A driver that dies when the first of its workers' results is in.
DYING = """
import os, signal, sys
from roclip_sanitize.cli import run
from roclip_sanitize.executors.farm import Farm
results = Farm.results
def dying(self):
    yield next(results(self))
    os.kill(os.getpid(), signal.SIGKILL)
Farm.results = dying
run(sys.argv[1:])
"""


def kill_a_driver(shards: tuple[Path, ...], out: Path) -> None:
    """Its workers on the nodes lose it, whatever they are at."""
    spec = "::".join(map(str, shards))
    command = f"embed --shards {spec} --batch-size 8 --out {out} --executor ray --workers 2"
    ended = subprocess.run([sys.executable, "-c", DYING, *command.split()], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (out / "done").exists()
    assert not (out / "complete.json").exists()


def train_without_a_node(cluster: Any, executor: Any, folder: Path) -> None:
    """Take a rank's node away when half of the training is done; the third takes its place."""
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def take_a_rank_s() -> None:
        wait_for(folder / REACHED)
        names = {path.name for path in folder.iterdir()}
        doomed = next(each for each in cluster.worker_nodes if each.node_id in names)
        cluster.remove_node(doomed, allow_graceful=False)
        (folder / GONE).touch()

    folder.mkdir()
    taker = threading.Thread(target=take_a_rank_s)
    taker.start()
    train(TracedGang(executor, folder))
    taker.join()
    nodes = {path.name for path in folder.iterdir()} - {REACHED, GONE}
    assert len(nodes) == RANKS + 1  # one rank moved


def take_away(cluster: Any, node: Any, flag: Path) -> None:
    wait_for(flag)
    cluster.remove_node(node, allow_graceful=False)
