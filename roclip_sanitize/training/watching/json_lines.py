"""The log: a line of JSON for each report, in OUT/log.jsonl."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from roclip_sanitize.training.watching.contract import Report

TAIL_BYTES = 16_384  # more than any line is long


class JsonLines:
    """Writes the log. A resume cuts off what will be written again.

    Args:
        path: where it lies.
        first_step: steps made before.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= first_step]
        path.write_text("".join(f"{line}\n" for line in kept))

    def told(self, report: Report) -> None:
        """See Watcher.told."""
        with self._path.open("a") as file:
            file.write(json.dumps(report.to_json()) + "\n")

    def end(self) -> None:
        """See Watcher.end: each line is on disk already."""


def log_file(out: Path) -> Path:
    """Where a run's log lies."""
    return out / "log.jsonl"


def latest(path: Path) -> Report | None:
    """The last report in a log that is being written; None while there is none that is whole."""
    with contextlib.suppress(OSError, ValueError, KeyError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
        *_, line, _ = file.read().split(b"\n")  # what follows the last line end is not whole
        return Report.from_json(json.loads(line))
    return None
