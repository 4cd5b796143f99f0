"""Lists of uids for a rewriting to heed: of screened pictures, and of pairs with the worst scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.keep_list import read_keep_list
from roclip_sanitize.scoring.stage import WORST_FILE, lists_worst, scores_file, worst_uids
from roclip_sanitize.screen import KNOWN_BAD, LISTED_FILE, listed_uids, screened_file
from roclip_sanitize.store import read_failures
from roclip_sanitize.verification.contract import require_equal, require_equal_counts


def verify_screening(folder: StageFolder) -> Iterator[str]:
    """Count what was known, and list it again. Memory: a part's table, 100 bytes of every known pair."""
    for marker in folder.markers():
        if "tally" not in marker.facts:
            continue
        tally, path = Tally.from_json(marker.facts["tally"]), screened_file(folder.path, marker.name)
        table = read_table(path, columns=["known"])["known"]
        failed = Counter(read_failures(folder.path, marker.name)["reason"])
        require_equal(tally.seen, len(table) + failed.total(), what="pairs seen", where=path)
        known = Counter({KNOWN_BAD: len(table) - table.null_count()})
        require_equal_counts(tally.quarantined, known, what="pairs quarantined as", where=path)
    yield require_list(folder.path / LISTED_FILE, listed_uids(folder), of="whose pictures are known")


def verify_scoring(folder: StageFolder) -> Iterator[str]:
    """Count the scores, and list the worst again. Memory: of every pair a score and its uid."""
    for marker in folder.markers():
        if "rows" in marker.facts:
            path = scores_file(folder.path, marker.name)
            rows = len(read_table(path, columns=["uid"]))
            require_equal(rows, marker.facts["rows"], what="scores", where=path)
    if lists_worst(folder.settings):
        yield require_list(folder.path / WORST_FILE, worst_uids(folder), of="with the worst scores")


def require_list(path: Path, wanted: Iterable[Sequence[str]], *, of: str) -> str:
    """Refuse a list of others than some uids, each once and in order.

    Raises:
        MismatchError: the first that is in one of both alone.
    """
    listed, uids = read_keep_list(path), sorted({*chain.from_iterable(wanted)})
    if listed != uids:
        odd = sorted({*listed} ^ {*uids}) or ["the order"]
        raise MismatchError(f"{path}: not the {len(uids):,} uids {of}: {odd[0]}")
    return f"{path.name} lists the {len(uids):,} uids {of}"
