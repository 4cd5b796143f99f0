"""A sweep shared by several processes: whose cells are whose, and what they do not do to each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import polars
import pytest

from benchmarks.attack_success import sweep_in
from benchmarks.sweep.cells import cells_of
from benchmarks.sweep.corpus import find_corpus, survey
from benchmarks.sweep.preparing import drop, drop_leftover
from benchmarks.sweep.running import failures, is_done, run_cells
from benchmarks.sweep.settings import Resources
from benchmarks.sweep.sharing import WHOLE, Part, cells_of_part, part_from, sole_user, turn
from benchmarks.sweep.sweep_file import load_sweep
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from tests.test_sweep import write_sweep
from tests.test_sweep_file import cells

FEW = ['attacks = [{spec = "patch:rate={rate}", rates = [8, 16]}]', 'methods = "clip"', "clean = false"]
SEEDS = "seeds = [0, 1, 2]"


def part(text: str) -> Part:
    return part_from(text)


@pytest.mark.parametrize("of", [1, 2, 3, 5, 20])
def test_parts_have_whole_poisonings_all_of_them_and_none_twice(of: int) -> None:
    whole = cells(SEEDS)
    parts = [cells_of_part(whole, Part(number=number, of=of)) for number in range(1, of + 1)]
    poisonings = [{cell.poisoning.name for cell in mine} for mine in parts]
    assert sorted(cell.name for mine in parts for cell in mine) == sorted(cell.name for cell in whole)
    assert sum(map(len, poisonings)) == len({cell.poisoning.name for cell in whole}) == 7
    assert max(map(len, poisonings)) - min(map(len, poisonings)) <= 1


def test_a_part_has_every_nth_poisoning_in_the_order_of_the_sweep() -> None:
    whole = cells(SEEDS)
    mine = cells_of_part(whole, part("2/3"))
    assert {(cell.rate, cell.poisoning.seed) for cell in mine} == {(0.01, 0), (30, 0)}
    assert [whole.index(cell) for cell in mine] == sorted(whole.index(cell) for cell in mine)
    assert cells_of_part(whole, WHOLE) == whole


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "1/0", "-1/2", "1/2/3", "1.5/2", "a/b", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"part is '{re.escape(text)}', wanted I/N with I from 1 to N"):
        part_from(text)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["--part", "5/4"], "error: part is '5/4', wanted I/N with I from 1 to N, such as 3/14\n"),
        (["--part", "1/2", "--find-rate"], "error: --part with --find-rate: "),
    ],
)
def test_the_command_refuses_in_one_line(told: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.attack_success", "--quick", "--run", str(tmp_path / "run")]
    ended = subprocess.run([*command, *told], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("first", "second", "holder"),
    [
        ("1/1", "1/1", "process {pid} on"),
        ("1/2", "1/2", "part 1/2, process {pid} on"),
        ("1/1", "1/2", "process {pid} on"),
        ("1/2", "1/1", "the parts of a sweep"),
        ("1/2", "2/4", "part 1/2, process {pid} on"),
        ("1/4", "2/14", "part 1/4, process {pid} on"),
        ("1/2", "2/2", None),
        ("4/14", "14/14", None),
    ],
)
def test_a_folder_has_one_sweep_at_a_time_or_each_part_of_one_once(
    first: str, second: str, holder: str | None, tmp_path: Path
) -> None:
    message = f"in use by {(holder or '').format(pid=os.getpid())}"
    with sole_user(tmp_path, part(first)):
        refused = pytest.raises(ConfigError, match=message) if holder else nullcontext()
        with refused, sole_user(tmp_path, part(second)):
            pass
    for text in (second, first):  # what ended holds nothing
        with sole_user(tmp_path, part(text)):
            pass


def test_one_at_a_time_has_its_turn(tmp_path: Path) -> None:
    beside = turn(tmp_path, "table", wait=False)
    with turn(tmp_path, "table") as first, beside as second, turn(tmp_path, "corpus") as other:
        assert (first, second, other) == (True, False, True)
    with turn(tmp_path, "table", wait=False) as again:
        assert again


def test_dropping_a_folder_leaves_alone_what_another_part_is_dropping(tmp_path: Path) -> None:
    for name in ("mine", ".dropped_mine", "other", ".dropped_other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    drop(tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dropped_other", "other"]
    drop_leftover(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_could_not_be_done_is_known_to_all_until_it_is_tried_again(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, *FEW, 'attacks = [{spec = "patch:rate=500"}]')
    run, executor = tmp_path / "run", LocalExecutor()
    corpus = find_corpus(sweep, run, executor=executor)
    known, wanted = survey(corpus, run, executor=executor), cells_of(sweep, corpus)
    failed = run_cells(wanted, run, resources=Resources(cores=1), known=known, executor=executor)
    assert set(failed) == {cell.name for cell in wanted}
    assert all("500" in why for why in failed.values())
    assert failures(wanted, run) == failed
    assert run_cells([], run, resources=Resources(cores=1), known=known, executor=executor) == {}
    assert failures(wanted, run) == failed


@pytest.mark.slow
class TestRun:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("parts")
        assert sweep_in(folder / "whole", write_sweep(folder, *FEW), LocalExecutor()) == 0
        return folder

    @staticmethod
    def same(run: Path, whole: Path) -> bool:
        names = ("table.md", "figure.svg", "table.parquet")
        return all((run / name).read_bytes() == (whole / name).read_bytes() for name in names)

    def test_one_part_after_the_other_gives_the_table_of_the_whole(self, folder: Path) -> None:
        sweep, run = load_sweep(str(folder / "tiny.toml"), changes=FEW), folder / "in_turn"
        wanted = cells_of(sweep, find_corpus(sweep, run, executor=LocalExecutor()))
        mine = {cell.name for cell in cells_of_part(wanted, part("2/2"))}
        for _ in range(2):  # what is done does not move the rest to another part
            assert sweep_in(run, sweep, LocalExecutor(), part=part("2/2")) == 0
            assert {cell.name for cell in wanted if is_done(run, cell)} == mine
            assert set(polars.read_parquet(run / "table.parquet")["cell"]) == mine
        assert sweep_in(run, sweep, LocalExecutor(), part=part("1/2")) == 0
        assert self.same(run, folder / "whole")

    def test_parts_side_by_side_give_the_table_of_the_whole(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.attack_success", str(folder / "tiny.toml")]
        command += ["--run", str(folder / "beside"), "--executor", "local"]
        command += [word for change in FEW for word in ("--set", change)]
        beside = [
            subprocess.Popen(
                [*command, "--part", f"{number}/2"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in (1, 2)
        ]
        for process in beside:
            _, said = process.communicate()
            assert process.returncode == 0, said
            assert "2 cells, 2 of them to do" in said
        assert self.same(folder / "beside", folder / "whole")
        assert not list((folder / "beside" / "scratch").iterdir())
