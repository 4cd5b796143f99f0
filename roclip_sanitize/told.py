"""Values that a file told. Anybody may have written it: what is missing, or of another kind, is its fault.

JSON ─▶ Told ─▶ the package's own values, or a DataError of one line
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from roclip_sanitize.errors import DataError

# What code meets in values of other kinds than were written: no bug of it where a stranger wrote them.
OTHER_KINDS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Told(dict[str, Any]):
    """What a file told, by name. Anybody may have written it: a name that it lacks is a DataError.

    Attributes:
        where: the file, and the place in it.
    """

    def __init__(self, values: object, *, where: str) -> None:
        if not isinstance(values, dict):
            raise DataError(f"{where} is a {type(values).__name__}, wanted names with values")
        super().__init__(values)
        self.where = where

    def __missing__(self, name: str) -> NoReturn:
        raise DataError(f"{self.where} has no {name!r}")

    def __reduce__(self) -> Any:
        return partial(Told, where=self.where), (dict(self),)


@contextmanager
def as_written(where: object, what: str) -> Iterator[None]:
    """While a file's values are taken apart: what is of another kind than was written is a DataError.

    Args:
        where: the file.
        what: what it should be, such as "ledger".

    Raises:
        DataError: names the file and what was found; errors of this package pass as they are.
    """
    try:
        yield
    except OTHER_KINDS as error:
        raise DataError(f"{where} is no {what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, in one short line, with its kind: some say only the name that they miss."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
