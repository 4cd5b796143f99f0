"""Where that lies which a finished folder's settings name, whatever directory a command runs in.

    base/scan names "store" ─▶ base/store, wherever base is by now

Settings keep paths as they were told, so that folders are the same bytes on every machine. A relative one was
meant from the directory that the command ran in, which mostly is one of those that its folder lies in: it is
tried from each of them, the nearest first, and then from here. Absolute ones and URLs are what they are.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from roclip_sanitize.errors import DataError
from roclip_sanitize.redaction import unsigned
from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import STAGE_FILE, StageFolder, read_told, sha256_of
from roclip_sanitize.storage import exists


def told_folder(by: Path, told: str | Path, *, stage: str, content: str | None = None) -> Path:
    """Where a stage's folder lies.

    Args:
        by: the folder whose settings name it.
        told: what they say.
        stage: what made it.
        content: what it held then, where that is known: of several, the one that still holds it.

    Returns:
        Its path; as it was told where it is nowhere.
    """
    found = [path for path in _places(by, Path(told)) if _made_by(path, stage)]
    if len(found) > 1 and content:
        found = [path for path in found if StageFolder(path).content == content] or found
    return found[0] if found else Path(told)


def store_of(made: StageFolder) -> Path:
    """Where the store lies that an index, or a scan, is of."""
    told = made.settings
    return told_folder(made.path, told["store"], stage="embed", content=told.get("store_content"))


def told_file(by: Path, told: str | Path, *, sha256: str) -> Path:
    """Where a file lies; of several, the one with these bytes. As told_folder()."""
    found = [path for path in _places(by, Path(told)) if os.path.isfile(path)]
    if len(found) > 1:
        found = [path for path in found if sha256_of(path) == sha256] or found
    return found[0] if found else Path(told)


def told_files(by: Path, told: Sequence[Path]) -> list[Path]:
    """Where many files lie that were told from one directory: from here, if the first is there."""
    first = next((path for path in told if not _is_fixed(path)), None)
    if first is None or exists(first):
        return list(told)
    for base in _bases(by):
        if exists(base / first):
            return [path if _is_fixed(path) else base / path for path in told]
    return list(told)


def as_told(folder: Path, shards: Sequence[Path]) -> list[str]:
    """Shards as a folder's settings tell them, if it was begun with these; else as they are named here."""
    named = [str(path) for path in shards]
    if not exists(folder / STAGE_FILE):
        return named
    told = [str(path) for path in StageFolder(folder).settings.get("shards", ())]
    found = [str(path) for path in told_files(folder, [Path(path) for path in told])]
    return told if found == unsigned(named) else named


def _places(by: Path, told: Path) -> list[Path]:
    """Where a path may lead to, each place once; one that went up and down again may lead down only.

    None for a path that leads to one place alone, which is not looked at.
    """
    if _is_fixed(told):
        return []
    names = (told, Path(*itertools.dropwhile(lambda part: part == os.pardir, told.parts)))
    return list(dict.fromkeys(base / name for name in names for base in _bases(by)))


def _bases(by: Path) -> Iterator[Path]:
    """Directories that a path may have been meant from; those here are told from here."""
    here = Path.cwd()
    if not is_url(by):
        for folder in Path(os.path.abspath(by)).parents:
            yield folder.relative_to(here) if folder.is_relative_to(here) else folder
    yield Path()


def _is_fixed(path: Path) -> bool:
    return path.is_absolute() or is_url(path)


def _made_by(path: Path, stage: str) -> bool:
    if not exists(path / STAGE_FILE):
        return False
    try:
        return bool(read_told(path / STAGE_FILE)["stage"] == stage)
    except DataError:
        return False
