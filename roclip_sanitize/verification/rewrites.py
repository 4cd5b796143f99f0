"""Rewritten shards: every pair of the input is on the side that its scan says, byte for byte and in order.

The input shards are read again. What is not among kept and quarantined pairs is counted, and must be what
failed: so seen = kept + quarantined + failed holds of the bytes, not of a tally alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.rewrite import read_keep_list, verdict_file
from roclip_sanitize.runfiles import Marker, StageFolder, read_json, sha256_of
from roclip_sanitize.scan.decisions import Decisions, Lists, write_decisions
from roclip_sanitize.shards import Pair, Shard
from roclip_sanitize.sources import source_path, source_sha256
from roclip_sanitize.splitting import known_pairs
from roclip_sanitize.storage import exists, names_in
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.verification.contract import compare_input, require_equal, require_equal_counts

if TYPE_CHECKING:
    import polars

SIDES = ("kept", "quarantined")


def verify_rewrite(folder: StageFolder) -> Iterator[str]:
    """Check every shard, the keep-list and the manifest.

    Memory: of one shard its names and captions, 17 bytes of every flagged uid, and 200 of every pair that was
    kept.
    """
    scan = StageFolder.open(Path(folder.settings["verdicts"]), stage="scan")
    require_equal(
        scan.content,
        folder.settings["content"],
        what=f"content since {folder.path} was made",
        where=scan.path,
    )
    if content := scan.settings.get("store_content"):
        yield compare_input("store", Path(scan.settings["store"]), content, stage="embed", where=scan.path)
    markers = [marker for marker in folder.markers() if "tally" in marker.facts]
    _require_all_parts(folder, markers, scan)
    _require_known_files(folder, markers)
    wanters = " and ".join([str(scan.path), *_lists(folder).paths])
    failed = sum(Tally.from_json(marker.facts["tally"]).failed.total() for marker in markers)
    lists_only = bool(folder.settings.get("lists_only"))
    with TemporaryDirectory(prefix="roclip-") as again:
        write_decisions(scan.path, _lists(folder), Path(again))
        decisions = Decisions.open(Path(again))
        store = _store(folder)
        verify_one = _verify_list if lists_only else partial(_verify_shard, store=store)
        pairs = sum(verify_one(folder.path, marker, decisions) for marker in markers)
    of_shards = f"{pairs:,} pairs of {len(markers):,} input shards"
    if lists_only:
        yield f"{of_shards} are listed as {wanters} would have them"
    else:
        yield f"{of_shards} are where {wanters} would have them, byte for byte"
        yield f"the other {failed:,} pairs of the input shards are those that failed"
    kept = sorted({*chain.from_iterable(_kept(folder.path, marker) for marker in markers)})
    listed = read_keep_list(folder.path / "keep.npy")
    if listed != kept:
        odd = sorted({*listed} ^ {*kept}) or ["the order"]
        raise MismatchError(
            f"{folder.path / 'keep.npy'}: not the {len(kept):,} uids that were kept: {odd[0]}"
        )
    yield f"keep.npy lists the {len(kept):,} uids that were kept"
    yield _verify_manifest(folder, markers)


def _require_all_parts(folder: StageFolder, markers: list[Marker], scan: StageFolder) -> None:
    """Refuse a rewriting that lacks a part of the scan's store, or has one that it has not."""
    parts = {marker.name for marker in scan.markers()}
    if odd := sorted(parts ^ {marker.name for marker in markers}):
        raise MismatchError(
            f"{folder.path} and {scan.path} have not the same parts: {odd[0]} is in one of them"
        )


def _require_known_files(folder: StageFolder, markers: list[Marker]) -> None:
    """Refuse a file beside the shards that nobody wrote: whoever reads the folder would take it for one."""
    known = {name for marker in markers for name in marker.files}
    for side in SIDES:
        for name in names_in(folder.path / side):
            if f"{side}/{name}" not in known:
                raise MismatchError(f"{folder.path / side / name} was made of no input shard")


def _lists(folder: StageFolder) -> Lists:
    """Those that the rewriting was given, unchanged."""
    told = folder.settings.get("lists", {})
    lists = Lists(**{name: tuple(map(Path, hashes)) for name, hashes in told.items()})
    for name, hashes in lists.hashes().items():
        require_equal(hashes, told.get(name, {}), what="sha256 of lists of uids", where=folder.path)
    return lists


def _store(folder: StageFolder) -> EmbeddingStore | None:
    """The store that knew the pairs, if it is still there."""
    path = Path(folder.settings["store"])
    return EmbeddingStore.open(path) if exists(path) else None


def _verify_list(out: Path, marker: Marker, decisions: Decisions) -> int:
    """Compare one shard's table, where there are no shards. Returns how many pairs it has."""
    path = verdict_file(out, marker.name)
    wanted, tally = _wanted(path, decisions), Tally.from_json(marker.facts["tally"])
    require_equal(tally.seen, len(wanted) + tally.failed.total(), what="pairs seen", where=path)
    require_equal(tally.kept, sum(wanted.values()), what="pairs kept", where=path)
    return len(wanted)


def _verify_shard(out: Path, marker: Marker, decisions: Decisions, *, store: EmbeddingStore | None) -> int:
    """Returns how many pairs were compared; where there is a store, also with what was embedded."""
    path, name = source_path(marker.facts["shard"]), marker.facts["name"]
    require_equal(source_sha256(path), marker.facts["sha256"], what="sha256", where=path)
    wanted = _wanted(verdict_file(out, marker.name), decisions)
    known = known_pairs(store, marker.name) if store else {}
    tally, compared, left = Tally.from_json(marker.facts["tally"]), 0, 0
    with ExitStack() as opened:
        shard = opened.enter_context(Shard(path))
        sides = {side: _Side(out / side / f"{name}.tar", opened) for side in SIDES}
        for pair in shard.pairs():
            if pair.uid in wanted:
                if pair.key in known:
                    known[pair.key].require_same(pair, shard=path)
                sides["kept" if wanted[pair.uid] else "quarantined"].require_next(shard, pair)
                compared += 1
            else:
                left += 1
        for side, count in (("kept", tally.kept), ("quarantined", tally.quarantined.total())):
            sides[side].require_end(count)
        require_equal(left + len(shard.failures), tally.failed.total(), what="pairs that failed", where=path)
    require_equal(tally.seen, compared + tally.failed.total(), what="pairs seen", where=path)
    return compared


def _wanted(path: Path, decisions: Decisions) -> dict[str, bool]:
    """Which pairs of a shard were to be kept, as its table has it and the scan and lists say."""
    table = _table(path)
    wanted = dict(zip(table["uid"], table["keep"], strict=True))
    require_equal(len(wanted), len(table), what="distinct uids", where=path)
    for (uid, keep, reason), why in zip(
        table.iter_rows(), decisions.reasons(table["uid"].to_list()), strict=True
    ):
        told = (why is None, why.value if why else "")
        require_equal((keep, reason), told, what=f"whether {uid} is kept, and why not", where=path)
    return wanted


class _Side:
    """One of the shards that a shard became, read along with it."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._path, self._count = path, 0
        self._shard = opened.enter_context(Shard(path))
        self._pairs = self._shard.pairs()

    def require_next(self, shard: Shard, pair: Pair) -> None:
        mine = next(self._pairs, None)
        if mine is None or mine.uid != pair.uid:
            found = mine.uid if mine else "nothing"
            raise MismatchError(
                f"{self._path}: pair {self._count} is {found}, wanted {pair.uid} of {shard.path}"
            )
        if self._shard.raw(mine.members) != shard.raw(pair.members):
            raise MismatchError(f"{self._path}: {pair.uid} has other bytes than in {shard.path}")
        self._count += 1

    def require_end(self, count: int) -> None:
        require_equal(self._count, count, what="pairs", where=self._path)
        if more := next(self._pairs, None):
            raise MismatchError(f"{self._path}: {more.uid} is in no input shard, or on the wrong side")


def _table(path: Path) -> polars.DataFrame:
    return read_table(path, columns=["uid", "keep", "reason"])


def _kept(out: Path, marker: Marker) -> list[str]:
    table = _table(verdict_file(out, marker.name))
    uids: list[str] = table.filter(table["keep"])["uid"].to_list()
    return uids


def _verify_manifest(folder: StageFolder, markers: list[Marker]) -> str:
    path = folder.path / "manifest.json"
    manifest = read_json(path)
    inputs = {marker.facts["shard"]: marker.facts["sha256"] for marker in markers}
    require_equal(manifest["inputs"], inputs, what="input shards", where=path)
    outputs = {name: digest for marker in markers for name, digest in marker.files.items()}
    outputs["keep.npy"] = sha256_of(folder.path / "keep.npy")
    for name in sorted({*outputs, *manifest["outputs"]}):
        require_equal(manifest["outputs"].get(name), outputs.get(name), what=f"sha256 of {name}", where=path)
    counts = {name: value for name, value in folder.facts["tally"].items() if name != "seconds"}
    for name in ("seen", "kept"):
        require_equal(manifest["counts"].get(name), counts.get(name), what=name, where=path)
    for name in ("quarantined", "failed"):
        require_equal_counts(manifest["counts"][name], counts[name], what=name, where=path)
    return f"manifest.json names {len(inputs):,} inputs and {len(outputs):,} outputs by their sha256"
