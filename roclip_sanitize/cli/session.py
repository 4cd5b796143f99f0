"""What is known of the command that runs: its words, its settings, its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roclip_sanitize.status.record import RunRecord

if TYPE_CHECKING:
    from roclip_sanitize.status.watching import Watching


@dataclass(slots=True)
class Session:
    """One run of one command.

    Attributes:
        command: the command itself, as the parser has it.
        words: what it is called by, such as ("attacks", "rebuild").
        values: its settings by the names of its parameters.
        silent: whether it runs for a caller who takes its result, and prints nothing.
        dry: whether it is only tried: start() goes no further.
        result: what show() was given.
        record: what it leaves beside its results, once it has started; see starting.py.
        watching: who watches it from beside meanwhile.
        held: what it lets go when it is over.
    """

    command: Any = None
    words: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    silent: bool = False
    dry: bool = False
    result: dict[str, Any] = field(default_factory=dict)
    record: RunRecord | None = None
    watching: Watching | None = None
    held: ExitStack = field(default_factory=ExitStack)

    def end(self, code: int, *, error: str = "", say: Callable[[str], None]) -> None:
        """Close the record; a disk that refuses it is told of, and is no reason to fail."""
        if self.watching is not None:
            self.watching.end()
        if self.record is None:
            return
        try:
            self.record.end(code, error=error)
        except Exception as refused:  # noqa: BLE001  # the command's own end is what counts
            say(f"roclip: no record of this run: {refused}")


_SESSION: ContextVar[Session] = ContextVar("session")


@contextmanager
def open_session(*, silent: bool = False, dry: bool = False) -> Iterator[Session]:
    """A session: the command in the block is its."""
    token = _SESSION.set(Session(silent=silent, dry=dry))
    try:
        with _SESSION.get().held:
            yield _SESSION.get()
    finally:
        _SESSION.reset(token)


class GoesNoFurther(Exception):
    """A command that is only tried has come as far as its settings."""


def session() -> Session:
    """The one that is going on."""
    return _SESSION.get()
