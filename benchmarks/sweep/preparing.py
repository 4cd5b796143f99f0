"""What a cell is trained on: poisoned shards, what a scan keeps of them, decoded pairs.

    RUN/ledgers/ID/       what was planted: stays
    RUN/scratch/ID/       everything else, dropped once all cells on these shards are measured
        poison/ store/ index/ scan/ rewrite/ cache/, and what a second look takes
        seed_1/ …     the same of clean shards, which trainings of several seeds share

The same seed plants the same bytes, so that what was dropped can be made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sweep.cells import Cell, Poisoning, cleaning
from benchmarks.sweep.corpus import Survey
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.training.data import build_cache
from roclip_sanitize.training.train import model_facts

LEDGER_FILES = ("ledger.parquet", "ledger.json", "stage.json", "complete.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Shards that are ready for the cells of one poisoning.

    Attributes:
        scratch: folder that may go once all of them are measured.
        ledger: the poison folder, None for clean shards.
        shards: what undefended methods train on.
        kept: what a scan left, by its seed; {} if no method asked for one.
        pairs: usable pairs of ``shards``: lengths of training are counted in them, so that a method
            that trains on fewer does not train for less.
        poisons: pairs planted.
        goals: attack → what it is after: "targeted", "backdoor" or "text".
    """

    scratch: Path
    ledger: Path | None
    shards: tuple[Path, ...]
    kept: Mapping[int, tuple[Path, ...]]
    pairs: int
    poisons: int
    goals: Mapping[str, str]

    @property
    def cache(self) -> Path:
        """Folder of the decoded pairs."""
        return self.scratch / "cache"

    def shards_of(self, cell: Cell) -> tuple[Path, ...]:
        """What a cell trains on."""
        return self.kept[cell.seed] if cell.arm.scan else self.shards


def poison_settings(poisoning: Poisoning) -> PoisonSettings:
    """What the package is told to plant.

    Raises:
        ConfigError: an attack or one of its parameters is unknown or out of range.
    """
    corpus = poisoning.corpus
    return PoisonSettings(
        shards=corpus.shards,
        test_shards=corpus.test_shards,
        label=corpus.label,
        classes=corpus.classes,
        seed=poisoning.seed,
        attacks=poisoning.specs,
    )


def prepare(
    poisoning: Poisoning, cells: Sequence[Cell], run: Path, *, known: Survey, executor: Executor
) -> Prepared:
    """Plant, scan if a cell wants it, and decode.

    Args:
        poisoning: what to plant.
        cells: those that will train on it.
        run: the sweep's folder.
        known: of the clean shards.
        executor: where the workers run.

    Raises:
        DataError: the shards have too few pairs of a kind, or a poison is a held-out pair.
    """
    scratch = scratch_of(run, poisoning.name)
    ledger, shards, pairs, poisons, goals = None, poisoning.corpus.shards, known.pairs, 0, dict[str, str]()
    if poisoning.specs:
        ledger = scratch / "poison"
        pairs = poison_shards(poison_settings(poisoning), out=ledger, executor=executor).kept
        shards = tuple(poisoned_shards(ledger))
        poisons, goals = _require_apart(ledger, known.held_out), _goals(Ledger.open(ledger))
    scanning = {cell.seed: cell for cell in cells if cell.arm.scan}
    prepared = Prepared(
        scratch=scratch,
        ledger=ledger,
        shards=shards,
        kept={seed: _scan(shards, scratch, cell, executor) for seed, cell in scanning.items()},
        pairs=pairs,
        poisons=poisons,
        goals=goals,
    )
    for cell in cells:  # side by side here, one by one in the cells
        facts = model_facts(cell.settings(prepared.shards), executor)
        build_cache(prepared.shards_of(cell), **facts, root=prepared.cache, executor=executor)
    return prepared


def drop_scratch(prepared: Prepared, run: Path) -> None:
    """Keep the ledger, and give the rest of the room back."""
    if prepared.ledger is not None:
        kept = run / "ledgers" / prepared.scratch.name
        kept.mkdir(parents=True, exist_ok=True)
        for name in LEDGER_FILES:
            shutil.copyfile(prepared.ledger / name, kept / name)
    drop(prepared.scratch)


def scratch_of(run: Path, poisoning: str) -> Path:
    """The folder of a poisoning, by its name: nobody but the process that runs its cells goes there."""
    return run / "scratch" / poisoning


def drop(folder: Path) -> None:
    """Remove a folder; whoever is killed meanwhile leaves it whole or leaves a name that nobody reads."""
    drop_leftover(folder)
    gone = _dropped(folder)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def drop_leftover(folder: Path) -> None:
    """Remove what a killed drop() of this very folder left: others' are theirs, who may be at it."""
    shutil.rmtree(_dropped(folder), ignore_errors=True)


def _dropped(folder: Path) -> Path:
    return folder.with_name(f".dropped_{folder.name}")


def _require_apart(ledger: Path, held_out: frozenset[str]) -> int:
    uids = Ledger.open(ledger).planted()
    if both := uids & held_out:
        raise DataError(
            f"{len(both)} poisons bear the uid of a held-out pair, such as {min(both)}: are training shards "
            "and test shards the same?"
        )
    return len(uids)


def _goals(ledger: Ledger) -> dict[str, str]:
    return {
        attack: "targeted"
        if ledger.targets_of(attack)
        else "backdoor"
        if ledger.backdoors(attack)
        else "text"
        for attack in ledger.attacks
    }


def _scan(shards: tuple[Path, ...], scratch: Path, cell: Cell, executor: Executor) -> tuple[Path, ...]:
    """What a scan of a cell's seed keeps."""
    from roclip_sanitize.rewrite import kept_shards
    from roclip_sanitize.sanitize import SanitizeSettings, sanitize_shards

    out = scratch if cell.seed == cell.poisoning.seed else scratch / f"seed_{cell.seed}"
    settings = SanitizeSettings(shards=shards, seed=cell.seed, **cleaning(cell.scan))
    sanitize_shards(settings, out=out, executor=executor, say=lambda line: None)
    return tuple(kept_shards(out / "rewrite"))
