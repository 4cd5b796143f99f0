"""Which pairs a step shows, and how they look: brought to the device, augmented.

Both depend on the seed and the step alone: not on the number of ranks, and not on how often the run was
killed. All random numbers are drawn for the whole step; a rank works on its share.

Dimension key: B pairs of a step over all ranks, H = W side in pixels, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from roclip_sanitize.training.augment import Augmenter, open_augmenter
from roclip_sanitize.training.data import TrainingData, epoch_order
from roclip_sanitize.training.methods.contract import Rows, View, as_they_are
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.resident import open_source
from roclip_sanitize.training.settings import Augmentation, TrainSettings
from roclip_sanitize.training.towers import Batch

SEEDS_APART = 1_000_003  # between the random numbers of two seeds
DRAWS_APART = 2**40  # between those of a step's views: more than any run has steps


class Loader:
    """Reads a run's pairs, for one rank.

    Attributes:
        steps_per_epoch: steps in which every pair is seen once.
    """

    def __init__(
        self,
        data: TrainingData,
        settings: TrainSettings,
        *,
        model: str,
        ranks: Ranks,
        device: torch.device,
        lap: Callable[[str], None] = lambda part: None,
    ) -> None:
        """Set up.

        Args:
            data: the pairs.
            settings: what the run is told.
            model: whose captions they are: of its tokenizer.
            ranks: who shares the steps.
            device: where batches are wanted.
            lap: told whenever a part of the work, "read" or "augment", is done.
        """
        self._data, self._settings, self._model = data, settings, model
        self._ranks, self._lap = ranks, lap
        self._source = open_source(data, device, resident=settings.resident)
        self.steps_per_epoch = data.rows // settings.batch_size
        self._plain_from = round(settings.augment_for * settings.steps(self.steps_per_epoch))
        self._order: tuple[int, Any] = (-1, None)
        self._augmenters: dict[Augmentation, Augmenter] = {}

    def rows_of(self, step: int) -> Rows:
        """The step's pairs, in ascending order: an epoch visits each once, in an order of its own."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = epoch_order(self._data.rows, seed=self._settings.seed, epoch=epoch)
            self._order = (epoch, order)
        start = place * self._settings.batch_size
        rows: Rows = np.sort(self._order[1][start : start + self._settings.batch_size])
        return rows

    def batch(self, view: View, *, step: int) -> Batch:
        """This rank's share of a view."""
        pixels_B3HW, tokens_BL = self._source.batch(view.image_row_B, view.caption_row_B)
        self._lap("read")
        seed = self._settings.seed * SEEDS_APART + step + view.draw * DRAWS_APART
        augment = self._augmenter(view.augmentation if step < self._plain_from else "none")
        generator = torch.Generator().manual_seed(seed)
        share = augment(pixels_B3HW, tokens_BL, generator, rows=self._ranks.mine)
        self._lap("augment")
        return share

    def plain(self, row_B: Rows) -> Batch:
        """This rank's share of some pairs, as they are."""
        return self.batch(as_they_are(row_B, "none"), step=0)

    def _augmenter(self, kind: Augmentation) -> Augmenter:
        if kind not in self._augmenters:
            self._augmenters[kind] = open_augmenter(kind, model=self._model, synonyms=self._settings.synonyms)
        return self._augmenters[kind]
