"""Cells → results: in waves, resumed cell by cell.

    RUN/cells/ID/           one cell: settings, trained model, results.json, completion marker
    RUN/failed/ID.json      why a cell could not be done when it was last tried

A wave prepares the shards of a few poisonings, runs their cells, and gives the room back: each
cell is one task, on a worker that holds what one training needs. A training that was cut short
goes on from its checkpoint, so that a kill costs a minute.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.sweep.cells import Cell, Poisoning
from benchmarks.sweep.controls import SUCCESS_METRICS
from benchmarks.sweep.corpus import Survey
from benchmarks.sweep.preparing import Prepared, drop_leftover, drop_scratch, prepare, scratch_of
from benchmarks.sweep.settings import Resources
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.evaluation.results import Result, find, read_results, write_results
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.machine import describe_machine, package_versions
from roclip_sanitize.runfiles import StageFolder, read_json, write_json

CELL_STAGE = "cell"
ARM = "cell"  # of the results in a cell's folder: what it is called, the sweep decides


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTask:
    """One cell, ready to run.

    Attributes:
        cell: which.
        prepared: its shards.
        classes: names that zero-shot chooses from.
    """

    cell: Cell
    prepared: Prepared
    classes: tuple[str, ...]


class CellWorker:
    """Trains and measures one cell after the other.

    Args:
        run: the sweep's folder.
        resources: what one cell needs.
        executor: where a training of several ranks runs; None trains in this process.
    """

    def __init__(self, run: Path, resources: Resources, executor: Executor | None = None) -> None:
        import torch

        self._run, self._ranks = run, resources.ranks
        self._executor = executor or LocalExecutor()
        os.environ["OMP_NUM_THREADS"] = str(resources.cores)
        torch.set_num_threads(resources.cores)

    def __call__(self, task: CellTask) -> tuple[str, str]:
        """Run one cell: its name and, if it could not be done, why."""
        try:
            self._measure(task)
        except (ConfigError, DataError) as error:  # this cell's alone; a full disk is everybody's
            return task.cell.name, str(error)
        return task.cell.name, ""

    def _measure(self, task: CellTask) -> None:
        from roclip_sanitize.evaluation.evaluate import evaluate_arms
        from roclip_sanitize.evaluation.settings import EvaluateSettings
        from roclip_sanitize.training.train import train_clip

        cell, prepared = task.cell, task.prepared
        out = cell_folder(self._run, cell)
        folder = StageFolder.create(out, stage=CELL_STAGE, settings=cell.to_json())
        started = time.perf_counter()
        samples = cell.train["samples"] or cell.settings(()).epochs * prepared.pairs
        told = cell.settings(prepared.shards_of(cell), samples=samples)
        train_clip(told, out=out / "train", cache=prepared.cache, executor=self._executor, ranks=self._ranks)
        trained = time.perf_counter()
        settings = EvaluateSettings(
            arms={ARM: out / "train"},
            test_shards=cell.poisoning.corpus.test_shards,
            label=cell.poisoning.corpus.label,
            ledger=prepared.ledger,
            classes=task.classes,
            curves=False,
            seed=cell.seed,
        )
        write_results(
            out / "results.json", evaluate_arms(settings, out=out / "evaluate", executor=self._executor)
        )
        shutil.rmtree(out / "train" / "snapshots", ignore_errors=True)
        folder.finish(
            {
                "samples": samples,
                "poisons": prepared.poisons,
                "goals": dict(prepared.goals),
                "train_seconds": round(trained - started, 1),
                "evaluate_seconds": round(time.perf_counter() - trained, 1),
                "machine": describe_machine(),
                "versions": package_versions(),
            }
        )


def run_cells(
    cells: Sequence[Cell],
    run: Path,
    *,
    resources: Resources,
    known: Survey,
    executor: Executor,
    after_wave: Callable[[], object] = lambda: None,
) -> dict[str, str]:
    """Run those cells that are not done yet.

    Args:
        cells: all that are wanted.
        run: the sweep's folder.
        resources: what one cell needs.
        known: of the clean shards.
        executor: where cells, and the workers that prepare their shards, run.
        after_wave: called now and then, when some cells are done.

    Returns:
        Why each cell that could not be done could not, by its name.

    Raises:
        RoclipError: something that concerns all cells: no room left, a worker that was lost too often.
    """
    waiting = {cell.name: cell for cell in cells if not is_done(run, cell)}
    say(f"{len({cell.name for cell in cells})} cells, {len(waiting)} of them to do")
    _tidy(cells, run)
    failed, done = dict[str, str](), 0
    for wave in waves([*waiting.values()], least=executor.size):
        tasks = list[CellTask]()
        for poisoning, its in wave:
            try:
                prepared = prepare(poisoning, its, run, known=known, executor=executor)
            except (ConfigError, DataError) as error:
                failed |= {cell.name: _failed(run, cell, str(error)) for cell in its}
                continue
            tasks += [CellTask(cell=cell, prepared=prepared, classes=known.classes) for cell in its]
        for name, why in _run_wave(tasks, run, resources, executor):
            failed |= {name: _failed(run, waiting[name], why)} if why else {}
            done += 1
            say(f"{done}/{len(waiting)} {waiting[name]}: {why or _in_short(run, waiting[name])}")
        for prepared in {task.prepared.scratch: task.prepared for task in tasks}.values():
            drop_scratch(prepared, run)
        after_wave()
    for name, why in failed.items():
        say(f"could not be done: {waiting[name]}: {why}")
    return failed


def waves(cells: Sequence[Cell], *, least: int) -> Iterator[list[tuple[Poisoning, list[Cell]]]]:
    """Cells by the shards that they share, so many poisonings at a time that ``least`` cells can run."""
    groups = dict[str, list[Cell]]()
    for cell in cells:
        groups.setdefault(cell.poisoning.name, []).append(cell)
    wave = list[tuple[Poisoning, list[Cell]]]()
    for its in groups.values():
        wave.append((its[0].poisoning, its))
        if sum(len(each) for _, each in wave) >= least:
            yield wave
            wave = []
    if wave:
        yield wave


def failures(cells: Sequence[Cell], run: Path) -> dict[str, str]:
    """Why cells could not be done when they were last tried, by their names; whoever tried them."""
    left = {path.stem: path for path in (run / "failed").glob("*.json")}
    if not left:  # as mostly: a thousand names take a second to work out
        return {}
    wanted = {cell.name for cell in cells if not is_done(run, cell)}
    return {name: read_json(left[name])["why"] for name in sorted(wanted & set(left))}


def cell_folder(run: Path, cell: Cell) -> Path:
    """Where a cell lies."""
    return run / "cells" / cell.name


def is_done(run: Path, cell: Cell) -> bool:
    """Whether a cell was measured."""
    return StageFolder(cell_folder(run, cell)).finished


def results_of(run: Path, cell: Cell) -> list[Result]:
    """What was measured on a cell that is done."""
    return read_results(cell_folder(run, cell) / "results.json")


def say(line: str) -> None:
    """One line to whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} sweep: {line}", file=sys.stderr, flush=True)


def _tidy(cells: Sequence[Cell], run: Path) -> None:
    """Remove what earlier tries at these cells left and nobody needs."""
    for cell in cells:
        _failure_file(run, cell.name).unlink(missing_ok=True)
    for poisoning in {cell.poisoning.name for cell in cells}:
        drop_leftover(scratch_of(run, poisoning))


def _failure_file(run: Path, name: str) -> Path:
    return run / "failed" / f"{name}.json"


def _failed(run: Path, cell: Cell, why: str) -> str:
    """Why a cell could not be done, left where every process that makes the table finds it."""
    write_json(_failure_file(run, cell.name), {"cell": str(cell), "why": why})
    return why


def _run_wave(
    tasks: list[CellTask], run: Path, resources: Resources, executor: Executor
) -> Iterator[tuple[str, str]]:
    if resources.ranks > 1:  # the executor's workers are the ranks of one training
        worker = CellWorker(run, resources, executor)
        yield from map(worker, tasks)
    else:
        yield from executor.map(partial(CellWorker, run, resources), tasks)


def _in_short(run: Path, cell: Cell) -> str:
    results = results_of(run, cell)
    facts = StageFolder(cell_folder(run, cell)).facts
    success = [
        f"{result.attack} {result.value:.1%}" for result in results if result.metric in SUCCESS_METRICS
    ]
    useful = find(results, arm=ARM, attack=None, metric="zero_shot_top1")
    parts = [*success, f"zero-shot {useful.value:.1%}" if useful else "", f"{facts['train_seconds']:.0f} s"]
    return ", ".join(part for part in parts if part)
