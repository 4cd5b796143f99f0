"""A thread beside a command: it looks at the run's folder now and then, and tells whoever should know.

Nothing in the stages knows of it, and it knows of them only what lies in the folder.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TextIO

from roclip_sanitize.errors import RoclipError
from roclip_sanitize.remote import is_url
from roclip_sanitize.status.lines import stage_line
from roclip_sanitize.status.metrics import StageMetrics
from roclip_sanitize.status.reading import RunStatus, StatusReader
from roclip_sanitize.status.record import RunRecord
from roclip_sanitize.terminal import Progress

LOOK_EVERY_SECONDS, RECORD_EVERY_SECONDS = 1.0, 60.0
EXPECTED = (RoclipError, OSError, LookupError, ValueError)  # not begun, being written, or of another version


class Watching:
    """Watches a run from beside while a command is at work.

    Args:
        out: the run's folder.
        record: brought to the disk as soon as the folder is the run's.
        name: of the command.
        stream: where progress is shown.
    """

    def __init__(self, out: Path, record: RunRecord, *, name: str, stream: TextIO) -> None:
        self._record = record
        self._reader, self._metrics = StatusReader(out), StageMetrics(out.name)
        self._progress = Progress(stream, name=name)
        with contextlib.suppress(*EXPECTED):
            self._metrics.known(self._reader.read())
        # Behind a URL each look is many requests: nothing is shown, and the record goes there now and then.
        self._every = LOOK_EVERY_SECONDS if not is_url(out) else RECORD_EVERY_SECONDS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="roclip-watching")
        self._thread.start()

    def end(self) -> None:
        """The command is over: take a last look, and leave the terminal alone."""
        self._over.set()
        self._thread.join()
        self._progress.end()

    def _look(self) -> None:
        while not self._over.wait(self._every):
            self._look_once()
        self._look_once()

    def _look_once(self) -> None:
        with contextlib.suppress(*EXPECTED):
            self._record.write()
            status = self._reader.read()
            self._metrics.told(status)
            if not self._over.is_set():
                self._progress.show(going(status))


def going(status: RunStatus) -> dict[str, tuple[int, int | None, str]]:
    """Which stages are under way, as Progress wants them; trainings show a line of their own."""
    return {
        stage.name: (stage.done, stage.total, stage_line(stage))
        for stage in status.stages
        if not stage.finished and stage.unit == "shards"
    }
