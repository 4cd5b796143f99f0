"""What became of every pair where the shards were rewritten: not always what the scan says of it alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.rewrite import verdict_file
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.results import verdict_tables
from roclip_sanitize.store import failures_file


def as_rewritten(rewritten: Path, scan: Path) -> dict[str, Any]:
    """Count kept, quarantined and failed pairs.

    Args:
        rewritten: folder of the rewritten shards.
        scan: that they were rewritten by.

    Returns:
        "seen", "kept", "quarantined" and "failed" as of the scan; "beside_the_scan": pairs that it keeps and
        that were set aside, for another pair with their uid or by a list.

    Raises:
        MismatchError: the rewriting has other pairs than the scan.

    Memory: one part's tables.
    """
    kept, beside, quarantined, failed = 0, 0, Counter[str](), Counter[str]()
    markers = [marker for marker in StageFolder(rewritten).markers() if "tally" in marker.facts]
    parts = {marker.name for marker in StageFolder(scan).markers()}
    if odd := sorted(parts ^ {marker.name for marker in markers}):
        raise MismatchError(f"{rewritten} and {scan} have not the same parts: {odd[0]} is in one of them")
    for marker, scanned in zip(markers, verdict_tables(scan, ("uid", "kept")), strict=True):
        table = read_table(verdict_file(rewritten, marker.name), columns=["uid", "keep", "reason"])
        if not table["uid"].equals(scanned["uid"]):
            raise MismatchError(f"part {marker.name} of {rewritten} has other pairs than {scan}")
        kept += int(table["keep"].sum())
        beside += int((scanned["kept"] & ~table["keep"]).sum())
        quarantined.update(table.filter(~table["keep"])["reason"])
        failed.update(read_table(failures_file(rewritten, marker.name), columns=["reason"])["reason"])
    return {
        "seen": kept + quarantined.total() + failed.total(),
        "kept": kept,
        "quarantined": dict(sorted(quarantined.items())),
        "failed": dict(sorted(failed.items())),
        "beside_the_scan": beside,
    }
