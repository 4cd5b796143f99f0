"""Shards and verdicts → shards to train on, shards set aside, keep-list, manifest: the ``rewrite`` stage.

    kept/NAME.tar          the pairs to train on, each member byte for byte as it was
    quarantined/NAME.tar   the flagged ones, likewise; both with their parquet and stats
    failures/              pairs that could not be used, by shard
    keep.npy               uids kept, sorted, as DataComp's tools read them
    verdicts/              uid, keep, reason: every usable pair, by shard and in its order
    manifest.json          what was read, what was written, sha256 of both, and the counts

A uid that is flagged anywhere is quarantined everywhere. Nothing disappears: the pairs seen are
those kept, quarantined and failed, or the stage stops. Lists that others made may say of more pairs that
they are to be dropped, or that no others are to be kept. Whoever wants lists alone, for DataComp's
resharder or because the shards are far away, gets all of this but the shards, which are not read then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import WORK_KEY, Laps, Limits
from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.runfiles import Marker, StageFolder, sha256_of, write_json
from roclip_sanitize.scan.decisions import Decisions, Lists, write_decisions
from roclip_sanitize.scan.keep_list import read_keep_list, write_keep_list
from roclip_sanitize.scan.settings import scanned_store
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard
from roclip_sanitize.sources import source_sha256, source_stem
from roclip_sanitize.splitting import Expected, copy_pairs, known_pairs
from roclip_sanitize.store import EmbeddingStore, failures_file, write_parquet
from roclip_sanitize.whereabouts import store_of

if TYPE_CHECKING:
    import polars

STEPS = ("look up", "copy", "write", "hash")

__all__ = [
    "Lists",
    "RewriteSettings",
    "kept_shards",
    "quarantined_shards",
    "read_keep_list",
    "rewrite_limits",
    "rewrite_shards",
    "verdict_file",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteSettings:
    """What to rewrite.

    Attributes:
        store: the embedding store, which knows its shards.
        verdicts: the scan of that store.
        lists: of uids, that say of more pairs what becomes of them.
        lists_only: whether no shards are written, nor read.
    """

    store: Path
    verdicts: Path
    lists: Lists = field(default_factory=Lists)
    lists_only: bool = False

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the bytes; what is not asked for is not part of it.

        Raises:
            DataError: there is no scan, or no such list.
        """
        told = {
            "store": str(self.store),
            "verdicts": str(self.verdicts),
            "content": StageFolder.open(self.verdicts, stage="scan").content,
        }
        lists = {name: hashes for name, hashes in self.lists.hashes().items() if hashes}
        return {
            **told,
            **({"lists": lists} if lists else {}),
            **({"lists_only": True} if self.lists_only else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteTask:
    """One shard to split.

    Attributes:
        part: the store part made from it.
        shard: where it lies.
        name: stem of the shards it becomes.
    """

    part: str
    shard: Path
    name: str


def rewrite_shards(settings: RewriteSettings, *, out: Path, executor: Executor) -> Tally:
    """Split every shard of a store into what is kept and what is set aside.

    Returns:
        Pairs seen, quarantined by their first reason, and failed.

    Raises:
        DataError: there is no store or no scan, or a list holds anything but uids.
        MismatchError: the scan is of another store, or of what this one held once; or a shard has changed
            since it was embedded.
        ShardMissing: a shard of the store is gone.
        StorageError: the disk is full.

    Memory: of the driver one shard's verdicts, and a few kilobytes per shard for the manifest; of a
    worker its shard's names and captions. Both hold 17 bytes per flagged pair.
    """
    scan = StageFolder.open(settings.verdicts, stage="scan")
    if store_of(scan).resolve() != settings.store.resolve():
        raise MismatchError(
            f"{scan.path} is a scan of {scan.settings['store']}, wanted one of {settings.store}"
        )
    store = scanned_store(scan)
    folder = StageFolder.create(out, stage="rewrite", settings=settings.to_json())
    if folder.finished:
        return Tally.from_json(folder.facts["tally"])
    if folder.marker("flagged") is None:
        folder.commit("flagged", files=write_decisions(settings.verdicts, settings.lists, out), facts={})
    tasks = [task for task in _tasks(store) if folder.marker(task.part) is None]
    for _ in executor.map(partial(RewriteWorker, settings.store, out, settings.lists_only), tasks):
        pass
    return _finish(folder)


def rewrite_limits(out: Path) -> Limits:
    """What bounded a rewriting, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=STEPS)


def kept_shards(out: Path) -> list[Path]:
    """The shards to train on, in order; those that kept no pair are left out.

    Raises:
        MismatchError: lists are all that was written.
    """
    return _shards(out, "kept")


def quarantined_shards(out: Path) -> list[Path]:
    """The shards set aside, in order; those of which nothing was set aside are left out."""
    return _shards(out, "quarantined")


class RewriteWorker:
    """Splits one shard after the other, or lists what would become of it."""

    def __init__(self, store: Path, out: Path, lists_only: bool = False) -> None:
        self._store, self._lists_only = EmbeddingStore.open(store), lists_only
        self._folder = StageFolder(out)
        self._decisions = Decisions.open(out)
        self._laps = Laps()

    def __call__(self, task: RewriteTask) -> Marker:
        """Split one shard."""
        laps, out = self._laps, self._folder.path
        laps.start()
        known = known_pairs(self._store, task.part)
        uids = [pair.uid for pair in known.values()]
        reasons = self._decisions.reasons(uids)
        failures = self._store.failures(task.part)
        expected = dict(zip(known, zip(known.values(), reasons, strict=True), strict=True))
        laps.lap("look up")
        files = [] if self._lists_only else self._split(task, expected, failed=len(failures))
        files += [failures_file(out, task.part), verdict_file(out, task.part)]
        write_parquet(files[-2], failures)
        write_parquet(files[-1], _verdict_table(uids, reasons))
        laps.lap("write")
        digest = None if self._lists_only else source_sha256(task.shard)
        laps.lap("hash")
        seen = len(reasons) + len(failures)
        work = laps.work(seen)
        tally = Tally(
            seen=seen,
            quarantined=Counter(reason.value for reason in reasons if reason),
            failed=Counter(failures["reason"].to_list()),
            seconds=work.wall,
        )
        facts = {
            "name": task.name,
            "shard": str(task.shard),
            "sha256": digest,
            "tally": tally.to_json(),
            WORK_KEY: work.to_json(),
        }
        marker = self._folder.commit(task.part, files=files, facts=facts)
        laps.lap("hash")
        return marker

    def _split(self, task: RewriteTask, expected: Expected, *, failed: int) -> list[Path]:
        kept = ShardWriter(self._folder.path / "kept" / f"{task.name}.tar")
        quarantined = ShardWriter(self._folder.path / "quarantined" / f"{task.name}.tar")
        with Shard(task.shard) as shard, kept, quarantined:
            found = copy_pairs(shard, expected, kept=kept, quarantined=quarantined)
            if found != (len(expected), failed):
                raise MismatchError(
                    f"{task.shard} has {found[0]} usable and {found[1]} failed pairs, the store has "
                    f"{len(expected)} and {failed} of it: the shard has changed, embed it again"
                )
            self._laps.lap("copy")
        return [*kept.files, *quarantined.files]


def _tasks(store: EmbeddingStore) -> list[RewriteTask]:
    """Shards keep their file names, unless two of the store's share one: then all are numbered."""
    shards = [Path(shard) for shard in store.shards]
    stems = [source_stem(shard) for shard in shards]
    unique = len(set(stems)) == len(stems)
    return [
        RewriteTask(part=part.name, shard=shard, name=stem if unique else part.name)
        for part, shard, stem in zip(store.parts, shards, stems, strict=True)
    ]


def verdict_file(out: Path, part: str) -> Path:
    """Where one shard's verdicts lie: uid, keep, reason of its usable pairs, in its order."""
    return out / "verdicts" / f"verdicts_{part}.parquet"


def _verdict_table(uids: Sequence[str], reasons: Sequence[Reason | None]) -> polars.DataFrame:
    import polars

    columns: dict[str, list[Any]] = {
        "uid": list(uids),
        "keep": [reason is None for reason in reasons],
        "reason": [reason.value if reason else "" for reason in reasons],
    }
    return polars.DataFrame(
        columns, schema={"uid": polars.String, "keep": polars.Boolean, "reason": polars.String}
    )


def _finish(folder: StageFolder) -> Tally:
    out, markers = folder.path, _shard_markers(folder)
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in markers)
    write_keep_list(out / "keep.npy", (_kept_uids(out, marker) for marker in markers))
    outputs = {name: digest for marker in markers for name, digest in marker.files.items()}
    outputs["keep.npy"] = sha256_of(out / "keep.npy")
    counts = {name: value for name, value in tally.to_json().items() if name != "seconds"}
    inputs = {marker.facts["shard"]: marker.facts["sha256"] for marker in markers}
    write_json(out / "manifest.json", {"inputs": inputs, "outputs": outputs, "counts": counts})
    folder.finish({"tally": tally.to_json()})
    return tally


def _kept_uids(out: Path, marker: Marker) -> list[str]:
    """What was kept of one shard.

    Raises:
        MismatchError: pairs got lost: those seen are not those kept, quarantined and failed.
    """
    table = read_table(verdict_file(out, marker.name))
    uids: list[str] = table.filter(table["keep"])["uid"].to_list()
    tally, quarantined = Tally.from_json(marker.facts["tally"]), len(table) - len(uids)
    if (tally.kept, tally.quarantined.total()) != (len(uids), quarantined):
        raise MismatchError(
            f"{tally.seen} pairs of {marker.facts['shard']} seen and {tally.failed.total()} failed, but "
            f"{len(uids)} kept and {quarantined} quarantined"
        )
    return uids


def _shards(out: Path, side: str) -> list[Path]:
    """One side's shards that hold a pair: some readers take an empty shard for a broken one."""
    found, folder = [], StageFolder.open(out, stage="rewrite")
    if folder.settings.get("lists_only"):
        raise MismatchError(f"{out} holds lists alone: rewrite without --lists-only for shards")
    for marker in _shard_markers(folder):
        tally = Tally.from_json(marker.facts["tally"])
        if tally.kept if side == "kept" else tally.quarantined.total():
            found.append(out / side / f"{marker.facts['name']}.tar")
    return found


def _shard_markers(folder: StageFolder) -> list[Marker]:
    return [marker for marker in folder.markers() if "tally" in marker.facts]
