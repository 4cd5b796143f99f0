"""Event files for TensorBoard: the door to tensorboardX, which Ray brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roclip_sanitize.training.watching.contract import Report

GROUP = "train/"
FLUSH_SECONDS = 1  # a kill loses no more


class EventFile:
    """Writes reports to an event file of this run's own; TensorBoard joins all that are in the folder.

    Args:
        folder: where they lie.
        first_step: steps made before. What an earlier run told of later ones is struck out.
        writer: what writes them; None opens one.
    """

    def __init__(self, folder: Path, *, first_step: int, writer: Any = None) -> None:
        self._writer = writer or _open(folder, first_step)

    def told(self, report: Report) -> None:
        """See Watcher.told."""
        for name, value in report.scalars().items():
            self._writer.add_scalar(GROUP + name, value, report.step)

    def end(self) -> None:
        """See Watcher.end."""
        self._writer.close()


def _open(folder: Path, first_step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(
        str(folder),
        purge_step=first_step + 1,
        flush_secs=FLUSH_SECONDS,
        filename_suffix=f".{first_step:09d}",  # names are of a second: two within one would be the same
    )
