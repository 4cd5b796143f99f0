"""Progress for people who wait, on stderr: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

PLAIN_EVERY_SECONDS = 30.0


def duration(seconds: float) -> str:
    """A time in words: 40 s, 2 min, 3 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


class Progress:
    """Shows how far things are that go on side by side or after each other.

    Args:
        stream: where to.
        name: stands before each plain line.
        now: seconds, from any beginning.
    """

    def __init__(self, stream: TextIO, *, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._name, self._now = stream, name, now
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._in_place = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._since = now()

    def show(self, going: Mapping[str, tuple[int, int | None, str]]) -> None:
        """Show what goes on now.

        Args:
            going: name → how many are done, of how many (None: nobody knows), and a line that says so. What
                is no longer named is done, and vanishes.
        """
        if self._in_place:
            self._show_bars(going)
        elif going and self._now() - self._since >= PLAIN_EVERY_SECONDS:
            self._since = self._now()
            with contextlib.suppress(OSError, ValueError):  # nobody looks any more: no reason to stop
                for name, (_, _, line) in going.items():
                    self._stream.write(f"{self._name}: {name}  {line}\n")
                self._stream.flush()

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def _show_bars(self, going: Mapping[str, tuple[int, int | None, str]]) -> None:
        if not going:
            self.end()
            return
        if self._bars is None:
            self._bars = _bars(self._stream)
            self._bars.start()
        for name in list(self._tasks.keys() - going.keys()):
            self._bars.remove_task(self._tasks.pop(name))
        for name, (done, total, line) in going.items():
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, line="")
            self._bars.update(self._tasks[name], completed=done, total=total, line=line)


def _bars(stream: TextIO) -> Any:
    """Rich is only loaded for those who see it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[line]}", markup=False),
    )
    return Bars(*columns, console=Console(file=stream), transient=True, refresh_per_second=2)
