"""One part of a rewriting, held against the scan, the store, and the shard that it was made of.

verdicts/            the scan's pairs, in its order, each where the scan and the lists would have it
failures/            what the store lists, and all that the shard itself has besides these pairs
kept/, quarantined/  tars of these pairs' blocks and of nothing else; their tables and counts made again
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.rewrite import verdict_file
from roclip_sanitize.runfiles import Marker, StageFolder, read_json
from roclip_sanitize.scan.decisions import Decisions
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.shard_writer import ShardWriter, row_of, sidecars
from roclip_sanitize.shards import Pair, Shard
from roclip_sanitize.sources import open_source, source_path, source_sha256
from roclip_sanitize.splitting import known_pairs
from roclip_sanitize.store import EmbeddingStore, failures_file, read_failures
from roclip_sanitize.verification.contract import require_equal, require_equal_counts
from roclip_sanitize.whereabouts import told_file

if TYPE_CHECKING:
    import polars

SIDES = ("kept", "quarantined")
LOOKED_AT_ONCE = 1 << 20  # bytes behind a shard's last pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """What is checked, and what it is held against.

    Attributes:
        folder: the rewriting's.
        scan: that it was made by.
        store: that the scan is of; None where it is gone.
        decisions: what the scan and the lists make of every pair.
    """

    folder: StageFolder
    scan: StageFolder
    store: EmbeddingStore | None
    decisions: Decisions

    @property
    def lists_only(self) -> bool:
        """Whether there are no shards."""
        return bool(self.folder.settings.get("lists_only"))


def verify_part(rewriting: Rewriting, marker: Marker) -> int:
    """Check one part. Returns how many usable pairs it has. Memory: its names and captions.

    Raises:
        MismatchError: what does not hold, and where.
    """
    out = rewriting.folder.path
    verdicts, failures = _verdicts(rewriting, marker), _failures(rewriting, marker)
    tally, path = Tally.from_json(marker.facts["tally"]), verdict_file(out, marker.name)
    aside = Counter(verdicts.filter(~verdicts["keep"])["reason"])
    require_equal_counts(tally.quarantined, aside, what="pairs quarantined as", where=path)
    failed, seen = Counter(failures["reason"]), len(verdicts) + len(failures)
    require_equal_counts(tally.failed, failed, what="pairs failed as", where=failures_file(out, marker.name))
    require_equal(tally.seen, seen, what="pairs seen", where=path)
    if not rewriting.lists_only:
        _verify_shard(rewriting, marker, verdicts, failures)
    return len(verdicts)


def read_verdicts(out: Path, part: str) -> polars.DataFrame:
    """What a rewriting says of one part's usable pairs: uid, keep, reason."""
    return read_table(verdict_file(out, part), columns=["uid", "keep", "reason"])


def _verdicts(rewriting: Rewriting, marker: Marker) -> polars.DataFrame:
    """The same, which must be those of the scan's pairs, as the scan and the lists make them."""
    path = verdict_file(rewriting.folder.path, marker.name)
    table, scan = read_verdicts(rewriting.folder.path, marker.name), rewriting.scan.path
    scanned = read_table(table_file(scan, "verdicts", marker.name), columns=["uid"])
    same = table["uid"].equals(scanned["uid"])
    require_equal(same, True, what=f"same pairs as part {marker.name} of {scan}", where=path)
    reasons = rewriting.decisions.reasons(table["uid"].to_list())
    for (uid, keep, reason), why in zip(table.iter_rows(), reasons, strict=True):
        told = (why is None, why.value if why else "")
        require_equal((keep, reason), told, what=f"whether {uid} is kept, and why not", where=path)
    return table


def _failures(rewriting: Rewriting, marker: Marker) -> polars.DataFrame:
    """What it lists as failed, which must be what the store lists, if that is still there."""
    out, store = rewriting.folder.path, rewriting.store
    table = read_failures(out, marker.name)
    if store is not None:
        same = table.equals(store.failures(marker.name))
        where = failures_file(out, marker.name)
        require_equal(same, True, what=f"same failures as part {marker.name} of {store.path}", where=where)
    return table


def _verify_shard(
    rewriting: Rewriting, marker: Marker, verdicts: polars.DataFrame, failures: polars.DataFrame
) -> None:
    """Read the shard along with the two that it became."""
    told, name, sha256 = (marker.facts[each] for each in ("shard", "name", "sha256"))
    path = told_file(rewriting.folder.path, source_path(told), sha256=sha256)
    require_equal(source_sha256(path), sha256, what="sha256", where=path)
    known = known_pairs(rewriting.store, marker.name) if rewriting.store else {}
    failed, left = {*zip(failures["key"], failures["uid"], strict=True)}, Counter[tuple[str, str]]()
    decided = verdicts.select("uid", "keep").iter_rows()
    with ExitStack() as opened:
        shard = opened.enter_context(Shard(path))
        sides = {side: _Side(rewriting.folder.path / side / f"{name}.tar", opened) for side in SIDES}
        for pair in shard.pairs():
            if (pair.key, pair.uid) in failed:
                left[pair.key, pair.uid] += 1
                continue
            uid, keep = next(decided, ("", False))
            if uid != pair.uid:
                raise MismatchError(
                    f"{path}: pair {pair.key} ({pair.uid}) is not among those that failed, and its place "
                    f"among the verdicts is taken by {uid or 'nothing'}"
                )
            if pair.key in known:
                known[pair.key].require_same(pair, shard=path)
            sides["kept" if keep else "quarantined"].require_next(shard, pair)
        for side in sides.values():
            side.require_end(path)
        _require_failures(shard, failures, left, where=failures_file(rewriting.folder.path, marker.name))
    require_equal(len([*decided]), 0, what="verdicts on pairs that it has not", where=path)


def _require_failures(
    shard: Shard, failures: polars.DataFrame, left: Counter[tuple[str, str]], *, where: Path
) -> None:
    """Refuse a list of failures that has others than the shard: its own, and pairs without a verdict."""
    told = Counter(failures.select("key", "uid", "reason").iter_rows())
    own = Counter((each.key, each.uid, each.reason.value) for each in shard.failures)
    others = Counter[tuple[str, str]]()
    for (key, uid, _), count in (told - own).items():
        others[key, uid] += count
    if odd := [*(own - told), *((key, uid, "no verdict") for key, uid in (left - others) | (others - left))]:
        key, uid, reason = odd[0]
        raise MismatchError(
            f"{where}: not what failed of {shard.path}: pair {key!r} ({uid or 'no uid'}), {reason}"
        )


class _Side:
    """One of the shards that a shard became: the blocks of its pairs, and nothing but zeros behind them."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._path, self._place, self._rows = path, 0, list[dict[str, Any]]()
        self._source = opened.enter_context(open_source(path))

    def require_next(self, shard: Shard, pair: Pair) -> None:
        wanted = shard.raw(pair.members)
        end = self._place + len(wanted)
        if self._source.data[self._place : end] != wanted:
            found = self._next_uid()
            if found == pair.uid:
                raise MismatchError(f"{self._path}: {pair.uid} has other bytes than in {shard.path}")
            raise MismatchError(
                f"{self._path}: pair {len(self._rows)} is {found or 'nothing'}, wanted {pair.uid} of "
                f"{shard.path}"
            )
        self._place = end
        self._rows.append(row_of(pair))

    def require_end(self, shard: Path) -> None:
        """Refuse what no reader of ours would look at, but others might; and tables of other pairs."""
        if self._source.flaw or any(block.strip(b"\0") for block in self._rest()):
            if uid := self._next_uid():
                raise MismatchError(f"{self._path}: {uid} is in no input shard, or on the wrong side")
            raise MismatchError(
                f"{self._path}: behind byte {self._place:,} is something that is no pair of {shard}"
            )
        table, counts = sidecars(self._rows)
        _, parquet, stats = ShardWriter(self._path).files
        same = read_table(parquet).equals(table)
        require_equal(same, True, what=f"what the pairs of {self._path.name} make it", where=parquet)
        require_equal(read_json(stats), counts, what="counts", where=stats)

    def _rest(self) -> Iterable[bytes]:
        data = self._source.data
        return (
            data[start : start + LOOKED_AT_ONCE] for start in range(self._place, len(data), LOOKED_AT_ONCE)
        )

    def _next_uid(self) -> str:
        """Of the next pair, if a pair is what comes next."""
        with Shard(self._path) as shard:
            here = (pair.uid for pair in shard.pairs() if pair.members[0].start >= self._place)
            return next(here, "")
