"""A sweep from file to table, on squares and trainings too short for anything to be learnt."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars
import pytest

from benchmarks.attack_success import sweep_in
from benchmarks.sweep.corpus import find_corpus, survey
from benchmarks.sweep.rates import find_rates, read_rates
from benchmarks.sweep.settings import Sweep
from benchmarks.sweep.sweep_file import load_sweep
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.local import LocalExecutor
from tests.squares import write_square_shards, write_squares

FILE = """
label = "colour"
shards = "{folder}/train/{{00000..00001}}.tar"
test_shards = "{folder}/test.tar"
methods = ["roclip_final"]
models = ["roclip-vit-64"]
classes = 4
[[attacks]]
spec = "patch:rate={{rate}}"
rates = [8, 16]
[[attacks]]
name = "both"
together = ["targeted:targets=4,captions={{rate}}", "patch:rate=8"]
rates = [4]
[train]
epochs = 1
batch_size = 32
match_every = 64
match_for = 32
[resources]
cores = 1
"""
ARMS = ["clip", "clip_augmented", "roclip_final"]


def write_sweep(folder: Path, *more: str) -> Sweep:
    """A sweep on squares that lie beside its file."""
    write_square_shards(folder / "train", shards=2, pairs=80)
    write_squares(folder / "test.tar", first=1_000, pairs=32)
    (folder / "tiny.toml").write_text(FILE.format(folder=folder))
    return load_sweep(str(folder / "tiny.toml"), changes=more)


@pytest.mark.slow
class TestRun:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("sweep")

    @pytest.fixture(scope="class")
    def run(self, folder: Path) -> Path:
        """The whole sweep, in this process."""
        assert sweep_in(folder / "run", write_sweep(folder), LocalExecutor()) == 0
        return folder / "run"

    def test_every_cell_is_a_row_of_each_metric(self, run: Path) -> None:
        frame = polars.read_parquet(run / "table.parquet")
        success = frame.filter(polars.col("metric") == "attack_success")
        assert sorted(success.select("row", "attack", "rate", "method").rows()) == sorted(
            (row, attack, rate, method)
            for row, attack, rate in (
                ("patch", "patch", 8.0),
                ("patch", "patch", 16.0),
                ("both", "targeted", 4.0),
                ("both", "patch", 4.0),
            )
            for method in ARMS
        )
        useful = frame.filter(polars.col("metric") == "zero_shot_top1")
        assert set(useful["row"].value_counts().rows()) == {("patch", 6), ("clean", 3), ("both", 3)}

    def test_a_cell_is_void_if_its_own_control_failed(self, run: Path) -> None:
        frame = polars.read_parquet(run / "table.parquet").filter(polars.col("metric") == "attack_success")
        control = {
            (row, attack, rate): value
            for row, attack, rate, method, value in frame.select(
                "row", "attack", "rate", "method", "value"
            ).rows()
            if method == "clip"
        }
        for row, attack, rate, found, void in frame.select("row", "attack", "rate", "control", "void").rows():
            assert found == control[row, attack, rate]
            assert void == (found < 0.8)

    def test_poisons_are_counted_and_what_was_planted_stays_known(self, run: Path) -> None:
        frame = polars.read_parquet(run / "table.parquet")
        counts = set(frame.select("row", "rate", "poisons").rows())
        assert counts == {("clean", None, 0), ("patch", 8.0, 8), ("patch", 16.0, 16), ("both", 4.0, 24)}
        ledgers = [Ledger.open(path) for path in (run / "ledgers").iterdir()]
        assert sorted(len(ledger.planted()) for ledger in ledgers) == [8, 16, 24]
        assert not list((run / "scratch").iterdir())

    def test_what_authors_published_stands_apart(self, run: Path) -> None:
        frame = polars.read_parquet(run / "table.parquet").filter(polars.col("metric") == "attack_success")
        shown = set(frame.select("goal", "method", "published").drop_nulls().rows())
        assert shown == {
            ("targeted", "clip", "93.75"),
            ("targeted", "roclip_final", "12.5"),
            ("backdoor", "roclip_final", "0"),
        }

    def test_the_report_and_the_figure_are_there(self, run: Path) -> None:
        text = (run / "table.md").read_text("utf-8")
        assert "| both: targeted † | 4 | 24 | 1 |" in text
        assert "arXiv 2303.06854v2" in text
        assert "planted pairs" in (run / "figure.svg").read_text("utf-8")

    def test_the_same_command_again_trains_nothing(self, run: Path, folder: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*")}
        assert sweep_in(run, load_sweep(str(folder / "tiny.toml")), LocalExecutor()) == 0
        assert {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*")} == before

    def test_two_workers_give_the_same_numbers_as_one(self, run: Path, folder: Path) -> None:
        changes = ['attacks = [{spec = "patch:rate=16"}]', "clean = false", 'methods = "clip"']
        sweep = load_sweep(str(folder / "tiny.toml"), changes=changes)
        assert sweep_in(folder / "run_2", sweep, open_executor("ray", workers=2)) == 0
        columns = ["cell", "metric", "attack", "value", "low", "high", "n", "control", "poisons", "samples"]
        mine = polars.read_parquet(folder / "run_2" / "table.parquet").select(columns)
        whole = polars.read_parquet(run / "table.parquet").filter(
            (polars.col("rate") == 16) & (polars.col("method") != "roclip_final")
        )
        assert len(mine)
        assert mine.sort(columns[:3]).equals(whole.select(columns).sort(columns[:3]))

    def test_the_lowest_rate_that_takes_is_looked_for_among_cells_that_are_done(
        self, run: Path, folder: Path
    ) -> None:
        sweep, executor = load_sweep(str(folder / "tiny.toml")), LocalExecutor()
        corpus = find_corpus(sweep, run, executor=executor)
        known = survey(corpus, run, executor=executor)
        found = find_rates(sweep, corpus, run, known=known, executor=executor)
        tried = {each.attack: list(each.tried) for each in found}
        assert tried["both"] == ["4"]
        patch = next(each for each in found if each.attack == "patch")
        assert list(patch.tried) == (["8"] if patch.rate == 8 else ["8", "16"])
        assert set(read_rates(run)) == {each.attack for each in found if each.takes}


@pytest.mark.slow
def test_a_sweep_that_is_told_to_stop_goes_on_where_it_was(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    command = [sys.executable, "-m", "benchmarks.attack_success", str(tmp_path / "tiny.toml")]
    command += ["--run", str(tmp_path / "run"), "--executor", "local"]
    command += ["--set", 'attacks = [{spec = "patch:rate=16"}]', "--set", "clean = false"]
    command += ["--set", 'methods = ["scan_clip"]', "--set", "scan.young_clips = 0"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert started.stderr is not None
    seen = next(line for line in started.stderr if "1/3" in line)
    os.kill(started.pid, signal.SIGTERM)
    rest = started.stderr.read()
    assert started.wait() in {130, 143}  # between two cells, or while one is trained
    assert "the same command goes on from here" in rest
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search("3 cells, [12] of them to do", again.stderr)
    assert seen.split("1/3 ")[1].split(":")[0] not in again.stderr
