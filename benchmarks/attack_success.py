"""Known attacks against known defences: a sweep, cell by cell, into one table.

    python -m benchmarks.attack_success fashion --run runs/fashion_sweep
    python -m benchmarks.attack_success my.toml --find-rate
    python -m benchmarks.attack_success cc3m --scale 0.01 --set 'shards="cc3m/{00000..00003}.tar"'
    python -m benchmarks.attack_success fashion --executor local --part 3/14
    ray job submit --working-dir . -- python -m benchmarks.attack_success laion --run /shared/laion

SWEEP is a TOML file (benchmarks/sweep/sweep_file.py says what is in one) or a preset, one of those beside
that file. Every attack × rate × method × seed × model is a cell: one training, one measurement,
one folder, one line of log. The same command goes on where it was stopped, by whatever signal.

Each cell has its control. Plain CLIP without augmentation and plain CLIP with the methods' own are
always trained too, and a cell is void unless the former falls to the attack in 80 % of cases. Attacks
share a training only where the sweep puts them "together": what they do to each other, and to
accuracy, is then in every one of their numbers.

    --find-rate     for each attack, the lowest of its rates at which undefended CLIP falls: RUN/rates.json
    --rates found   run the sweep at those rates only
    --part I/N      run every N-th poisoning only, from the I-th on
    --quick         the smoke preset

N processes, each with another I, share a run folder without Ray: the jobs of an array, or several on
one GPU. Which part a cell is in depends on the sweep alone, not on what is done. Each publishes the
table of what is done by anybody, so that the last to end leaves that of the whole. Two processes of
the same part are refused, as are parts beside a whole sweep, or of different N. The folder must be on
a file system that has locks.

Leaves RUN/table.parquet (a row per cell and metric), RUN/table.md and RUN/figure.svg.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks.claims import Claim, report
from benchmarks.sweep.cells import Cell, cells_of, undefended
from benchmarks.sweep.controls import least_success
from benchmarks.sweep.corpus import find_corpus, survey
from benchmarks.sweep.figure import draw_figure
from benchmarks.sweep.preparing import poison_settings
from benchmarks.sweep.rates import find_rates, read_rates
from benchmarks.sweep.report import write_report
from benchmarks.sweep.running import failures, is_done, results_of, run_cells, say
from benchmarks.sweep.settings import Resources, Sweep
from benchmarks.sweep.sharing import WHOLE, Part, cells_of_part, part_from, sole_user, turn
from benchmarks.sweep.sweep_file import load_sweep
from benchmarks.sweep.table import write_table
from roclip_sanitize.errors import ConfigError, RoclipError, Stopped
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.outcome import CONTROL_SUCCESS

INTERRUPTED = 130


def main() -> int:
    """Run a sweep; the exit code is that of the package's commands."""
    told = _arguments()
    try:
        sweep = load_sweep("smoke" if told.quick else told.sweep, changes=told.set).scaled(told.scale)
        run = told.run or Path("runs") / f"attack_success_{sweep.name}"
        part = WHOLE if told.part is None else part_from(told.part)
        if told.find_rate and told.part is not None:
            raise ConfigError(
                "--part with --find-rate: what is tried next depends on all attacks, run it whole"
            )
        with sole_user(run, part):
            executor = open_for(sweep.resources, told.executor, workers=told.workers)
            signal.signal(signal.SIGTERM, _interrupt)
            return sweep_in(run, sweep, executor, find_rate=told.find_rate, rates=told.rates, part=part)
    except Stopped as stopped:  # a signal that came while a cell was trained
        say("interrupted: the same command goes on from here")
        return stopped.exit_code
    except RoclipError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted: the same command goes on from here")
        return INTERRUPTED


def sweep_in(
    run: Path,
    sweep: Sweep,
    executor: Executor,
    *,
    find_rate: bool = False,
    rates: str = "all",
    part: Part = WHOLE,
) -> int:
    """Run a sweep, or a part of one, in a folder where nobody else does.

    Returns:
        0, or 3 if some of its cells could not be done.
    """
    require_models(sweep)
    with turn(run, "corpus"):  # what is finished twice at once loses files that are half written
        corpus = find_corpus(sweep, run, executor=executor)
    cells = cells_of(sweep, corpus, rates=read_rates(run) if rates == "found" else None)
    for cell in cells:  # whatever cannot work is refused before anything runs
        cell.to_json()
        if cell.poisoning.specs:
            poison_settings(cell.poisoning)
    with turn(run, "corpus"):
        known = survey(corpus, run, executor=executor)
    if find_rate:
        found = find_rates(sweep, corpus, run, known=known, executor=executor)
        report("attack_success", [_took(each.attack, each.best) for each in found])
        return 0
    failed = run_cells(
        cells_of_part(cells, part),
        run,
        resources=sweep.resources,
        known=known,
        executor=executor,
        after_wave=lambda: publish(sweep, cells, run, wait=False),
    )
    publish(sweep, cells, run)
    print((run / "table.md").read_text("utf-8"))
    if claims := controls(cells, run):
        report("attack_success", claims)
    return 3 if failed else 0


def publish(sweep: Sweep, cells: Sequence[Cell], run: Path, *, wait: bool = True) -> None:
    """Write table and figure of the cells that are done, by whomever.

    Args:
        sweep: which.
        cells: all of it.
        run: its folder.
        wait: for another process that is at it, so that what it does not know of is in the table too.
    """
    with turn(run, "table", wait=wait) as ours:
        if not ours:
            return
        frame = write_table(sweep.name, cells, run)
        why = failures(cells, run)
        words = {str(cell): why[cell.name] for cell in cells if cell.name in why}
        title = f"{sweep.name}: {sweep.about}" if sweep.about else sweep.name
        write_report(frame, run, title=title, failed=words)
        draw_figure(frame, run / "figure.svg")


def controls(cells: Sequence[Cell], run: Path) -> list[Claim]:
    """A claim per attack: at some rate, undefended CLIP falls to it with every seed and model."""
    by_rate = dict[tuple[str, float | None], list[float]]()
    for cell in undefended(cells):
        if cell.poisoning.specs and is_done(run, cell):
            least = least_success(results_of(run, cell))
            by_rate.setdefault((cell.attack, cell.rate), []).append(least)
    best = dict[str, float]()
    for (attack, _), values in by_rate.items():
        best[attack] = max(best.get(attack, 0.0), min(values))
    return [_took(attack, value) for attack, value in best.items()]


def _took(attack: str, value: float) -> Claim:
    return Claim(name=f"{attack}, undefended", value=value, target=">= 0.8", holds=value >= CONTROL_SUCCESS)


def open_for(resources: Resources, name: str, *, workers: int) -> Executor:
    """An executor whose workers each hold what one cell needs.

    Args:
        resources: what that is.
        name: "ray" or "local".
        workers: how many; 0 takes as many as this machine, or the cluster's GPUs, can hold.
    """
    if not workers and not resources.gpus:
        workers = max(1, (os.cpu_count() or 1) // resources.cores)
    if resources.ranks > 1 and name == "ray":
        workers = resources.ranks
    return open_executor(name, workers=workers, gpus_per_worker=resources.gpus)


def require_models(sweep: Sweep) -> None:
    """Refuse a model that open_clip does not know. Raises ConfigError."""
    from roclip_sanitize.encoder import require_model

    for model in sweep.models:
        require_model(model)
    if unused := sorted(set(sweep.model_train) - set(sweep.models)):
        raise ConfigError(f"[model.{unused[0]}] is of none of the sweep's models: {', '.join(sweep.models)}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", nargs="?", default="fashion", help="a TOML file or a preset")
    parser.add_argument("--run", type=Path, help="folder; runs/attack_success_NAME if not named")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in TOML")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the shards to run on")
    parser.add_argument("--find-rate", action="store_true")
    parser.add_argument("--rates", choices=("all", "found"), default="all")
    parser.add_argument("--part", metavar="I/N", help="every N-th poisoning, for N processes side by side")
    parser.add_argument("--workers", type=int, default=0, help="cells side by side; 0 for what fits")
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--quick", action="store_true", help="the smoke preset")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
