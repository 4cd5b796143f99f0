"""The log: a line of JSON for each report, in OUT/log.jsonl.

A log behind a URL is written anew every few seconds; of the last ones a kill may take something along.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import StorageError
from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import write_bytes
from roclip_sanitize.storage import append, exists, here, read_bytes
from roclip_sanitize.training.watching.contract import Report

TAIL_BYTES = 16_384  # more than any line is long
SENT_EVERY_SECONDS = 10.0  # behind a URL


class JsonLines:
    """Writes the log. A resume cuts off what will be written again.

    Args:
        path: where it lies.
        first_step: steps made before.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        self._path, self._waiting, self._sent = path, list[str](), time.monotonic()
        self._every = SENT_EVERY_SECONDS if is_url(path) else 0.0
        lines = read_bytes(path).decode().splitlines() if exists(path) else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= first_step]
        write_bytes(path, "".join(f"{line}\n" for line in kept).encode())

    def told(self, report: Report) -> None:
        """See Watcher.told."""
        self._waiting.append(_line(report.to_json()))
        if time.monotonic() - self._sent >= self._every:
            self.end()

    def end(self) -> None:
        """See Watcher.end."""
        append(self._path, "".join(self._waiting))
        self._waiting.clear()
        self._sent = time.monotonic()


def log_file(out: Path) -> Path:
    """Where a run's log lies."""
    return out / "log.jsonl"


def note_line(out: Path, facts: Mapping[str, Any]) -> None:
    """Add a line to a run's log that is no report."""
    append(log_file(out), _line(facts))


def latest(path: Path) -> Report | None:
    """The last report in a log that is being written; None while there is none that is whole."""
    with (
        contextlib.suppress(OSError, StorageError, ValueError, KeyError),
        here(path).open("rb") as file,
    ):
        file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
        *_, line, _ = file.read().split(b"\n")  # what follows the last line end is not whole
        return Report.from_json(json.loads(line))
    return None


def _line(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts) + "\n"
