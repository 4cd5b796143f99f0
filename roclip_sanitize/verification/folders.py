"""Any folder that a command made, and those in it, stage by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.canaries import CANARIES_STAGE
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import STAGE_FILE, Marker, StageFolder, read_told
from roclip_sanitize.storage import exists, folders_in
from roclip_sanitize.store import failures_file
from roclip_sanitize.verification.audits import verify_audit
from roclip_sanitize.verification.canaries import verify_canaries
from roclip_sanitize.verification.contract import Check, require_equal, require_equal_counts
from roclip_sanitize.verification.indexes import verify_index
from roclip_sanitize.verification.lists import verify_scoring, verify_screening
from roclip_sanitize.verification.rewrites import verify_rewrite
from roclip_sanitize.verification.scans import verify_scan
from roclip_sanitize.verification.stores import verify_store
from roclip_sanitize.verification.trainings import verify_training

STAGES: dict[str, Callable[[StageFolder], Iterator[str]]] = {
    "embed": verify_store,
    "index": verify_index,
    "scan": verify_scan,
    "rewrite": verify_rewrite,
    "screen": verify_screening,
    "score": verify_scoring,
    "train": verify_training,
    CANARIES_STAGE: verify_canaries,
    "audit": verify_audit,
}

LOOP = (
    "corpus",
    "poison",
    "embed",
    "index",
    "match",
    "pair",
    "scan",
    "rewrite",
    "train",
    "evaluate",
    CANARIES_STAGE,
    "audit",
)


def verify_folder(path: Path) -> Iterator[Check]:
    """Check a stage's folder, or all stages' folders under one, in the order of the loop.

    Yields:
        What holds, check by check.

    Raises:
        DataError: no command made it.
        MismatchError: something does not hold: what, and where.

    Memory: one shard's tables, and what each stage's module says.
    """
    folders = sorted(stage_folders(path), key=_place_in_loop)
    if not folders:
        raise DataError(f"{path} is no folder that a command made: there is no stage.json in it")
    for each in folders:
        folder = StageFolder(each)
        for what in _checks(folder):
            yield Check(where=each, what=what)


def stage_folders(path: Path) -> Iterator[Path]:
    """The folders of stages at or under a path. What a stage makes for itself in its own is left out.

    But for canaries: what they are counted from are stages like any other.
    """
    if exists(path / "stage.json"):
        yield path
        if stage_of(path) != CANARIES_STAGE:
            return
    for name in folders_in(path):
        yield from stage_folders(path / name)


def stage_of(folder: Path) -> str:
    """Which stage made a folder. Raises DataError: its stage.json does not tell."""
    return str(read_told(folder / STAGE_FILE)["stage"])


def _place_in_loop(folder: Path) -> tuple[int, tuple[str, ...]]:
    """What a stage rests on comes before it, so that the first thing that does not hold is the cause."""
    stage = stage_of(folder)
    return LOOP.index(stage) if stage in LOOP else len(LOOP), folder.parts


def _checks(folder: StageFolder) -> Iterator[str]:
    stage = stage_of(folder.path)
    if not folder.finished:
        raise MismatchError(f"{folder.path} is unfinished: run 'roclip {stage}' again to complete it")
    yield from _verify_markers(folder)
    if stage in STAGES:
        yield from STAGES[stage](folder)


def _verify_markers(folder: StageFolder) -> Iterator[str]:
    markers = folder.markers()
    folder.verify()
    files = sum(len(marker.files) for marker in markers)
    if files:
        yield f"{files:,} files of {len(markers):,} parts have the sha256 they were finished with"
    for marker in markers:
        _require_failures(folder, marker)
    told = [Tally.from_json(marker.facts["tally"]) for marker in markers if "tally" in marker.facts]
    if not told or "tally" not in folder.facts:
        return
    found, wanted = Tally.total(told), Tally.from_json(folder.facts["tally"])
    for what in ("seen", "kept"):
        require_equal(getattr(wanted, what), getattr(found, what), what=f"pairs {what}", where=folder.path)
    for what in ("quarantined", "failed"):
        counts = getattr(wanted, what), getattr(found, what)
        require_equal_counts(*counts, what=f"pairs {what}", where=folder.path)
    yield (
        f"{found.seen:,} pairs seen = {found.kept:,} kept + {found.quarantined.total():,} quarantined + "
        f"{found.failed.total():,} failed, as the {len(told):,} parts have it"
    )


def _require_failures(folder: StageFolder, marker: Marker) -> None:
    """Refuse counts of failures that are not those of the pairs that a part lists."""
    path = failures_file(folder.path, marker.name)
    if "tally" not in marker.facts or path.relative_to(folder.path).as_posix() not in marker.files:
        return
    found, listed = Tally.from_json(marker.facts["tally"]).failed, read_table(path, columns=["reason"])
    require_equal_counts(found, Counter(listed["reason"]), what="pairs failed as", where=path)
