"""Shards → which of their pictures are on lists of known-bad ones: the ``screen`` stage.

    screened/screened_00000.parquet   uid, key, shard, sha256, phash, known, listed, bits
    listed.npy                        uids of the pairs whose pictures are, for ``rewrite --also-drop``
    failures/failures_00000.parquet   pairs whose pictures could not be looked at
    done/00000.json                   tally, and what the shard held, by content; written last

``known`` is the kind of hash by which a picture was known, ``listed`` that hash, ``bits`` how far its own is
from that; null where it was not known. ``phash`` is null where no list has any: pictures are not decoded
then. No store is needed, and no model: each picture is read once, and once more by whoever asks again: a
clean bill of health is no use for shards that were written anew under their old names.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import BadPair, ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.hashes import BITS, MAX_BITS_APART, encoded_hash
from roclip_sanitize.held import ContentWorker, NotedShard
from roclip_sanitize.known_bad import KnownBad, read_known_bad
from roclip_sanitize.limits import WORK_KEY, Laps, Limits
from roclip_sanitize.records import Failure, Tally
from roclip_sanitize.runfiles import Marker, StageFolder, sha256_of
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.shards import Pair, ShardTask, shard_tasks
from roclip_sanitize.storage import here
from roclip_sanitize.store import write_failures, write_parquet

LISTED_FILE = "listed.npy"
KNOWN_BAD, CONTENT = "known_bad", "content"
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("uid", "key", "shard", "sha256", "phash", "known", "listed"), str),
    "bits": int,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenSettings:
    """What to look for, and where.

    Attributes:
        shards: what to read.
        known_bad: lists of hashes, see known_bad.py.
        tolerance: bits of 64 in which pHashes of the same picture may differ.
    """

    shards: tuple[Path, ...]
    known_bad: tuple[Path, ...]
    tolerance: int = MAX_BITS_APART

    def __post_init__(self) -> None:
        if not self.known_bad:
            raise ConfigError("no list of known-bad pictures: wanted one or more")
        if not 0 <= self.tolerance < BITS // 2:
            raise ConfigError(
                f"tolerance is {self.tolerance} bits, wanted 0 to {BITS // 2 - 1}: any two pictures differ "
                f"in about {BITS // 2}"
            )


def screen_shards(settings: ScreenSettings, *, out: Path, executor: Executor) -> Tally:
    """Hold every picture against the lists.

    Returns:
        Pairs seen, quarantined as "known_bad", and failed.

    Raises:
        ConfigError: the lists have no hash.
        DataError: a list or a shard cannot be read.
        MismatchError: ``out`` was made with other lists, or from other shards, or what these hold is
            something else by now.
        StorageError: the disk is full.

    Memory: of a worker the lists, see KnownBad; of the driver 50 bytes a known pair.
    """
    known = read_known_bad(settings.known_bad, tolerance=settings.tolerance)
    if not any(known.counts.values()):
        raise ConfigError(f"no hash on {', '.join(map(str, settings.known_bad))}")
    told = {
        "shards": [str(path) for path in settings.shards],
        "known_bad": {str(path): sha256_of(here(path)) for path in settings.known_bad},
        "tolerance": settings.tolerance,
    }
    folder = StageFolder.create(out, stage="screen", settings=told)
    every, done = shard_tasks(settings.shards), {marker.name: marker for marker in folder.markers()}
    _require_same_pairs([task for task in every if task.name in done], done, out, executor)
    tasks = [task for task in every if task.name not in done]
    for _ in executor.map(partial(ScreenWorker, settings, out), tasks):
        pass
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in _shard_markers(folder))
    if not folder.finished:
        write_keep_list(out / LISTED_FILE, listed_uids(folder))
        folder.commit("listed", files=[out / LISTED_FILE], facts={})
        folder.finish({"tally": tally.to_json(), "hashes": known.counts})
    return tally


def _require_same_pairs(
    tasks: Sequence[ShardTask], done: Mapping[str, Marker], out: Path, executor: Executor
) -> None:
    """Of shards that an older version screened nothing is known: they are taken as they are.

    Raises:
        MismatchError: one holds something else than when it was screened.
    """
    noted = [task for task in tasks if CONTENT in done[task.name].facts]
    path_of = {task.name: task.path for task in noted}
    for name, content in executor.map(partial(ContentWorker, ""), noted):
        if content != done[name].facts[CONTENT]:
            raise MismatchError(
                f"{path_of[name]} holds other pairs than when it was screened: choose another folder or "
                f"remove {out}"
            )


def screen_limits(out: Path) -> Limits:
    """What bounded a screening, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=("screen",))


class ScreenWorker:
    """Screens one shard after the other."""

    def __init__(self, settings: ScreenSettings, out: Path) -> None:
        self._known: KnownBad = read_known_bad(settings.known_bad, tolerance=settings.tolerance)
        self._folder, self._laps = StageFolder(out), Laps()

    def __call__(self, task: ShardTask) -> Marker:
        """Screen one shard."""
        import polars

        self._laps.start()
        rows, failures = list[dict[str, Any]](), list[Failure]()
        with NotedShard(task.path) as shard:
            for pair in shard.pairs():
                try:
                    rows.append({**self._row(pair), "shard": shard.name})
                except BadPair as error:
                    failures.append(Failure.of(error, uid=pair.uid, key=pair.key, shard=shard.name))
            failures += shard.failures
        path = screened_file(self._folder.path, task.name)
        write_parquet(path, polars.DataFrame(rows, schema=SCHEMA))
        files = [path, write_failures(self._folder.path, task.name, failures)]
        known = sum(row["known"] is not None for row in rows)
        tally = Tally(
            seen=len(rows) + len(failures),
            quarantined=Counter({KNOWN_BAD: known} if known else {}),
            failed=Counter(failure.reason.value for failure in failures),
            seconds=self._laps.lap("screen"),
        )
        work = self._laps.work(tally.seen)
        facts = {"tally": tally.to_json(), CONTENT: shard.content, WORK_KEY: work.to_json()}
        return self._folder.commit(task.name, files=files, facts=facts)

    def _row(self, pair: Pair) -> dict[str, Any]:
        """What is told of one pair.

        Raises:
            BadPair: its picture had to be decoded, and could not be.
        """
        phash = encoded_hash(pair.image) if self._known.by_looks else None
        hit = self._known.find(pair.image, phash)
        return {
            "uid": pair.uid,
            "key": pair.key,
            "sha256": hashlib.sha256(pair.image).hexdigest(),
            "phash": phash,
            "known": hit and hit.kind,
            "listed": hit and hit.listed,
            "bits": hit and hit.bits,
        }


def screened_file(out: Path, name: str) -> Path:
    """Where one shard's table lies."""
    return out / "screened" / f"screened_{name}.parquet"


def listed_uids(folder: StageFolder) -> Iterator[list[str]]:
    """Uids of the pairs whose pictures were known, shard by shard."""
    for marker in _shard_markers(folder):
        table = read_table(screened_file(folder.path, marker.name), columns=["uid", "known"])
        yield table.filter(table["known"].is_not_null())["uid"].to_list()


def _shard_markers(folder: StageFolder) -> list[Marker]:
    return [marker for marker in folder.markers() if "tally" in marker.facts]
