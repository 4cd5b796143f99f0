"""Killed at any point and started again, a command leaves the bytes of an undisturbed run.

Each stage runs as a command of its own, with SIGKILL sent right before a file of its output would
get its final name. Everything is compared byte by byte, but for what states times: of markers
(done/), complete.json, the manifest and the training log, whatever is named after seconds is left
out. So are the temporary neighbours (.NAME.xxx.part) that a killed writer leaves behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.same_bytes import tree
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors.base import MakeWorker, Result, Task
from roclip_sanitize.executors.local import LocalExecutor
from tests.squares import write_square_shards, write_squares

pytestmark = pytest.mark.slow

PAIRS = 60  # per shard
PROJECT = Path(__file__).parent.parent
TIMEOUT_SECONDS = 300

# Runs a command that gets a signal before a file that fits the pattern gets its name for the n-th time.
# An audit hook, since it changes nothing about the program that it watches. A run that is asked to stop looks
# for that once a second, so that its time is stretched.
COMMAND = """
import fnmatch, os, sys, time
pattern, left, number = sys.argv[1], [int(sys.argv[2])], int(sys.argv[3])
def watch(event, arguments):
    if left[0] and event == "os.rename" and fnmatch.fnmatch(str(arguments[1]), pattern):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)
            time.sleep(1.5)
sys.addaudithook(watch)
from roclip_sanitize.cli import run
run(sys.argv[4:])
"""


@dataclass(frozen=True)
class Stage:
    """A command, its output folder and before which files of it to kill it, one start after the other."""

    out: str
    command: str
    kills: tuple[tuple[str, int], ...] = ()

    def run(self, folder: Path, *, kill: tuple[str, int] = ("", 0)) -> int:
        """Run the command in a folder, and tell how it ended."""
        ended = self.end(folder, kill=kill)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        return ended.returncode

    def end(
        self, folder: Path, *, kill: tuple[str, int], number: int = signal.SIGKILL
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in a folder, with a signal on its way."""
        pattern, times = kill
        arguments = [sys.executable, "-c", COMMAND, pattern, str(times), str(int(number))]
        arguments += [*self.command.split(), "--out", self.out, "--executor", "local"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        return subprocess.run(
            arguments,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )


STAGES = {
    stage.out: stage
    for stage in (
        Stage(
            out="poison",
            command="poison --shards clean/{00000..00002}.tar --test-shards clean/test.tar --label colour "
            "--classes 4 --attacks targeted:targets=3,captions=5 --attacks patch:rate=0.05",
            kills=(("*/census/done/*", 2), ("*/shards/00001.tar", 1), ("*/ledger.json", 1)),
        ),
        Stage(
            out="store",
            command="embed --shards poison/shards/{00000..00002}.tar",
            kills=(("*/text_emb_00001.npy", 1), ("*/done/00002.json", 1)),
        ),
        Stage(
            out="index",
            command="index --store store --modality image --transform pca96 --parts 3",
            kills=(("*/trained.faiss", 1), ("*/done/00001.json", 1)),
        ),
        Stage(out="index_text", command="index --store store --modality text"),
        Stage(
            out="scan",
            command="scan --store store --index index",
            kills=(("*/work/done/*", 5), ("*/verdicts/verdicts_00001.parquet", 1)),
        ),
        Stage(
            out="rewrite",
            command="rewrite --store store --verdicts scan",
            kills=(("*/kept/00001.tar", 1), ("*/keep.npy", 1)),
        ),
        Stage(
            out="pairs",
            command="pair --store store --index-text index_text --index-image index --method first",
            kills=(("*/done/00001.json", 1), ("*/complete.json", 1)),
        ),
        Stage(
            out="trained",
            command="train --train-data rewrite/kept/{00000..00002}.tar --model roclip-vit-64 "
            "--batch-size 16 --epochs 1 --warmup 2 --match-from 0.2 --match-every 64 --match-for 48 "
            "--checkpoint-seconds 0",
            kills=(("*/checkpoints/step_*.pt", 5), ("*/checkpoints/step_*.json", 2)),
        ),
    )
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, none of them killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_square_shards(folder / "clean", shards=3, pairs=PAIRS)
    write_squares(folder / "clean" / "test.tar", first=1_000, pairs=20)
    for stage in STAGES.values():
        assert stage.run(folder) == 0
    return folder


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage.kills])
def test_a_killed_command_started_again_leaves_the_same_bytes(
    name: str, undisturbed: Path, tmp_path: Path
) -> None:
    stage, folder = STAGES[name], tmp_path / "disturbed"
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns(name))
    for kill in stage.kills:
        assert stage.run(folder, kill=kill) == -signal.SIGKILL
        assert not (folder / name / "complete.json").exists()
    assert stage.run(folder) == 0
    assert tree(folder / name) == tree(undisturbed / name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_training_that_is_told_to_stop_keeps_what_it_has(
    number: int, code: int, undisturbed: Path, tmp_path: Path
) -> None:
    stage, folder = STAGES["trained"], tmp_path / "stopped"
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns(stage.out))
    ended = stage.end(folder, kill=("*/checkpoints/step_*.pt", 4), number=number)
    assert ended.returncode == code, ended.stderr
    told = re.search(
        r"^roclip: stopped at step (\d+) of 10; the same command goes on from there$",
        ended.stderr,
        re.MULTILINE,
    )
    assert told, ended.stderr
    step = int(told[1])
    assert 4 <= step < 10, "at the first step that begins a second or more after the last look"
    assert "Traceback" not in ended.stderr
    kept = sorted(path.name for path in (folder / stage.out / "checkpoints").glob("*.json"))
    assert kept[-1] == f"step_{step:09d}.json"
    assert stage.run(folder) == 0
    assert tree(folder / stage.out) == tree(undisturbed / stage.out)


# A worker that dies while the driver lives


class DyingWorker:
    """Kills its own process at the first try of one shard."""

    def __init__(self, make_worker: MakeWorker[Any, Any], flag: Path) -> None:
        self._work, self._flag = make_worker(), flag

    def __call__(self, task: Any) -> Any:
        if task.name == "00001" and not self._flag.exists():
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._work(task)


class DangerousExecutor:
    """Ray, with workers that die."""

    name, size = "ray", 2

    def __init__(self, flag: Path) -> None:
        from roclip_sanitize.executors.cluster import RayExecutor

        self._ray, self._flag = RayExecutor(2), flag

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return self._ray.map(partial(DyingWorker, make_worker, self._flag), tasks)


def test_a_worker_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    shards = write_square_shards(tmp_path / "clean", shards=3, pairs=20)
    settings = EmbedSettings(shards=shards, encoder="plain")
    embed_shards(settings, out=tmp_path / "alone", executor=LocalExecutor())
    dangerous: Any = DangerousExecutor(tmp_path / "flag")
    tally = embed_shards(settings, out=tmp_path / "killed", executor=dangerous)
    assert (tmp_path / "flag").exists()
    assert tally.seen == tally.kept == 60
    assert tree(tmp_path / "killed") == tree(tmp_path / "alone")
