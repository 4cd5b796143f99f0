"""What a check is: something that holds, in a line; or a MismatchError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roclip_sanitize.errors import MismatchError


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


def require_equal_counts(
    found: Mapping[str, int], wanted: Mapping[str, int], *, what: str, where: Path
) -> None:
    """The same for counts by name; those of 0 need not be named."""
    names = sorted({*found, *wanted})
    for name in names:
        require_equal(found.get(name, 0), wanted.get(name, 0), what=f"{what} {name}", where=where)
