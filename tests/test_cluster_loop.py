"""The whole loop as jobs of a cluster whose three nodes share nothing but an object store that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.cli import call
from roclip_sanitize.demo import Demo, DemoSettings
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import atomic_file, exists, here, names_in, read_bytes
from tests.object_store import BUCKET, Faulty, object_store
from tests.squares import write_square_shards, write_squares

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
RUN = f"s3://{BUCKET}/loop"
SHARDS = 2
COMPARED = ("poison/shards", "store/img_emb", "scan/scores", "scan/verdicts", "rewrite/kept", "pairs/pairs")
PATIENCE_SECONDS = 300.0
CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 1, "include_dashboard": True, "dashboard_port": 0}
cluster = Cluster(initialize_head=True, head_node_args=head)
for name in ("second", "third"):
    cache = os.path.join(os.environ["ROCLIP_CACHE"], name)
    cluster.add_node(num_cpus=1, env_vars={"ROCLIP_CACHE": cache})
cluster.wait_for_nodes()
print(cluster.head_node.webui_url, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with object_store(tmp_path_factory.mktemp("cache")) as faulty:
        yield faulty


@pytest.fixture(scope="module")
def address(server: Faulty) -> Iterator[str]:
    """A cluster's job server, in a process of its own; the store's address and keys are the nodes' alone."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment(), **pipes) as process:
        assert process.stdout is not None
        yield f"http://{process.stdout.readline().strip()}"
        process.communicate("")


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # jobs run the `python` there
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}


def ran(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), env=environment(), capture_output=True, text=True, check=False
    )


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not there():
        assert time.monotonic() < until
        time.sleep(1.0)


def test_the_loop_runs_as_jobs_is_stopped_and_goes_on(server: Faulty, address: str, tmp_path: Path) -> None:
    # Shards in the store, and what the loop makes of them on a disk
    paths = write_square_shards(tmp_path / "train", shards=SHARDS, pairs=64)
    for path in (*paths, write_squares(tmp_path / "test.tar", first=1_000, pairs=32)):
        with atomic_file(source_path(f"s3://{BUCKET}/{path.relative_to(tmp_path)}")) as file:
            file.write(path.read_bytes())
    spec = f"train/{{00000..{SHARDS - 1:05d}}}.tar"
    told = DemoSettings(
        shards=str(tmp_path / spec), test_shards=str(tmp_path / "test.tar"), label="colour", epochs=1
    )
    disk = tmp_path / "disk"
    Demo(told, run=disk, executor=LocalExecutor()).prepare()

    # The same as a job, stopped in the middle
    options = ["--shards", f"s3://{BUCKET}/{spec}", "--test-shards", f"s3://{BUCKET}/test.tar"]
    options += ["--label", "colour", "--epochs", "1", "--run", RUN]
    roclip = (sys.executable, "-m", "roclip_sanitize.cli")
    submitted = ran(*roclip, "submit", "--address", address, "--no-wait", "demo", *options)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    wait_until(lambda: len(names_in(source_path(f"{RUN}/scan/work/done"))) > 3)
    ray = Path(sys.executable).with_name("ray")
    stopped = ran(ray, "job", "stop", "--address", address, job)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not exists(source_path(f"{RUN}/scan/complete.json"))

    # And again, with Ray's own command: it goes on, to the end
    done = ran(
        *(ray, "job", "submit", "--address", address, "--"),
        *("python", ROOT / "jobs" / "loop.py", *options),  # nodes of one machine would share a working dir
    )
    said = done.stdout + done.stderr
    assert "this run proves nothing" in said, said  # no attack takes in an epoch of 128 squares
    assert exists(source_path(f"{RUN}/report.html"))
    assert {each["arm"] for each in read_json(source_path(f"{RUN}/results.json"))} >= {"sanitised_consensus"}
    for folder in COMPARED:
        names = [name for name in names_in(disk / folder) if not name.endswith(("_stats.json", ".jsonl"))]
        assert names
        for name in names:
            there = read_bytes(source_path(f"{RUN}/{folder}/{name}"))
            assert there == (disk / folder / name).read_bytes(), f"{folder}/{name}"
    assert server.failed > 20
    assert any((Path(os.environ["ROCLIP_CACHE"]) / "third").rglob("*.*"))  # that node did its share

    # Looked at from beside, and checked again
    status = call("status", run=RUN)
    assert (status["code"], all(each["finished"] for each in status["stages"])) == (1, True)
    where = {Path(each["where"]).name for each in call("verify", folder=RUN)["checks"]}
    assert where >= {"poison", "store", "scan", "rewrite", "pairs", "undefended", "evaluate"}
    assert here(source_path(f"{RUN}/events.jsonl")).read_text().count('"started"') == 2
