"""What a command that ends with 3 says: how many pairs failed, which shards are broken, where to look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roclip_sanitize.cli.session import session
from roclip_sanitize.records import FailureReason, Tally
from roclip_sanitize.remote import source_name
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.storage import exists, folders_in

BROKEN = frozenset({FailureReason.UNREADABLE_SHARD.value, FailureReason.TRUNCATED_SHARD.value})
NAMED = 3  # of broken shards, so many


def too_many(tally: Tally, *, max_failed: float) -> str:
    """Why a command whose pairs ended so has not ended well; "" if it has.

    Args:
        tally: of all its pairs.
        max_failed: the share of them that may fail. A broken shard counts whatever that is: how many pairs
            it had is not known.
    """
    share = tally.failed.total() / tally.seen if tally.seen else 0.0
    broken = sum(tally.failed[reason] for reason in BROKEN)
    if not broken and share <= max_failed:
        return ""
    allowed = f", at most {max_failed:.2%} allowed" if share > max_failed else ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.failed.most_common())
    what = [f"{tally.failed.total():,} of {tally.seen:,} failed ({share:.2%}{allowed}): {reasons}"]
    folders = listing_folders()
    if broken:
        named = [name for folder in folders for name in broken_shards(folder)]
        more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
        which = f": {', '.join(named[:NAMED])}{more}" if named else ""
        what.append(f"a broken shard always counts{which}")
    what.append(", ".join(["the rest is done", *_listed(folders)]))
    return "; ".join(what)


def listing_folders() -> list[Path]:
    """The folders that list the failures of the command that runs: its own, or where it reads them from."""
    told = session().values
    out = told.get("out") or told.get("run")
    places = [out, out / "rewrite" if out else None, told.get("store")]  # sanitize ends with a rewrite
    for place in map(Path, filter(None, places)):
        if exists(place / "failures"):
            return [place]
    cache = told.get("cache") or (out / "cache" if out else None)  # a training's: one for each set of shards
    caches = [Path(cache) / name for name in folders_in(Path(cache))] if cache else []
    return [each for each in caches if exists(each / "failures")]


def broken_shards(folder: Path) -> Iterator[str]:
    """The broken shards of a stage, by name, in order. Only the lists of parts with one are read."""
    from roclip_sanitize.artefacts import read_table

    for marker in StageFolder(folder).markers():
        if "tally" in marker.facts and BROKEN & Tally.from_json(marker.facts["tally"]).failed.keys():
            for file in marker.files:
                if file.startswith("failures/"):
                    frame = read_table(folder / file, columns=["shard", "reason"])
                    rows = frame.iter_rows(named=True)
                    yield from dict.fromkeys(row["shard"] for row in rows if row["reason"] in BROKEN)


def _listed(folders: list[Path]) -> list[str]:
    shown = " and ".join(source_name(folder / "failures") for folder in folders[:2])
    return [f"and {shown} {'lists' if len(folders) == 1 else 'list'} each one"] if shown else []
