"""A line for people who wait, on stderr.

    step 400/780  25,600 pairs  610/s  loss 0.51  scale 17.2  matching, agreement .62  2 min left

On a terminal one line is written over again and again, and wiped away at the end; elsewhere a line is
added now and then. The steps may be made on another machine, whose stderr nobody sees: so that the process
that waits for them reads the log, and tells the line of what it finds there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from roclip_sanitize.remote import is_url
from roclip_sanitize.terminal import duration
from roclip_sanitize.training.watching.contract import Report
from roclip_sanitize.training.watching.json_lines import SENT_EVERY_SECONDS, latest

LOOK_EVERY_SECONDS = 1.0
PLAIN_EVERY_SECONDS = 30.0
SHARES = {"poisons_matched_away": "poisons matched away"}  # notes in per cent, and what people call them
WIPE = "\x1b[K"  # to the end of the line


class ProgressLine:
    """Writes the line.

    Args:
        stream: where to.
        name: of the run, where there are several.
        now: seconds, from any beginning.
    """

    def __init__(self, stream: TextIO, *, name: str = "", now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._name, self._now = stream, name, now
        self._in_place = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._since, self._open = now(), False

    def told(self, report: Report) -> None:
        """See Watcher.told."""
        step, *rest = words(report)
        parts = [f"{self._name}: {step}" if self._name else step, *rest]
        if self._in_place:
            self._write(f"\r{fitted(parts, _columns(self._stream) - 1)}{WIPE}")
            self._open = True
        elif self._now() - self._since >= PLAIN_EVERY_SECONDS:
            self._write("  ".join(parts) + "\n")
            self._since = self._now()

    def end(self) -> None:
        """See Watcher.end: what comes next has the line for itself."""
        if self._open:
            self._write(f"\r{WIPE}")
            self._open = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody looks any more: no reason to stop
            self._stream.write(text)
            self._stream.flush()


def words(report: Report) -> list[str]:
    """What the line says, part by part; the last part is the time left."""
    shares = [f"{SHARES[name]} {value:.0%}".replace("%", " %") for name, value in _noted(report, shares=True)]
    others = [f"{name} {_short(value)}" for name, value in _noted(report, shares=False)]
    left = (report.total_steps - report.step) * report.samples / max(1, report.step)  # pairs
    return [
        f"step {report.step:,}/{report.total_steps:,}",
        f"{report.samples:,} pairs",
        f"{report.samples_per_second:,.0f}/s",
        f"loss {report.loss_mean:.2f}",
        f"scale {report.logit_scale:.1f}",
        ", ".join([report.kind, *others]),
        *shares,
        f"{duration(left / max(report.samples_per_second, 1e-9))} left",
    ]


def fitted(parts: Sequence[str], width: int) -> str:
    """The line, without as many of its parts before the last as it takes to fit; the first one stays."""
    kept = list(parts)
    while len("  ".join(kept)) > width and len(kept) > 2:
        del kept[-2]
    return "  ".join(kept)[:width]


@contextlib.contextmanager
def followed(logs: Sequence[Path], stream: TextIO | None) -> Iterator[None]:
    """Show progress while the block waits for runs that write these logs; where stream is None nothing."""
    if stream is None:
        yield
        return
    names = [log.parent.name if len(logs) > 1 else "" for log in logs]
    lines = {log: ProgressLine(stream, name=name) for log, name in zip(logs, names, strict=True)}
    done = threading.Event()
    known = {log: latest(log) for log in logs}  # of earlier runs: no news
    thread = threading.Thread(target=_follow, args=(lines, known, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for line in lines.values():
            line.end()


def _follow(
    lines: Mapping[Path, ProgressLine], known: dict[Path, Report | None], done: threading.Event
) -> None:
    every = SENT_EVERY_SECONDS if any(map(is_url, lines)) else LOOK_EVERY_SECONDS
    while not done.wait(every):
        for log, line in lines.items():
            found = latest(log)
            if found is not None and found != known[log]:
                line.told(found)
                known[log] = found


def _noted(report: Report, *, shares: bool) -> list[tuple[str, float]]:
    return [(name, value) for name, value in report.notes.items() if (name in SHARES) == shares]


def _short(value: float) -> str:
    """Two digits, without a 0 before the point."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _columns(stream: TextIO) -> int:
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return found or shutil.get_terminal_size().columns
