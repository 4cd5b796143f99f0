"""Event files for TensorBoard: the door to tensorboardX, which Ray brings along.

Its SummaryWriter hands events over to a thread: were the disk full, that would end and training wait for it
for ever. Here they are written at once.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import write_bytes
from roclip_sanitize.training.watching.contract import Report
from roclip_sanitize.training.watching.json_lines import SENT_EVERY_SECONDS

GROUP = "train/"
FLUSH_SECONDS = 1.0  # between two, which wait for the disk


class EventFile:
    """Writes reports to an event file of this run's own; TensorBoard joins all that are in the folder.

    Args:
        folder: where they lie.
        first_step: steps made before. What an earlier run told of later ones is struck out.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder, self._made = folder, folder
        if is_url(folder):
            self._made = Path(tempfile.mkdtemp(prefix="roclip-tensorboard-"))
        self._made.mkdir(parents=True, exist_ok=True)
        # Files are named by the second: two within one would be the same.
        self._writer = EventsWriter(str(self._made / "events"), f".{first_step:09d}")
        self._flushed = time.monotonic()
        self._every = SENT_EVERY_SECONDS if is_url(folder) else FLUSH_SECONDS
        self._write(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def told(self, report: Report) -> None:
        """See Watcher.told; of the last second a kill may take something along."""
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = report.scalars().items()
        values = [Summary.Value(tag=GROUP + name, simple_value=value) for name, value in scalars]
        self._write(step=report.step, summary=Summary(value=values))
        if time.monotonic() - self._flushed >= self._every:
            self._writer.flush()
            self._send()
            self._flushed = time.monotonic()

    def end(self) -> None:
        """See Watcher.end."""
        self._writer.close()
        self._send()
        if self._made != self._folder:
            shutil.rmtree(self._made, ignore_errors=True)

    def _send(self) -> None:
        """To the store, where there is one: an event file is small, and is sent whole."""
        if self._made != self._folder:
            for file in self._made.iterdir():
                write_bytes(self._folder / file.name, file.read_bytes())

    def _write(self, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), **what))
