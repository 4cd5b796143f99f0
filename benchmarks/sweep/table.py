"""Results of a sweep as one tidy table: a row per cell, attack and metric.

| column | what |
|---|---|
| sweep, cell | the file's name; the cell's identity |
| row | the sweep's attack: "clean" for clean shards |
| attack | the planted attack that the metric is of; null for utility |
| goal | what it is after: "targeted", "backdoor" or "text" |
| specs, rate, poisons | what was planted, the rate in it, pairs planted in all |
| together | whether another attack was planted in the same shards |
| method, scan, augmentation, model, seed | how it was trained |
| length, samples | for how long, as the sweep says and in pairs |
| metric, value, low, high, n | as in every table of the package |
| control | success of the same attack on the undefended cell; null for utility and clean shards |
| void | whether the control failed; of utility, whether any control of the cell did |
| published, published_source | what authors reported of theirs, in per cent; null where nothing was |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.sweep.cells import Cell
from benchmarks.sweep.controls import SUCCESS_METRICS, control_of, is_void, published, successes
from benchmarks.sweep.running import cell_folder, is_done, results_of
from benchmarks.sweep.settings import CLEAN
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.store import write_parquet

if TYPE_CHECKING:
    import polars

SCHEMA: dict[str, Any] = {
    "sweep": str,
    "cell": str,
    "row": str,
    "attack": str,
    "goal": str,
    "specs": str,
    "rate": float,
    "poisons": int,
    "together": bool,
    "method": str,
    "scan": bool,
    "augmentation": str,
    "model": str,
    "seed": int,
    "length": str,
    "samples": int,
    "metric": str,
    "value": float,
    "low": float,
    "high": float,
    "n": int,
    "control": float,
    "void": bool,
    "published": str,
    "published_source": str,
}


def write_table(name: str, cells: Sequence[Cell], run: Path) -> polars.DataFrame:
    """The table of all cells that are done, in the order of the sweep; also RUN/table.parquet."""
    import polars

    rows = [row for cell in cells if is_done(run, cell) for row in _rows(name, cell, cells, run)]
    frame = polars.DataFrame(rows, schema=SCHEMA, orient="row")
    write_parquet(run / "table.parquet", frame)
    return frame


def _rows(name: str, cell: Cell, cells: Sequence[Cell], run: Path) -> Iterator[dict[str, Any]]:
    facts = StageFolder(cell_folder(run, cell)).facts
    control = _control(cell, cells, run)
    any_void = None if cell.attack == CLEAN else any(is_void(control.get(each)) for each in facts["goals"])
    shared = {
        "sweep": name,
        "cell": cell.name,
        "row": cell.attack,
        "specs": " ".join(cell.poisoning.specs),
        "rate": cell.rate,
        "poisons": facts["poisons"],
        "together": len(cell.poisoning.specs) > 1,
        "method": cell.arm.name,
        "scan": cell.arm.scan,
        "augmentation": cell.settings(()).augmentation,
        "model": cell.model,
        "seed": cell.seed,
        "length": cell.length,
        "samples": facts["samples"],
    }
    for result in results_of(run, cell):
        goal = facts["goals"].get(result.attack or "")
        of_attack = {
            "attack": result.attack,
            "goal": goal,
            "control": control.get(result.attack or ""),
            "void": is_void(control.get(result.attack)) if result.attack else any_void,
        }
        measured = {each: getattr(result, each) for each in ("metric", "value", "low", "high", "n")}
        yield shared | of_attack | measured | _published(goal, cell, result.metric)


def _control(cell: Cell, cells: Sequence[Cell], run: Path) -> dict[str, float]:
    if cell.attack == CLEAN:
        return {}
    undefended = control_of(cell, cells)
    return successes(results_of(run, undefended)) if is_done(run, undefended) else {}


def _published(goal: str | None, cell: Cell, metric: str) -> dict[str, str | None]:
    if goal and metric == SUCCESS_METRICS[0]:
        for each in published():
            if each.attack == goal and each.method == cell.arm.name.partition("+")[0]:
                return {"published": each.percent, "published_source": f"{each.about}: {each.source}"}
    return {"published": None, "published_source": None}
