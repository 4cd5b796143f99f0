"""What a command leaves beside its results: the settings that it ran with, and when it began and ended.

    OUT/run.toml       its settings, so that `roclip COMMAND --config OUT/run.toml` is the same run
    OUT/events.jsonl   a line per event, appended: {"time", "run", "event", …}

    event     also has
    started   command, version, host, pid, executor, workers
    ended     code (the exit code), seconds, error ("" where there was none)

A folder is a run's once a stage has put its stage.json there, or into a folder in it. Nothing is written
before, so that a command that is refused leaves no traces. run.toml is that of the run that made the
folder, or of the last one that came to its end: what was refused because it had other settings never ran.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roclip_sanitize import __version__
from roclip_sanitize.redaction import redacted
from roclip_sanitize.runfiles import EVENTS_FILE, RUN_FILE, write_bytes
from roclip_sanitize.storage import append, exists, names_in


def new_run_id() -> str:
    """A name for one run of one command: its time, and four hex digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def is_run(folder: Path) -> bool:
    """Whether a stage, or stages below it, have been begun in a folder."""
    if exists(folder / "stage.json"):
        return True
    return any(exists(folder / name / "stage.json") for name in names_in(folder) if "." not in name)


class RunRecord:
    """The record of one run of one command.

    Args:
        out: the folder of its results.
        command: its words, such as "attacks rebuild".
        run_file: its settings as TOML, without secrets.
        facts: what else to say of its start.
    """

    def __init__(self, out: Path, *, command: str, run_file: str, facts: dict[str, Any]) -> None:
        self._out, self._run_file = out, run_file
        self.run_id = new_run_id()
        self._began = time.monotonic()
        host = {"host": platform.node(), "pid": os.getpid()}
        self._waiting = [self._event("started", command=command, version=__version__, **host, **facts)]

    def write(self) -> None:
        """Bring to the disk what is known so far, if the folder is a run's by now.

        Raises:
            StorageError: the disk is full or refuses.
        """
        if not is_run(self._out):
            return
        if not exists(self._out / RUN_FILE):
            write_bytes(self._out / RUN_FILE, self._run_file.encode())
        if not self._waiting:
            return
        lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self._waiting)
        append(self._out / EVENTS_FILE, lines)
        self._waiting.clear()

    def end(self, code: int, *, error: str = "") -> None:
        """The command has ended.

        Args:
            code: its exit code.
            error: what went wrong, in one line.

        Raises:
            StorageError: the disk is full or refuses.
        """
        seconds = round(time.monotonic() - self._began, 3)
        self._waiting.append(self._event("ended", code=code, seconds=seconds, error=redacted(error)))
        if code in {0, 3} and is_run(self._out):
            write_bytes(self._out / RUN_FILE, self._run_file.encode())
        self.write()

    def _event(self, name: str, **facts: Any) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {"time": now, "run": self.run_id, "event": name, **facts}
