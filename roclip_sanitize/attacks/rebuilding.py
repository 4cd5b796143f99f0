"""Poisoned shards from a ledger and the clean shards, byte for byte.

    ledger + clean shards ─▶ plan ─▶ copies with poisons ─▶ the same shards, the same ledger

So that an experiment can be handed on without its data: the ledger names every pair that was
changed, what it became and by which seed. No attack chooses anything anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from roclip_sanitize.attacks.contract import Poison
from roclip_sanitize.attacks.ledger import (
    LEDGER_SCHEMA,
    POISON_STAGE,
    plans_from_header,
    read_ledger_table,
    target_file,
)
from roclip_sanitize.attacks.plan_files import plan_header_file, write_plan
from roclip_sanitize.attacks.poison import copy_paths, plant
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder, read_told, sha256_of, write_bytes
from roclip_sanitize.shards import shard_tasks
from roclip_sanitize.storage import exists, read_bytes, remove

NEEDED = ("ledger.json", "ledger.parquet")


def rebuild_shards(ledger: Path, shards: Sequence[Path], *, out: Path, executor: Executor) -> Tally:
    """Plant again what a ledger lists.

    Args:
        ledger: a folder with ledger.json, ledger.parquet and targets/.
        shards: the clean shards, in the order in which they were poisoned.
        out: folder for the copies and their ledger, as 'roclip poison' leaves it.
        executor: where the workers run.

    Returns:
        What became of the pairs, new ones included.

    Raises:
        DataError: the folder has no ledger, or lacks a picture that it names.
        MismatchError: the ledger does not fit the shards; or ``out`` was made with other settings.
    """
    copies = copy_paths(shards, out)
    for name in NEEDED:
        if not exists(ledger / name):
            raise DataError(f"{ledger} is no ledger: it has no {name}")
    settings = {
        "ledger": {name: sha256_of(ledger / name) for name in NEEDED},
        "shards": [str(path) for path in shards],
    }
    folder = StageFolder.create(out, stage=POISON_STAGE, settings=settings)
    if not exists(plan_header_file(out)):
        _plan_again(ledger, shards, out, executor)
    tally = plant(folder, shards, copies, executor)
    _require_same_ledger(ledger, out)
    return tally


def _plan_again(ledger: Path, shards: Sequence[Path], out: Path, executor: Executor) -> None:
    header, poisons, tasks = (
        read_told(ledger / "ledger.json"),
        read_ledger_poisons(ledger),
        shard_tasks(shards),
    )
    known = {task.name for task in tasks}
    named = {shard for poison in poisons for shard in (poison.shard, poison.picture_shard) if shard}
    if missing := sorted(named - known):
        raise MismatchError(
            f"the ledger {ledger} does not fit the {len(tasks)} shards: it names a shard {missing[0]}"
        )
    for target in (target for plan in plans_from_header(header).values() for target in plan.targets):
        path = target_file(ledger, target.uid)
        for file in (path, path.with_suffix(".json")):
            if not exists(file):
                raise DataError(f"{file} does not exist, but the ledger names it as a target")
            write_bytes(target_file(out, target.uid).with_suffix(file.suffix), read_bytes(file))
    write_plan(out, poisons, header=header, shards=tasks, executor=executor)


def read_ledger_poisons(ledger: Path) -> list[Poison]:
    """The poisons that a ledger lists, as they were planned.

    Raises:
        DataError: as read_ledger_table() says.
    """
    frame = read_ledger_table(ledger)
    frame = frame.drop("uid", "key", "original_image_hash", "image_hash")
    frame = frame.rename({"original_uid": "uid", "poisoned_caption": "caption"})
    return [Poison(**row) for row in frame.iter_rows(named=True)]


def _require_same_ledger(ledger: Path, out: Path) -> None:
    """Refuse shards that came out otherwise: their pictures are not those that were poisoned."""
    was, now = (read_ledger_table(folder) for folder in (ledger, out))
    if was.equals(now):
        return
    remove(out / "complete.json")  # what is not the same is not done
    what = f"{len(now):,} of its {len(was):,} poisons were planted"
    if len(was) == len(now):
        names = (name for name in LEDGER_SCHEMA if not was[name].equals(now[name]))
        name = next(names)
        pairs = zip(was["uid"], was[name], now[name], strict=True)
        uid = next(uid for uid, before, after in pairs if before != after)
        what = f"pair {uid} came out with another {name}"
    raise MismatchError(f"the ledger {ledger} does not fit the shards: {what}")
