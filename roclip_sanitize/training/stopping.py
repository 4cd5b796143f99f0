"""Stopping a run so that nothing is lost: at its next step, with a checkpoint.

    SIGTERM or SIGINT ─▶ driver ─▶ OUT/stop ─▶ first rank, which looks once a second ─▶ all ranks

A file, since the ranks may be threads of processes on other machines, where no signal can be caught; so
anyone else may ask by ``touch OUT/stop`` too. The rank that stops writes into it how far it got. It is
removed when a run begins.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from roclip_sanitize.errors import DataError, RoclipError, Stopped, Terminated
from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import read_json, write_bytes, write_json
from roclip_sanitize.storage import exists, remove

LOOK_EVERY_SECONDS, STORE_SECONDS = 1.0, 5.0  # on this disk, and behind a URL
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopFile:
    """OUT/stop: whether a run is asked to stop, and where it did.

    Args:
        out: the run's folder.
        look_every: seconds; how often to look whether the file is there. None for once a second, or
            seldomer behind a URL.
    """

    def __init__(self, out: Path, *, look_every: float | None = None) -> None:
        if look_every is None:
            look_every = STORE_SECONDS if is_url(out) else LOOK_EVERY_SECONDS
        self.path, self._look_every = out / "stop", look_every
        self._looked, self._seen = -look_every, False

    def asked(self) -> bool:
        """Whether the run is to stop, as of the last look."""
        if not self._seen and (now := time.monotonic()) - self._looked >= self._look_every:
            self._looked, self._seen = now, exists(self.path)
        return self._seen

    def answer(self, *, step: int, steps: int) -> None:
        """Say where the run stopped."""
        write_json(self.path, {"step": step, "steps": steps})

    def answered(self) -> dict[str, int] | None:
        """Where it stopped, or None if it did not."""
        try:
            found: Any = read_json(self.path)
        except DataError:  # not there, or nobody wrote into it
            return None
        return found if isinstance(found, dict) and {"step", "steps"} <= found.keys() else None


class Stopping:
    """While the block lasts, SIGTERM and SIGINT ask runs to stop; a second SIGINT interrupts at once.

    Args:
        outs: folders of the runs.
    """

    def __init__(self, outs: Sequence[Path]) -> None:
        self._files = [StopFile(out) for out in outs]
        self._before: dict[int, Any] = {}
        self._signal = 0

    def __enter__(self) -> Self:
        for file in self._files:  # of an earlier run
            remove(file.path)
        if threading.current_thread() is threading.main_thread():  # elsewhere none can be caught
            self._before = {each: signal.signal(each, self._ask) for each in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def require_not_stopped(self) -> None:
        """To be called when the runs have ended.

        Raises:
            Stopped: one of them was asked to stop.
            Terminated: by SIGTERM.
        """
        answers = [found for file in self._files if (found := file.answered())]
        for file in self._files:
            remove(file.path)
        if not answers and not self._signal:
            return
        where = "stopped at step {step} of {steps}".format(**answers[0]) if answers else "stopped at the end"
        kind = Terminated if self._signal == signal.SIGTERM else Stopped
        raise kind(f"{where}; the same command goes on from there")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self._signal:
            raise KeyboardInterrupt
        self._signal = number
        for file in self._files:
            if is_url(file.path):
                threading.Thread(target=_touch, args=(file.path,)).start()  # no handler may wait for a store
            else:
                _touch(file.path)
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(2, b"roclip: stopping at the next step\n")  # print() may be what was interrupted


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError, RoclipError):  # a folder that is not there has no run to stop
        if is_url(path):
            write_bytes(path, b"")
        else:
            path.touch()
