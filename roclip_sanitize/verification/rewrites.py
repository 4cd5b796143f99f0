"""Rewritten shards: every pair of the input is on the side that its scan says, byte for byte and in order.

The input shards are read again, see rewritten.py. What is not among kept and quarantined pairs must be what
failed, pair by pair: so seen = kept + quarantined + failed holds of the bytes, not of a tally alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import STAGE_FILE, Marker, StageFolder, read_told, sha256_of
from roclip_sanitize.scan.decisions import Decisions, Lists, write_decisions
from roclip_sanitize.storage import exists, names_in
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.told import as_written
from roclip_sanitize.verification.contract import compare_input, require_equal
from roclip_sanitize.verification.lists import require_list
from roclip_sanitize.verification.rewritten import SIDES, Rewriting, read_verdicts, verify_part
from roclip_sanitize.whereabouts import store_of, told_file, told_folder


def verify_rewrite(folder: StageFolder) -> Iterator[str]:
    """Check every shard, the keep-list and the manifest.

    Memory: of one shard its names and captions, 17 bytes of every flagged uid, and 200 of every pair that was
    kept.
    """
    told, content = folder.settings["verdicts"], folder.settings["content"]
    scan = StageFolder.open(told_folder(folder.path, told, stage="scan", content=content), stage="scan")
    require_equal(scan.content, content, what=f"content since {folder.path} was made", where=scan.path)
    if content := scan.settings.get("store_content"):
        yield compare_input("store", Path(scan.settings["store"]), content, stage="embed", where=scan.path)
    markers = [marker for marker in folder.markers() if "tally" in marker.facts]
    _require_all_parts(folder, markers, scan)
    _require_known_files(folder, markers)
    lists = _lists(folder)
    wanters = " and ".join([str(scan.path), *lists.paths])
    failed = sum(Tally.from_json(marker.facts["tally"]).failed.total() for marker in markers)
    with TemporaryDirectory(prefix="roclip-") as again:
        write_decisions(scan.path, lists, Path(again))
        decisions = Decisions.open(Path(again))
        rewriting = Rewriting(folder=folder, scan=scan, store=_store(scan), decisions=decisions)
        pairs = sum(verify_part(rewriting, marker) for marker in markers)
    of_shards = f"{pairs:,} pairs of {len(markers):,} input shards"
    if rewriting.lists_only:
        yield f"{of_shards} are listed as {wanters} would have them"
    else:
        yield f"{of_shards} are where {wanters} would have them, byte for byte"
        yield f"the other {failed:,} pairs of the input shards are those that failed"
    kept = (_kept(folder.path, marker) for marker in markers)
    yield require_list(folder.path / "keep.npy", kept, of="that were kept")
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
    for inner in (*SIDES, "verdicts", "failures"):
        for name in names_in(folder.path / inner):
            if f"{inner}/{name}" not in known:
                raise MismatchError(f"{folder.path / inner / name} was made of no input shard")


def _lists(folder: StageFolder) -> Lists:
    """Those that the rewriting was given, unchanged."""
    told = folder.settings.get("lists", {})
    with as_written(folder.path / STAGE_FILE, "setting of a rewriting"):
        found = {
            name: tuple(told_file(folder.path, path, sha256=sha256) for path, sha256 in hashes.items())
            for name, hashes in told.items()
        }
        lists = Lists(**found)
    for name, hashes in lists.hashes().items():
        wanted = list(told.get(name, {}).values())
        require_equal(list(hashes.values()), wanted, what="sha256 of lists of uids", where=folder.path)
    return lists


def _store(scan: StageFolder) -> EmbeddingStore | None:
    """The store that knew the pairs, if it is still there."""
    path = store_of(scan)
    return EmbeddingStore.open(path) if exists(path) else None


def _kept(out: Path, marker: Marker) -> list[str]:
    table = read_verdicts(out, marker.name)
    uids: list[str] = table.filter(table["keep"])["uid"].to_list()
    return uids


def _verify_manifest(folder: StageFolder, markers: list[Marker]) -> str:
    path = folder.path / "manifest.json"
    manifest = read_told(path)
    inputs = {marker.facts["shard"]: marker.facts["sha256"] for marker in markers}
    outputs = {name: digest for marker in markers for name, digest in marker.files.items()}
    outputs["keep.npy"] = sha256_of(folder.path / "keep.npy")
    counts = {name: value for name, value in folder.facts["tally"].items() if name != "seconds"}
    require_equal(sorted(manifest), ["counts", "inputs", "outputs"], what="names in it", where=path)
    require_equal(manifest["inputs"], inputs, what="input shards", where=path)
    with as_written(path, "manifest"):
        for name in sorted({*outputs, *manifest["outputs"]}):
            found = manifest["outputs"].get(name)
            require_equal(found, outputs.get(name), what=f"sha256 of {name}", where=path)
        require_equal(manifest["counts"], counts, what="counts", where=path)
    return f"manifest.json names {len(inputs):,} inputs and {len(outputs):,} outputs by their sha256"
