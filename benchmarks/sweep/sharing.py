"""One run folder for several processes: which cells are whose, and whose turn it is.

    RUN/lock            held by a whole sweep alone, or by all parts of one together
    RUN/lock_I_of_N     held by the process that runs this part
    RUN/turn_NAME       held for as long as something is done that all of them need

Locks go with their process, however that ends; the files stay, and mean nothing by themselves.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.sweep.cells import Cell
from roclip_sanitize.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process of several does of a sweep.

    Attributes:
        number: which part, the first is 1.
        of: how many there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def lock(self) -> str:
        """Name of the file that says that somebody is at it."""
        return f"lock_{self.number}_of_{self.of}"


WHOLE = Part(number=1, of=1)


def part_from(text: str) -> Part:
    """The part that "I/N" names.

    Raises:
        ConfigError: it names none.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"part is {text!r}, wanted I/N with I from 1 to N, such as 3/14")
    return Part(number=int(found[1]), of=int(found[2]))


def cells_of_part(cells: Sequence[Cell], part: Part) -> list[Cell]:
    """Those of a sweep's cells that a part runs: every N-th poisoning, so that each is planted once.

    Args:
        cells: all of the sweep, done or not: what is whose must not change while parts come and go.
        part: which of them.
    """
    poisonings = list(dict.fromkeys(cell.poisoning.name for cell in cells))
    mine = frozenset(poisonings[part.number - 1 :: part.of])
    return [cell for cell in cells if cell.poisoning.name in mine]


@contextmanager
def sole_user(run: Path, part: Part = WHOLE) -> Iterator[None]:
    """Keep out of a run folder whoever would do the same cells.

    Parts of as many work side by side; a second process for one of them, a whole sweep beside
    parts, and parts of another number do not.

    Raises:
        ConfigError: another process is at work there that this one may not join.
    """
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        whole = held.enter_context((run / "lock").open("a+"))
        if part == WHOLE:
            _take(whole, fcntl.LOCK_EX, run)
            _sign(whole, _me())
        else:
            _take(whole, fcntl.LOCK_SH, run)
            _sign(whole, "the parts of a sweep")
            mine = held.enter_context((run / part.lock).open("a+"))
            _take(mine, fcntl.LOCK_EX, run)
            _sign(mine, f"part {part}, {_me()}")
            _refuse_other_numbers(run, part)  # ours is held: of two that start at once, one sees the other
        yield


@contextmanager
def turn(run: Path, name: str, *, wait: bool = True) -> Iterator[bool]:
    """Do something one process after the other.

    Args:
        run: the folder that they share.
        name: what is done.
        wait: until nobody else is at it; what another did meanwhile is then found done.

    Yields:
        Whether it is our turn: always, if we wait.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / f"turn_{name}").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _take(file: IO[str], how: int, run: Path) -> None:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.readline().strip() or "another process"
        raise ConfigError(f"{run} is in use by {holder}: wait for it, or choose another --run") from error


def _sign(file: IO[str], holder: str) -> None:
    file.truncate(0)
    file.write(f"{holder}\n")
    file.flush()


def _me() -> str:
    return f"process {os.getpid()} on {os.uname().nodename}"


def _refuse_other_numbers(run: Path, part: Part) -> None:
    for path in sorted(run.glob("lock_*_of_*")):
        if not path.name.endswith(f"_of_{part.of}"):
            with path.open("a+") as file:
                _take(file, fcntl.LOCK_SH, run)
