"""A sweep on one worker, on two side by side, and with each training shared by two: the same table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars
import pytest

from benchmarks.attack_success import open_for, sweep_in
from benchmarks.sweep.sweep_file import load_sweep
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder

FILE = """
about = "a few rendered scenes"
label = "object"
methods = ["scan_roclip_final"]
models = ["roclip-vit-64"]
classes = 6
clean = false
[rendered]
pairs = 240
shards = 2
test_pairs = 60
[[attacks]]
spec = "patch:rate={rate}"
rates = [12]
[train]
samples = 192
batch_size = 32
match_every = 64
match_for = 32
[scan]
young_clips = 0
[resources]
cores = 1
"""
ARMS = ["clip", "clip_augmented", "scan_roclip_final"]

pytestmark = pytest.mark.slow


def run_sweep(folder: Path, *, workers: int, ranks: int = 1) -> Path:
    """Run the file on Ray."""
    (folder / "tiny.toml").write_text(FILE)
    sweep = load_sweep(str(folder / "tiny.toml"), changes=[f"resources.ranks = {ranks}"])
    run = folder / f"run_{workers}_{ranks}"
    executor = open_for(sweep.resources, "ray", workers=workers)
    assert executor.size == max(workers, ranks)
    assert sweep_in(run, sweep, executor) == 0
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The whole sweep on one worker."""
    return run_sweep(folder, workers=1)


def table(run: Path) -> polars.DataFrame:
    return polars.read_parquet(run / "table.parquet")


def test_two_workers_give_the_table_of_one(folder: Path, alone: Path) -> None:
    beside = run_sweep(folder, workers=2)
    assert table(alone)["method"].unique(maintain_order=True).to_list() == ARMS
    assert table(beside).equals(table(alone))
    for name in ("table.md", "figure.svg"):
        assert (beside / name).read_bytes() == (alone / name).read_bytes()


def test_trainings_that_two_ranks_share_are_the_same_cells(folder: Path, alone: Path) -> None:
    """Sums are added in another order, so that numbers may differ a little; what was done does not."""
    shared = run_sweep(folder, workers=0, ranks=2)
    asked = ["cell", "row", "attack", "method", "metric", "n", "poisons", "samples"]
    assert table(shared).select(asked).equals(table(alone).select(asked))
    for cell in set(table(alone)["cell"]):
        both = [StageFolder(run / "cells" / cell / "train") for run in (shared, alone)]
        assert all(folder.finished for folder in both)
        counts = [replace(Tally.from_json(folder.facts["tally"]), seconds=0.0) for folder in both]
        assert counts[0] == counts[1]
        assert counts[0].seen == counts[0].kept >= 192
        assert both[0].facts["samples"] == both[1].facts["samples"] == 192
    assert not list((shared / "scratch").iterdir())
