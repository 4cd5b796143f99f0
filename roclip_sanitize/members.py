"""Which bytes of which shard a pair is: a table beside the shards, so that a few pairs cost a few reads.

    members/members_00000.parquet   a row per member of every usable pair: uid, name, start, offset, size
    failures/failures_00000.parquet pairs that could not be used
    done/00000.json                 rows, tally; written last

Building it reads every shard once. It pays where pairs are picked again and again, or from shards behind
URLs: a pair is then mostly one request instead of a shard fetched whole. A single pass that finds its
pairs on the way is quicker without.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import BadPair, DataError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.shards import Pair, Shard, ShardTask, shard_tasks, split_name
from roclip_sanitize.store import write_failures, write_parquet
from roclip_sanitize.tars import Member

STAGE = "members"
SCHEMA: dict[str, Any] = {"uid": str, "name": str, "start": int, "offset": int, "size": int}


def index_members(shards: Sequence[Path], *, out: Path, executor: Executor) -> Tally:
    """List where the members of every usable pair lie.

    Args:
        shards: what to read.
        out: folder of the table.
        executor: where to read.

    Returns:
        Pairs seen and failed.

    Raises:
        MismatchError: ``out`` was made from other shards.
        StorageError: the disk is full.
    """
    folder = StageFolder.create(out, stage=STAGE, settings={"shards": [str(path) for path in shards]})
    tasks = [task for task in shard_tasks(shards) if folder.marker(task.name) is None]
    for _ in executor.map(partial(MemberWorker, out), tasks):
        pass
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    if not folder.finished:
        folder.finish({"tally": tally.to_json()})
    return tally


class MemberWorker:
    """Lists one shard after the other."""

    def __init__(self, out: Path) -> None:
        self._folder = StageFolder(out)

    def __call__(self, task: ShardTask) -> Marker:
        import polars

        started, out = time.perf_counter(), self._folder.path
        rows, pairs = list[tuple[Any, ...]](), 0
        with Shard(task.path) as shard:
            for pair in shard.pairs():
                rows += ((pair.uid, *member) for member in pair.members)
                pairs += 1
            failures = shard.failures
        table = _table_file(out, task.name)
        write_parquet(table, polars.DataFrame(rows, schema=SCHEMA, orient="row"))
        tally = Tally(
            seen=pairs + len(failures),
            failed=Counter(failure.reason.value for failure in failures),
            seconds=time.perf_counter() - started,
        )
        files = [table, write_failures(out, task.name, failures)]
        return self._folder.commit(task.name, files=files, facts={"tally": tally.to_json()})


class MemberIndex:
    """The table, open for reading pairs by uid.

    A look-up reads the uids of one shard's table after the other until all are found, 32 bytes a member
    before compression, and of the shards only what was asked for.
    """

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder

    @classmethod
    def open(cls, path: Path) -> MemberIndex:
        """Open a table.

        Raises:
            DataError: there is none.
            MismatchError: it is unfinished.
        """
        return cls(StageFolder.open(path, stage=STAGE))

    def read(self, uid: str) -> Pair:
        """Read one pair.

        Raises:
            DataError: there is no such pair.
            MismatchError: its shard has changed since.
        """
        try:
            return self.read_many([uid])[uid]
        except KeyError as error:
            raise DataError(f"{self._folder.path} lists no pair {uid}") from error

    def read_many(self, uids: Iterable[str]) -> dict[str, Pair]:
        """Read some pairs, by uid. Those not listed are left out; where two have one uid, the first is read.

        Raises:
            MismatchError: a shard has changed since.
        """
        wanted, found = set(uids), dict[str, Pair]()
        for task in shard_tasks([Path(name) for name in self._folder.settings["shards"]]):
            if not wanted:
                break
            if members_of := self._members(task.name, wanted):
                found |= _read_pairs(task.path, members_of)
                wanted -= found.keys()
        return found

    def _members(self, name: str, uids: set[str]) -> dict[str, list[Member]]:
        import polars

        rows = polars.scan_parquet(_table_file(self._folder.path, name)).filter(polars.col("uid").is_in(uids))
        members_of = defaultdict[str, list[Member]](list)
        for uid, *values in rows.collect().iter_rows():
            member, before = Member(*values), members_of[uid]
            if not before or _key(member) == _key(before[0]):  # else it is an equal pair's
                before.append(member)
        return members_of


def _read_pairs(path: Path, members_of: dict[str, list[Member]]) -> Iterator[tuple[str, Pair]]:
    with Shard(path, whole=False) as shard:
        for uid, members in members_of.items():
            try:
                pair = shard.pair(members)
            except BadPair as error:
                raise MismatchError(f"{path} has changed since its members were listed: {error}") from error
            if pair.uid != uid:
                raise MismatchError(
                    f"{path} has changed since its members were listed: found {pair.uid}, wanted {uid}"
                )
            yield uid, pair


def _key(member: Member) -> str:
    return split_name(member.name)[0]


def _table_file(folder: Path, name: str) -> Path:
    return folder / "members" / f"members_{name}.parquet"
