"""What a check is: something that holds, in a line; or a MismatchError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.storage import exists
from roclip_sanitize.whereabouts import told_folder

CLOSE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found to hold.

    Attributes:
        where: the stage's folder.
        what: in words, with the numbers.
    """

    where: Path
    what: str


def require_equal(found: object, wanted: object, *, what: str, where: Path) -> None:
    """Refuse a number, a name or a list that is not what another place says.

    Raises:
        MismatchError: both, and where.
    """
    if found != wanted:
        raise MismatchError(f"{where}: {what}: found {found}, wanted {wanted}")


def require_close(found: object, wanted: float | None, *, what: str, where: Path) -> None:
    """The same for a number whose last digits another machine may round otherwise."""
    numbers = isinstance(found, int | float) and wanted is not None
    if not (numbers and abs(found - wanted) <= CLOSE):  # type: ignore[operator]
        require_equal(found, wanted, what=what, where=where)


def require_at_most(found: int, most: int, *, what: str, where: Path) -> None:
    """Refuse a count below 0, or above what there is.

    Raises:
        MismatchError: both, and where.
    """
    if not 0 <= found <= most:
        raise MismatchError(f"{where}: {what}: found {found}, wanted at most {most}")


def require_equal_counts(
    found: Mapping[str, int], wanted: Mapping[str, int], *, what: str, where: Path
) -> None:
    """The same for counts by name; those of 0 need not be named."""
    names = sorted({*found, *wanted})
    for name in names:
        require_equal(found.get(name, 0), wanted.get(name, 0), what=f"{what} {name}", where=where)


def compare_input(name: str, path: Path, content: str, *, stage: str, where: Path) -> str:
    """Whether what a folder was made from is still what it was; what is gone cannot be compared.

    Args:
        name: what it is there.
        path: where it lay, as the folder that was made from it says.
        content: what it held, see StageFolder.content.
        stage: what made it.
        where: the folder that was made from it.

    Returns:
        A line that says so.

    Raises:
        MismatchError: it holds something else.
    """
    path = told_folder(where, path, stage=stage, content=content)
    if not exists(path):
        return f"its {name}, {path}, is gone and was not compared"
    found = StageFolder.open(path, stage=stage).content
    require_equal(found, content, what=f"content since {where} was made", where=path)
    return f"its {name}, {path}, has not changed since"
