"""Indexes: of what their store still holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roclip_sanitize.index_plan import CONTENT
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.verification.contract import compare_input


def verify_index(folder: StageFolder) -> Iterator[str]:
    """Compare its store with what that held. An index from before this was noted has nothing to compare."""
    told = folder.settings
    if CONTENT in told:
        yield compare_input("store", Path(told["store"]), told[CONTENT], stage="embed", where=folder.path)
