"""The lowest rate at which an attack takes: undefended CLIP falls to it in at least 80 % of cases.

Rates are tried from low to high with the sweep's first seed, all attacks side by side; an attack that
took is tried no further. The cells are the sweep's own, so that nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sweep.cells import Cell, Corpus, cells_of, undefended
from benchmarks.sweep.controls import least_success
from benchmarks.sweep.corpus import Survey
from benchmarks.sweep.running import is_done, results_of, run_cells, say
from benchmarks.sweep.settings import CLEAN, Sweep
from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.outcome import CONTROL_SUCCESS
from roclip_sanitize.runfiles import read_json, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRate:
    """What the search came to for one attack.

    Attributes:
        attack: the sweep's row.
        takes: whether any rate did.
        rate: the lowest that did; None if none did, or the attack has no rate.
        best: the highest success seen, least over models and attacks that share a training.
        best_rate: where.
        tried: rate → success.
    """

    attack: str
    takes: bool
    rate: float | None
    best: float
    best_rate: float | None
    tried: Mapping[str, float]


def find_rates(
    sweep: Sweep, corpus: Corpus, run: Path, *, known: Survey, executor: Executor
) -> list[FoundRate]:
    """Search, and write RUN/rates.json."""
    cells = [cell for cell in undefended(cells_of(sweep, corpus)) if cell.attack != CLEAN]
    rows = {row.name: [*(row.rates or (None,))] for row in sweep.attacks}
    seeds = {row.name: (row.seeds or sweep.seeds)[0] for row in sweep.attacks}
    tried: dict[str, dict[float | None, float]] = {name: {} for name in rows}
    for step in range(max(len(rates) for rates in rows.values())):
        asked = {
            name: rates[step] for name, rates in rows.items() if step < len(rates) and not _took(tried[name])
        }
        now = [
            cell
            for cell in cells
            if cell.attack in asked and cell.rate == asked[cell.attack] and cell.seed == seeds[cell.attack]
        ]
        run_cells(now, run, resources=sweep.resources, known=known, executor=executor)
        for name, rate in asked.items():
            its = [cell for cell in now if cell.attack == name]
            if all(is_done(run, cell) for cell in its):
                tried[name][rate] = _least_success(run, its)
    found = [_found(name, tried[name]) for name in rows if tried[name]]
    write_json(run / "rates.json", [asdict(each) for each in found])
    for each in found:
        say(f"{each.attack}: {_in_words(each)}")
    return found


def read_rates(run: Path) -> dict[str, float | None]:
    """Attack → the rate that was found; an attack that never took is not in it.

    Raises:
        DataError: nothing was searched here.
    """
    path = run / "rates.json"
    if not path.exists():
        raise DataError(f"{path} does not exist: run with --find-rate first")
    return {each["attack"]: each["rate"] for each in read_json(path) if each["takes"]}


def _least_success(run: Path, cells: list[Cell]) -> float:
    values = [least_success(results_of(run, cell)) for cell in cells]
    return min(values)


def _took(tried: Mapping[float | None, float]) -> bool:
    return any(value >= CONTROL_SUCCESS for value in tried.values())


def _found(name: str, tried: Mapping[float | None, float]) -> FoundRate:
    best_rate = max(tried, key=lambda rate: tried[rate])
    took = [rate for rate, value in tried.items() if value >= CONTROL_SUCCESS]
    return FoundRate(
        attack=name,
        takes=bool(took),
        rate=took[0] if took else None,
        best=tried[best_rate],
        best_rate=best_rate,
        tried={_text(rate): value for rate, value in tried.items()},
    )


def _in_words(found: FoundRate) -> str:
    at = "" if found.best_rate is None else f" at {found.best_rate:g}"
    if not found.takes:
        return f"does not take; best {found.best:.1%}{at}"
    at = "" if found.rate is None else f" at {found.rate:g}"
    return f"takes{at}: {found.tried[_text(found.rate)]:.1%}"


def _text(rate: float | None) -> str:
    return "" if rate is None else f"{rate:g}"
