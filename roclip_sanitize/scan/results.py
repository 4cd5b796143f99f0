"""What a finished scan says: its tables, part by part or whole, and what it counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.limits import Limits
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.judging import table_file

if TYPE_CHECKING:
    import polars

VERDICT_COLUMNS = ("uid", "kept", "reasons", "sentence", "neighbours")
STEPS = ("labels", "columns", "cross", "traces", "search", "evidence", "score", "judge")


def scan_limits(out: Path) -> Limits:
    """What bounded a finished scan, over all runs that it took. The rates are of pairs judged."""
    folder, work = StageFolder(out), StageFolder(out / "work")
    facts = [marker.facts for marker in (*folder.markers(), *work.markers())]
    return Limits.noted([*facts, folder.facts], order=STEPS)


def mismatched_share(out: Path) -> float | None:
    """What a finished scan estimates of pairs that do not belong together; None where it cannot."""
    share: float | None = StageFolder.open(out, stage="scan").facts.get("strangers", {}).get("share")
    return share


def spared_pairs(out: Path) -> int:
    """How many pairs a finished scan kept since their label had lost its share, see long_tail.py."""
    spared: int = StageFolder.open(out, stage="scan").facts.get("spared", 0)
    return spared


def findings(out: Path) -> dict[str, Any]:
    """What a finished scan found beside its verdicts, in the words of its command.

    Returns:
        "estimated_mismatch": see mismatched_share(), where it can tell; "traces", where there are some, by
        "word": "pairs" that carry one, and its "gap", see traces.py; "spared_by_label", if told labels.
    """
    scan = StageFolder.open(out, stage="scan")
    found: dict[str, Any] = {}
    if (share := mismatched_share(out)) is not None:
        found["estimated_mismatch"] = share
    if traces := scan.facts.get("traces"):
        found["traces"] = traces
    if scan.settings.get("label"):
        found["spared_by_label"] = spared_pairs(out)
    return found


def verdict_tables(out: Path, columns: Sequence[str] = VERDICT_COLUMNS) -> Iterator[polars.DataFrame]:
    """The verdicts of a finished scan, one part's table at a time. Memory: that of one part."""
    for marker in StageFolder.open(out, stage="scan").markers():
        yield read_table(table_file(out, "verdicts", marker.name), columns=list(columns))


def score_tables(out: Path, columns: Sequence[str]) -> Iterator[polars.DataFrame]:
    """Some scores of a finished scan, one part's table at a time. Memory: that of one part."""
    for marker in StageFolder.open(out, stage="scan").markers():
        yield read_table(table_file(out, "scores", marker.name), columns=list(columns))


def read_verdicts(out: Path) -> polars.DataFrame:
    """All verdicts of a finished scan: uid, kept, reasons, sentence, neighbours; lists joined by ";".

    Memory: 100 bytes a pair, and more of those that are flagged; see verdict_tables().
    """
    return _read_tables(out, "verdicts")


def read_scores(out: Path) -> polars.DataFrame:
    """All scores of a finished scan.

    ``suspicion`` orders all pairs, 1 for those that collide; ``cross_prediction`` and ``agreement`` are the
    suspicions that it is made of, null where there is none. Older scans lack some of these columns.
    """
    return _read_tables(out, "scores")


def _read_tables(out: Path, what: str) -> polars.DataFrame:
    import polars

    folder = StageFolder.open(out, stage="scan")
    return polars.concat([read_table(table_file(out, what, marker.name)) for marker in folder.markers()])
