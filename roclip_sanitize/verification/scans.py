"""Scans: scores and verdicts of the same pairs, reasons counted again, and the budget kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.verification.contract import require_equal, require_equal_counts

if TYPE_CHECKING:
    import polars

COUNTED = frozenset({Reason.MANY_CAPTIONS_ONE_PICTURE.value, Reason.MANY_PICTURES_ONE_CAPTION.value})


def verify_scan(folder: StageFolder) -> Iterator[str]:
    """Check every part. Memory: one part's tables."""
    rows = flagged = by_budget = 0
    for marker in folder.markers():
        verdicts = _verdicts(folder, marker)
        reasons = [text.split(";") if text else [] for text in verdicts["reasons"]]
        wrong = [kept == bool(each) for kept, each in zip(verdicts["kept"], reasons, strict=True)]
        require_equal(sum(wrong), 0, what="verdicts at odds with their reasons", where=folder.path)
        _require_counts(folder, marker, reasons)
        rows += len(verdicts)
        flagged += sum(map(bool, reasons))
        by_budget += sum(bool(each) and COUNTED.isdisjoint(each) for each in reasons)
    yield f"{rows:,} verdicts go with the scores of the same pairs; {flagged:,} have reasons, as counted"
    budget = folder.settings["budget"]
    allowed = math.floor(budget * rows + 1e-9)
    if by_budget > allowed:
        require_equal(
            by_budget, f"{allowed} or fewer", what="pairs set aside by the budget", where=folder.path
        )
    yield f"{by_budget:,} pairs were set aside by the budget of {budget:.1%}, which allows {allowed:,}"


def _verdicts(folder: StageFolder, marker: Marker) -> polars.DataFrame:
    import polars

    scores, verdicts = (table_file(folder.path, what, marker.name) for what in ("scores", "verdicts"))
    frame = polars.read_parquet(verdicts, columns=["uid", "kept", "reasons"])
    require_equal(len(frame), marker.facts["rows"], what="verdicts", where=verdicts)
    same = polars.read_parquet(scores, columns=["uid"])["uid"].equals(frame["uid"])
    require_equal(same, True, what=f"same pairs as {verdicts.name}", where=scores)
    return frame


def _require_counts(folder: StageFolder, marker: Marker, reasons: list[list[str]]) -> None:
    where = folder.path
    counted = Counter(reason for each in reasons for reason in each)
    require_equal_counts(marker.facts["reasons"], counted, what="reason", where=where)
    first = Counter(each[0] for each in reasons if each)
    told = Tally.from_json(marker.facts["tally"]).quarantined
    require_equal_counts(told, first, what="pairs quarantined as", where=where)
