"""Whatever machine fails while stages run, the same command ends with the bytes of an undisturbed run."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.same_bytes import tree
from roclip_sanitize.errors import StorageError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder
from tests.faulty import (
    RefusingDisk,
)
from tests.stages import PAIRS, SHARDS, Stage, run_stages, square_shards, stages, vectors_and_names

REFUSALS = 16  # steps of a stage that a disk refuses, one run each


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return square_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def made(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all stages, nothing having gone wrong."""
    return run_stages(shards, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def undisturbed(made: Path) -> dict[str, Any]:
    """What each stage leaves behind."""
    return {path.name: tree(path) for path in made.iterdir()}


# A disk that is full, or breaks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["store", "index", "pairs", "scan", "rewrite"])
def test_a_disk_that_refuses_any_step_of_any_write_leaves_nothing_half_done(
    name: str, made: Path, undisturbed: Any, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    """Every step that a stage takes on the disk is refused in turn, or so many of them, evenly spread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for path in made.iterdir():
            (tmp_path / path.name).symlink_to(path)
        out, stage = tmp_path / name, stages(shards)[name]
        steps = refused(stage, out)
        stride = max(1, steps // REFUSALS)
        for at in range(1, steps + 1, stride):
            code = (errno.ENOSPC, errno.EIO)[at // stride % 2]
            assert refused(stage, out, code=code, at=at) >= at
            assert not list(out.rglob("*.part"))
            assert not StageFolder(out).finished
            StageFolder(out).verify()
            stage(Path(name), LocalExecutor())
            assert tree(out) == undisturbed[name], f"after step {at} of {steps} was refused"


def refused(stage: Stage, out: Path, *, code: int = 0, at: int = 0) -> int:
    """Run a stage from its start while a step on the disk is refused: how many steps it came to."""
    if out.is_symlink():
        out.unlink()
    shutil.rmtree(out, ignore_errors=True)
    disk = RefusingDisk(out, code=code, at=at)
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        if not at:
            stage(Path(out.name), LocalExecutor())
            return disk.steps
        wanted = {errno.ENOSPC: "no room left to write", errno.EIO: "the disk failed while"}[code]
        with pytest.raises(StorageError, match=wanted) as caught:
            stage(Path(out.name), LocalExecutor())
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 1
    return disk.steps


# What a kill costs

# Embeds with a model that logs how many pairs it is given, and dies after so many steps: calls of the model,
# and files that get their names.
COUNTED = """
import os, signal, sys
log, left = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT), [int(sys.argv[2])]
def step():
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(lambda event, told: step() if event == "os.rename" else None)
from roclip_sanitize.features import PlainEncoder
encode = PlainEncoder.encode_captions
def counted(self, captions):
    os.write(log, b"x" * len(captions))
    step()
    return encode(self, captions)
PlainEncoder.encode_captions = counted
from roclip_sanitize.cli import run
run(sys.argv[3:])
"""


@pytest.mark.slow
def test_a_kill_costs_a_worker_no_more_than_what_it_had_in_hand(
    shards: tuple[Path, ...], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """What is marked done is never read again; in hand are a shard being written and one in the model."""
    out, log, dice = tmp_path / "store", tmp_path / "encoded", random.Random(0)
    spec = "::".join(map(str, shards))
    lost = []
    for steps in [*(dice.randrange(4, 25) for _ in range(5)), 0]:
        encoded, done = log.stat().st_size if log.exists() else 0, rows_done(out)
        ended = embed_counted(log, steps, ["--shards", spec, "--out", str(out), "--batch-size", "8"])
        assert ended == (-signal.SIGKILL if steps else 0)
        lost.append(log.stat().st_size - encoded - (rows_done(out) - done))
    assert lost[-1] == 0
    assert 0 < max(lost) <= 2 * PAIRS
    assert log.stat().st_size == SHARDS * PAIRS + sum(lost)
    assert vectors_and_names(tree(out)) == vectors_and_names(undisturbed["store"])


def embed_counted(log: Path, steps: int, options: list[str]) -> int:
    """Run ``roclip embed`` that dies after so many steps, or not at all if 0: how it ended."""
    command = [sys.executable, "-c", COUNTED, str(log), str(steps), "embed", *options, "--executor", "local"]
    project = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(command, env=project, capture_output=True, timeout=300, check=False).returncode


def rows_done(out: Path) -> int:
    """Pairs whose shard is marked done."""
    return sum(int(marker.facts["rows"]) for marker in StageFolder(out).markers())
