"""The smoke sweep, as a user starts it: minutes of work, and none the second time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars
import pytest

PROJECT = Path(__file__).parent.parent
ARMS = {"clip", "clip_augmented", "scan_roclip_final"}
OF_TARGETS = {f"attack_success{among}" for among in ("", "_top3", "_top5")} | {"true_class_accuracy"}
OF_TARGETS |= {f"clean_target_rate{among}" for among in ("", "_top3", "_top5")}
OF_TRIGGERS = {"attack_success", "clean_target_rate", "true_class_accuracy"}
OF_UTILITY = {"zero_shot_top1", "zero_shot_top5", "mean_per_class_recall"}
OF_UTILITY |= {f"retrieval_r{among}" for among in (1, 5, 10)}

pytestmark = pytest.mark.slow


def smoke(run: Path) -> subprocess.CompletedProcess[str]:
    """The sweep in a folder of its own."""
    command = [sys.executable, "-m", "benchmarks.attack_success", "--quick", "--run", str(run)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smoke") / "run"
    ended = smoke(path)
    assert ended.returncode == 0, ended.stderr
    assert "3 cells, 3 of them to do" in ended.stderr
    assert "could not be done" not in ended.stderr
    return path


def test_undefended_clip_falls_to_both_attacks(run: Path) -> None:
    frame = polars.read_parquet(run / "table.parquet").filter(polars.col("metric") == "attack_success")
    control = frame.filter(polars.col("method") == "clip")
    assert set(control["attack"]) == {"targeted", "patch"}
    assert control["value"].min() >= 0.8  # type: ignore[operator]
    assert not frame["void"].any()


def test_every_arm_has_every_metric(run: Path) -> None:
    frame = polars.read_parquet(run / "table.parquet")
    found = {
        (method, attack): set(its["metric"]) for (method, attack), its in frame.group_by("method", "attack")
    }
    wanted = {"targeted": OF_TARGETS, "patch": OF_TRIGGERS, None: OF_UTILITY}
    assert found == {(arm, attack): metrics for arm in ARMS for attack, metrics in wanted.items()}
    assert (frame["n"] > 0).all()


def test_the_same_command_again_does_no_work_and_says_the_same(run: Path) -> None:
    told = ("table.parquet", "table.md", "figure.svg")
    before = {name: (run / name).read_bytes() for name in told}
    touched = {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*")}
    again = smoke(run)
    assert again.returncode == 0, again.stderr
    assert "3 cells, 0 of them to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*")} == touched
    assert {name: (run / name).read_bytes() for name in told} == before
