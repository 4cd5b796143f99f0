"""What a run keeps on its way: checkpoints to go on from, snapshots, the best weights and the last.

    before a step ─▶ is it to stop? is a checkpoint due?
    after a step  ─▶ snapshot, loss on held-out pairs: whatever the step ends

A step's snapshot comes before its checkpoint, or a kill between the two would skip it. Of weights that are
no numbers nothing is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from roclip_sanitize.errors import DataError
from roclip_sanitize.runfiles import fingerprint
from roclip_sanitize.sources import source_path
from roclip_sanitize.trained import model_folder, snapshot_folder, snapshots
from roclip_sanitize.training.checkpoints import CheckpointFolder, TrainState
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.stopping import StopFile
from roclip_sanitize.training.validation import Best, HeldOut

GO_ON, SAVE, STOP = range(3)  # what the first rank wants before a step


@dataclass(kw_only=True)
class Keeper:
    """Keeps what is due. All ranks hold one and call it together; the first one writes.

    Attributes:
        settings: what the run is told.
        out: its folder.
        state: of this rank.
        ranks: who calls.
        device: where the model is.
        steps_per_epoch: after which there is a snapshot.
        total_steps: of the run.
        save: writes the model to a folder.
        pairs: what it is trained on, see held.py; "" where nobody knows.
        held_out: the decoded pairs of ``val_shards``, if there are any.
        snapshot_steps: after which there is a snapshot besides.
    """

    settings: TrainSettings
    out: Path
    state: TrainState
    ranks: Ranks
    device: torch.device
    steps_per_epoch: int
    total_steps: int
    save: Callable[[Path], None]
    pairs: str = ""
    held_out: Path | None = None
    snapshot_steps: frozenset[int] = frozenset()
    checkpoints: CheckpointFolder = field(init=False)
    stop: StopFile = field(init=False)

    def __post_init__(self) -> None:
        told = self.settings
        self.checkpoints = open_checkpoints(
            told, self.out, ranks=self.ranks, device=self.device, pairs=self.pairs
        )
        self.stop = StopFile(self.out)
        self._saved, self._saved_step = time.monotonic(), 0
        self._held_out = self.held_out and HeldOut(
            self.held_out,
            batch_size=told.batch_size,
            ranks=self.ranks,
            device=self.device,
            precision=told.precision,
        )

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one. Raises as CheckpointFolder.load() does."""
        self.checkpoints.load(self.state)
        self._saved, self._saved_step = time.monotonic(), self.state.step

    def before_step(self) -> bool:
        """Keep a checkpoint if it is time, or if the run is to stop.

        Returns:
            Whether the run is to go on.

        Raises:
            DataError: it is to stop, and has nothing worth keeping.
            StorageError: the checkpoint could not be written.
        """
        wish = self.ranks.from_first(self._wish(), self.device)
        if wish != GO_ON and self.state.step > self._saved_step:
            if not self.checkpoints.save(self.state) and wish == STOP:
                raise self.no_numbers("some weights or moments became no numbers")
            self._saved, self._saved_step = time.monotonic(), self.state.step
        if wish == STOP and self.ranks.rank == 0:
            self.stop.answer(step=self.state.step, steps=self.total_steps)
        return wish != STOP

    def after_step(self) -> None:
        """Keep a snapshot and look at held-out pairs, if the step ends an epoch or the run."""
        step, samples = self.state.step, self.state.step * self.settings.batch_size
        epoch_ends, last = not step % self.steps_per_epoch, step == self.total_steps
        if not last and (epoch_ends or step in self.snapshot_steps):
            self._snapshot(snapshot_folder(self.out, samples=samples))
        if self._held_out and (epoch_ends or last):
            self._require_numbers()
            loss = self._held_out.loss(self.state.model)
            if self.ranks.rank == 0:
                Best(self.out).note(loss, step=step, samples=samples, save=self.save)

    def publish(self) -> None:
        """Make OUT/model of the last weights or the best, as settings say. Nothing is left to resume."""
        if self.settings.publish == "last":
            self._snapshot(model_folder(self.out))
        elif self.ranks.rank == 0:
            Best(self.out).publish(model_folder(self.out))
        if self.ranks.rank == 0:
            self.checkpoints.remove()

    def no_numbers(self, what: str) -> DataError:
        """The error of a run that cannot go on, and from where another one can."""
        start = "from its beginning"
        for _, folder in [*snapshots(self.out)][-1:]:
            start += f" or with --pretrained {folder}"
        return DataError(
            f"{what} at step {self.state.step}: lower --lr (now {self.settings.lr}) and start in another "
            f"folder, {start}; the last good checkpoint is {self.checkpoints.last or 'none'}"
        )

    def _wish(self) -> int:
        """What this rank wants; only the first one's wish counts."""
        if self.ranks.rank:
            return GO_ON
        if self.stop.asked():
            return STOP
        return SAVE if time.monotonic() - self._saved > self.settings.checkpoint_seconds else GO_ON

    def _snapshot(self, folder: Path) -> None:
        self._require_numbers()
        if self.ranks.rank == 0:
            self.save(folder)

    def _require_numbers(self) -> None:
        if not self.state.finite(moments=False):
            raise self.no_numbers("some weights became no numbers")


def open_checkpoints(settings: TrainSettings, out: Path, *, ranks: Ranks, **told: Any) -> CheckpointFolder:
    """Where a run keeps its checkpoints; see CheckpointFolder for what else may be told."""
    return CheckpointFolder(
        source_path(settings.checkpoints) if settings.checkpoints else out / "checkpoints",
        settings=fingerprint(settings.to_json()),
        keep=settings.keep_checkpoints,
        ranks=ranks,
        **told,
    )
