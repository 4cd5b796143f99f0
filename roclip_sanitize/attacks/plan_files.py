"""The plan on disk, so that each worker reads only its part.

plan/plan_00000.parquet   the poisons of one shard, by row
targets/UID.jpg, .json    the target pictures as they were encoded, and their fields
plan/plan.json            what the attacks have in common; written last, so it says that all is there
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from roclip_sanitize.attacks.contract import Plan, Poison, Target
from roclip_sanitize.attacks.ledger import plans_from_header, target_file
from roclip_sanitize.attacks.triggers import Trigger
from roclip_sanitize.errors import DataError
from roclip_sanitize.runfiles import read_json, write_bytes, write_json
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import write_parquet

POISON_SCHEMA: dict[str, Any] = {field.name: int if field.name == "row" else str for field in fields(Poison)}
NUMBERS = (int, float)  # labels that are numbers stay numbers, or new pairs would stand out


def plan_header_file(folder: Path) -> Path:
    """Where the plan's common part lies; it exists once the whole plan does."""
    return folder / "plan" / "plan.json"


def write_plan(
    folder: Path,
    plans: Mapping[str, Plan],
    *,
    header: Mapping[str, Any],
    shards: Sequence[str],
    test_shards: Iterable[Path],
) -> None:
    """Write a plan.

    Args:
        folder: the poison folder.
        plans: by attack.
        header: what else the ledger should say.
        shards: ordinals of all training shards; each gets a table, be it empty.
        test_shards: where the target pictures are found.

    Raises:
        DataError: a target is not in the test shards.
    """
    import polars

    rows_of: dict[str, list[dict[str, Any]]] = {shard: [] for shard in shards}
    for poison in (poison for plan in plans.values() for poison in plan.poisons):
        rows_of[poison.shard].append(asdict(poison))
    for shard, rows in rows_of.items():
        ordered = sorted(rows, key=lambda row: row["row"])
        write_parquet(_poisons_file(folder, shard), polars.DataFrame(ordered, schema=POISON_SCHEMA))
    _write_targets(folder, [target for plan in plans.values() for target in plan.targets], test_shards)
    attacks = [{"name": name, **plan.to_json()} for name, plan in plans.items()]
    write_json(plan_header_file(folder), {**header, "attacks": attacks})


def read_poisons(folder: Path, shard: str) -> list[Poison]:
    """The poisons of one shard, by row."""
    import polars

    return [Poison(**row) for row in polars.read_parquet(_poisons_file(folder, shard)).iter_rows(named=True)]


class Materials:
    """What poisons are made of: triggers, and target pictures with their fields.

    Attributes:
        seed: the run's.
    """

    def __init__(self, folder: Path, *, label: str, seed: int) -> None:
        self.seed = seed
        self._folder = folder
        self._label = label
        self._targets: dict[str, tuple[bytes, dict[str, Any]]] = {}

    @cached_property
    def _plans(self) -> dict[str, Plan]:
        return plans_from_header(read_json(plan_header_file(self._folder)))

    def trigger(self, poison: Poison) -> Trigger | None:
        """What this poison stamps on its picture, or None."""
        return self._plans[poison.attack].triggers.get(poison.variant)

    def target(self, poison: Poison) -> tuple[bytes, dict[str, Any]]:
        """A new pair's picture, and its fields: the picture's own, but for the uid and the class claimed."""
        if poison.target_uid not in self._targets:
            path = target_file(self._folder, poison.target_uid)
            self._targets[poison.target_uid] = path.read_bytes(), read_json(path.with_suffix(".json"))
        image, own_fields = self._targets[poison.target_uid]
        kind = type(own_fields[self._label])
        claimed = kind(poison.target) if kind in NUMBERS else poison.target
        return image, {**own_fields, "uid": poison.uid, self._label: claimed}


def _write_targets(folder: Path, targets: Sequence[Target], test_shards: Iterable[Path]) -> None:
    wanted = {target.uid for target in targets}
    for path in test_shards:
        if not wanted:
            return
        with Shard(path) as shard:
            for pair in (pair for pair in shard.pairs() if pair.uid in wanted):
                write_bytes(target_file(folder, pair.uid), pair.image)
                write_json(target_file(folder, pair.uid).with_suffix(".json"), pair.fields)
                wanted.discard(pair.uid)
    if wanted:
        raise DataError(f"target {min(wanted)} is no longer in the test shards, which must have changed")


def _poisons_file(folder: Path, shard: str) -> Path:
    return folder / "plan" / f"plan_{shard}.parquet"
