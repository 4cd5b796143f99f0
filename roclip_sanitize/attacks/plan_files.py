"""The plan on disk, so that each worker reads only its part.

plan/plan_00000.parquet   the poisons of one shard, by row
targets/UID.jpg, .json    the target pictures as they were encoded, and their fields
pictures/UID.jpg          pictures of training pairs that other pairs are to show
plan/plan.json            what the attacks have in common; written last, so it says that all is there
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.attacks.contract import Plan, Poison, Target
from roclip_sanitize.attacks.ledger import picture_file, plans_from_header, target_file
from roclip_sanitize.attacks.triggers import Trigger
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.runfiles import read_json, read_told, write_bytes, write_json
from roclip_sanitize.shards import Shard, ShardTask
from roclip_sanitize.storage import read_bytes
from roclip_sanitize.store import write_parquet

POISON_SCHEMA: dict[str, Any] = {
    field.name: {"int": int, "bool": bool}.get(str(field.type), str) for field in fields(Poison)
}
NUMBERS = (int, float)  # labels that are numbers stay numbers, or new pairs would stand out


def plan_header_file(folder: Path) -> Path:
    """Where the plan's common part lies; it exists once the whole plan does."""
    return folder / "plan" / "plan.json"


def write_plan(
    folder: Path,
    poisons: Iterable[Poison],
    *,
    header: Mapping[str, Any],
    shards: Sequence[ShardTask],
    executor: Executor,
) -> None:
    """Write a plan, the target pictures aside, which must be there.

    Args:
        folder: the poison folder.
        poisons: of all attacks, in the order in which they chose.
        header: what the ledger should say beside.
        shards: all training shards; each gets a table, be it empty.
        executor: fetches the pictures that come from other training pairs.

    Raises:
        MismatchError: a picture is not where it was.
    """
    import polars

    rows_of: dict[str, list[dict[str, Any]]] = {shard.name: [] for shard in shards}
    borrowed: dict[str, set[str]] = {shard.name: set() for shard in shards}
    for poison in poisons:
        rows_of[poison.shard].append(asdict(poison))
        if poison.picture_shard:
            borrowed[poison.picture_shard].add(poison.picture_uid)
    for name, rows in rows_of.items():
        ordered = sorted(rows, key=lambda row: row["row"])
        write_parquet(_poisons_file(folder, name), polars.DataFrame(ordered, schema=POISON_SCHEMA))
    wanted = [
        FetchTask(shard=shard, uids=frozenset(borrowed[shard.name]))
        for shard in shards
        if borrowed[shard.name]
    ]
    for _ in executor.map(partial(Fetcher, folder), wanted):
        pass
    write_json(plan_header_file(folder), header)


def read_poisons(folder: Path, shard: str) -> list[Poison]:
    """The poisons of one shard, by row."""
    return [Poison(**row) for row in read_table(_poisons_file(folder, shard)).iter_rows(named=True)]


def write_targets(folder: Path, targets: Iterable[Target], test_shards: Iterable[Path]) -> None:
    """Write the target pictures and their fields.

    Raises:
        DataError: a target is not in the test shards.
    """
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTask:
    """Pictures to fetch from one training shard.

    Attributes:
        shard: where they lie.
        uids: the pairs that have them.
    """

    shard: ShardTask
    uids: frozenset[str]


class Fetcher:
    """Worker: copies pictures of a training shard to where any worker finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, task: FetchTask) -> None:
        """Fetch the pictures of one shard.

        Raises:
            MismatchError: one is not there.
        """
        wanted = set(task.uids)
        with Shard(task.shard.path) as shard:
            for pair in shard.pairs():
                if pair.uid in wanted:
                    write_bytes(picture_file(self._folder, pair.uid), pair.image)
                    wanted.discard(pair.uid)
        if wanted:
            raise MismatchError(
                f"{task.shard.path} does not fit the plan: it has no pair {min(wanted)}, whose picture "
                "another is to show"
            )


class Materials:
    """What poisons are made of: triggers, and other pairs' pictures with their fields.

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
        return plans_from_header(read_told(plan_header_file(self._folder)))

    def trigger(self, poison: Poison) -> Trigger | None:
        """What this poison draws on its picture, or None."""
        return self._plans[poison.attack].triggers.get(poison.variant)

    def picture(self, poison: Poison) -> bytes:
        """The picture of another training pair that this poison shows."""
        return read_bytes(picture_file(self._folder, poison.picture_uid))

    def target(self, poison: Poison) -> tuple[bytes, dict[str, Any]]:
        """A new pair's picture, and its fields: the picture's own, but for the uid and the class claimed."""
        if poison.picture_uid not in self._targets:
            path = target_file(self._folder, poison.picture_uid)
            self._targets[poison.picture_uid] = read_bytes(path), read_json(path.with_suffix(".json"))
        image, own_fields = self._targets[poison.picture_uid]
        kind = type(own_fields[self._label])
        claimed = kind(poison.target) if kind in NUMBERS else poison.target
        return image, {**own_fields, "uid": poison.uid, self._label: claimed}


def _poisons_file(folder: Path, shard: str) -> Path:
    return folder / "plan" / f"plan_{shard}.parquet"
