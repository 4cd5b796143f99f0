"""Canaries: of the scan that they ask about, and as many found as the scan done again with them has it.

What they rest on lies in their folder: ledger, store, index and scan are checked like those of any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roclip_sanitize.canaries import require_counted
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.storage import exists
from roclip_sanitize.verification.contract import compare_input
from roclip_sanitize.whereabouts import told_folder


def verify_canaries(folder: StageFolder) -> Iterator[str]:
    """Count again. Canaries from before their scan's content was noted have no scan to compare."""
    settings, scan = folder.settings, None
    if "content" in settings:
        told, content = Path(settings["scan"]), settings["content"]
        yield compare_input("scan", told, content, stage="scan", where=folder.path)
        path = told_folder(folder.path, told, stage="scan", content=content)
        scan = StageFolder(path) if exists(path) else None
    found = require_counted(folder.path, scan)
    counts = sum(each.found for each in found), sum(each.planted for each in found)
    yield f"{counts[0]:,} of {counts[1]:,} canaries of {len(found):,} families are found, as counted"
