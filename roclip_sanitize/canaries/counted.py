"""What a scan found of canaries: counted, told, and counted again by whoever doubts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.attacks.ledger import Ledger, planted_file
from roclip_sanitize.canaries.planting import FAMILIES
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.evaluation.intervals import counted_share, wilson
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.scan.results import verdict_tables
from roclip_sanitize.scan.settings import BESIDE, ScanSettings
from roclip_sanitize.told import as_written

CANARIES_STAGE = "canaries"
Canary: TypeAlias = tuple[str, str]
"""The family, and the uid of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What was found of one family.

    Attributes:
        family: its name.
        planted: canaries that the scan saw.
        found: of them set aside.
        recall: their share.
        low: lower end of its 95 % interval, over pictures: the canaries of one are found together, or not.
        high: upper end.
    """

    family: str
    planted: int
    found: int
    recall: float
    low: float
    high: float


def read_canaries(out: Path) -> list[Family]:
    """What was found.

    Raises:
        DataError: there are no canaries, or canaries.json holds something else.
        MismatchError: they were not counted yet.
    """
    path = StageFolder.open(out, stage=CANARIES_STAGE).path / "canaries.json"
    with as_written(path, "list of families"):
        return [Family(**told) for told in read_json(path)["families"]]


def recount(out: Path, ledger: Ledger) -> list[Family]:
    """Count what canaries.json says, from the verdicts.

    Args:
        out: folder of the canaries.
        ledger: of the canaries.
    """
    canary_of, seen, found = _canaries(ledger), Counter[Canary](), Counter[Canary]()
    for table in verdict_tables(out / "scan", ("uid", "kept")):
        for uid, kept in zip(table["uid"], table["kept"], strict=True):
            if uid in canary_of:
                seen[canary_of[uid]] += 1
                found[canary_of[uid]] += not kept
    mine = {name: sorted(canary for canary in seen if canary[0] == name) for name in FAMILIES}
    return [
        _family(name, [seen[each] for each in canaries], [found[each] for each in canaries])
        for name, canaries in mine.items()
        if canaries
    ]


def require_counted(out: Path, scan: StageFolder | None) -> list[Family]:
    """Count again, of files that are what they were when they were made.

    Args:
        out: folder of finished canaries.
        scan: the one that they ask about; None where it is gone.

    Returns:
        What was found.

    Raises:
        MismatchError: a file, the ledger, or how it was scanned again is not what it was; or canaries.json
            says something else than the verdicts.

    Memory: the ledger, and one part's verdicts.
    """
    for path in (out, out / "poison", out / "scan"):
        StageFolder(path).verify()
    ledger = _ledger(out / "poison")
    again = StageFolder.open(out / "scan", stage="scan")
    if scan is not None:
        rows = sum(marker.facts["rows"] for marker in again.markers())
        for name, wanted in settings_again(scan, canaries=len(ledger.poisons), rows=rows).items():
            if (told := again.settings.get(name)) != wanted:
                raise MismatchError(f"{again.path}: {name} is {told}, wanted {wanted} as for {scan.path}")
    found, told = recount(out, ledger), read_canaries(out)
    for family in (each for each in told if each not in found and each not in map(_as_before, found)):
        raise MismatchError(
            f"{out / 'canaries.json'}: {family.found} of {family.planted} {family.family} found, but not by "
            f"the verdicts of {again.path}"
        )
    if missing := [each.family for each in found if each.family not in {one.family for one in told}]:
        raise MismatchError(f"{out / 'canaries.json'} leaves out {', '.join(missing)}")
    return found


def settings_again(scan: StageFolder, *, canaries: int, rows: int) -> dict[str, Any]:
    """How a scan is done again with canaries: as it was, with room for them beside its budget.

    Args:
        scan: as it was.
        canaries: how many there are.
        rows: of the store with them.

    Returns:
        ScanSettings by name, as plain values; all but the stores and the index.
    """
    known = {each.name for each in fields(ScanSettings)} - {"store", "index", *BESIDE}
    same: dict[str, Any] = {name: value for name, value in scan.settings.items() if name in known}
    pairs = sum(marker.facts["rows"] for marker in scan.markers())
    allowed = scan.facts.get("allowed", same["budget"] * pairs)
    if same["budget"]:  # one that is told to rank no pair ranks no canary
        same["budget"] = min(1.0, (allowed + canaries) / rows)
    same["times_mismatched"] = 0.0  # the canaries would raise the estimate
    return same


def _ledger(poison: Path) -> Ledger:
    """A ledger that lists what each shard's table does."""
    import polars

    ledger, markers = Ledger.open(poison), StageFolder(poison).markers()
    planted = polars.concat([read_table(planted_file(poison, marker.name)) for marker in markers])
    if not ledger.frame.equals(planted.select(ledger.frame.columns)):
        raise MismatchError(f"{poison / 'ledger.parquet'} is not what was planted: it has changed")
    return ledger


def _canaries(ledger: Ledger) -> dict[str, Canary]:
    """By uid. A picture that stands under several captions, or in several copies, is one."""
    told = ledger.frame.filter(~ledger.frame["cover"]).select("uid", "attack", "picture_uid")
    return {uid: (family, picture or uid) for uid, family, picture in told.iter_rows()}


def _family(name: str, seen: Sequence[int], found: Sequence[int]) -> Family:
    """Of each picture's canaries: how many were seen, and found."""
    low, high = counted_share(np.array(found), np.array(seen))
    planted, set_aside = sum(seen), sum(found)
    recall = set_aside / planted
    return Family(family=name, planted=planted, found=set_aside, recall=recall, low=low, high=high)


def _as_before(family: Family) -> Family:
    """As canaries told it when each stood for a picture of its own."""
    low, high = wilson(family.found, family.planted)
    return replace(family, low=low, high=high)
