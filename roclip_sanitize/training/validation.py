"""How well a model in training does on pairs that it never learns from, and the best it was.

    OUT/best/model.json…    the weights with the lowest loss so far, as in OUT/model
    OUT/best/val.json       that loss, and after which step; written last

The loss is CLIP's, in batches as large as the training's: a larger one has more negatives, and a higher loss.

Dimension key: B pairs of a batch, N held-out pairs that are looked at, D width.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roclip_sanitize.encoder_facts import MODEL_FILE, WEIGHTS_FILE
from roclip_sanitize.errors import DataError
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.storage import atomic_file, exists, here
from roclip_sanitize.training.data import TrainingData, epoch_order
from roclip_sanitize.training.objectives import clip_loss
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.settings import Precision
from roclip_sanitize.training.towers import encode_share
from roclip_sanitize.training.watching.json_lines import note_line

MOST_PAIRS = 2_000


class HeldOut:
    """Pairs to measure the loss on: the same ones every time."""

    def __init__(
        self, cache: Path, *, batch_size: int, ranks: Ranks, device: torch.device, precision: Precision
    ) -> None:
        """Choose up to 2,000 pairs, in whole batches.

        Args:
            cache: the decoded pairs.
            batch_size: pairs of a batch; fewer if there are not so many.
            ranks: who shares each batch.
            device: where the model is.
            precision: of the products inside the towers.

        Raises:
            DataError: there are too few.
        """
        self._data, self._ranks, self._device, self._precision = TrainingData(cache), ranks, device, precision
        most = min(self._data.rows, MOST_PAIRS)
        batch = min(batch_size, most)
        if batch < max(2, ranks.size):  # one pair alone has no negatives, and each rank wants one
            raise DataError(f"{batch} usable held-out pairs are too few: wanted {max(2, ranks.size)} or more")
        chosen_N = epoch_order(self._data.rows, seed=0, epoch=0)[: most // batch * batch]
        self._batches = [np.sort(row_B) for row_B in np.split(chosen_N, len(chosen_N) // batch)]

    @torch.no_grad()
    def loss(self, model: Any) -> float:
        """The mean over batches, of pairs as they are. All ranks call it together, and get the same."""
        training = model.training
        model.eval()
        losses = []
        for row_B in self._batches:
            images, tokens = self._data.read(row_B)
            pixels_B3HW = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255
            mine = self._ranks.mine
            batch = (pixels_B3HW[mine], torch.from_numpy(tokens[mine]).to(self._device))
            image_BD, caption_BD = encode_share(model, batch, self._ranks, self._precision)
            losses.append(clip_loss(image_BD, caption_BD, model.logit_scale.exp()))
        model.train(training)
        return float(torch.stack(losses).mean())


class Best:
    """OUT/best: the weights that did best so far. For one rank to use."""

    def __init__(self, out: Path) -> None:
        self._out, self._folder = out, out / "best"

    def note(self, loss: float, *, step: int, samples: int, save: Callable[[Path], None]) -> None:
        """Log a loss, and save the weights if none was lower. Noting it again changes nothing."""
        facts = {"step": step, "samples": samples, "val_loss": round(loss, 5)}
        note_line(self._out, facts)
        if loss < self._lowest():
            save(self._folder)
            write_json(self._folder / "val.json", facts | {"val_loss": loss})

    def publish(self, folder: Path) -> None:
        """Make the best weights those of another folder."""
        for name in (WEIGHTS_FILE, MODEL_FILE):  # the latter says that the former is whole
            with here(self._folder / name).open("rb") as best, atomic_file(folder / name) as copy:
                shutil.copyfileobj(best, copy)

    def _lowest(self) -> float:
        path = self._folder / "val.json"
        return float(read_json(path)["val_loss"]) if exists(path) else float("inf")
