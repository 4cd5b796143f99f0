"""What a scan found of canaries: counted, told, and counted again by whoever doubts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.attacks.ledger import Ledger, planted_file
from roclip_sanitize.canaries.planting import FAMILIES
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.scan.results import verdict_tables
from roclip_sanitize.scan.settings import BESIDE, ScanSettings
from roclip_sanitize.told import as_written

CANARIES_STAGE = "canaries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What was found of one family.

    Attributes:
        family: its name.
        planted: canaries that the scan saw.
        found: of them set aside.
        recall: their share.
        low: lower end of its 95 % interval (Wilson).
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


def recount(out: Path, attacks: Mapping[str, str]) -> list[Family]:
    """Count what canaries.json says, from the verdicts.

    Args:
        out: folder of the canaries.
        attacks: uid of each canary → its family.
    """
    seen, found = Counter[str](), Counter[str]()
    for table in verdict_tables(out / "scan", ("uid", "kept")):
        for uid, kept in zip(table["uid"], table["kept"], strict=True):
            if uid in attacks:
                seen[attacks[uid]] += 1
                found[attacks[uid]] += not kept
    return [_family(name, seen[name], found[name]) for name in FAMILIES if seen[name]]


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
    attacks = _ledger(out / "poison").poisons
    again = StageFolder.open(out / "scan", stage="scan")
    if scan is not None:
        rows = sum(marker.facts["rows"] for marker in again.markers())
        for name, wanted in settings_again(scan, canaries=len(attacks), rows=rows).items():
            if (told := again.settings.get(name)) != wanted:
                raise MismatchError(f"{again.path}: {name} is {told}, wanted {wanted} as for {scan.path}")
    found, told = recount(out, attacks), read_canaries(out)
    for family in (each for each in told if each not in found):
        raise MismatchError(
            f"{out / 'canaries.json'}: {family.found} of {family.planted} {family.family} found, but not by "
            f"the verdicts of {again.path}"
        )
    if missing := [each.family for each in found if each not in told]:
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


def _family(name: str, planted: int, found: int) -> Family:
    low, high = wilson(found, planted)
    return Family(family=name, planted=planted, found=found, recall=found / planted, low=low, high=high)
