"""Where a run's pairs are read from: the cache's files, or the device itself, which holds all of them.

    files      rows of memory-mapped files ─▶ pinned memory ─▶ the device, at each step
    resident   all rows, moved once; a step picks its own on the device

A corpus that takes little of a GPU's memory lies there: then a step moves the numbers of its rows and
nothing else. Either way batches are the same, bit for bit.

Dimension key: N pairs in all, B pairs of a step, S side in pixels, L tokens.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.settings import Resident

MOST_SHARE = 0.2  # of the memory that is free: gradients, moments and activations are still to come
MOVED_AT_ONCE = 1024  # rows
Batch = tuple[torch.Tensor, torch.Tensor]


class Readable(Protocol):
    """Pairs by row number, such as TrainingData.

    Attributes:
        rows: N.
    """

    rows: int

    def read(
        self, row_B: NDArray[np.int64], caption_row_B: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels (B, S, S, 3) uint8 of some rows; tokens (B, L) int64 of these or others."""
        ...


class Source(Protocol):
    """Where batches come from."""

    def batch(self, image_row_B: NDArray[np.int64], caption_row_B: NDArray[np.int64]) -> Batch:
        """Pixels (B, 3, S, S) uint8 and tokens (B, L) int64 of some rows, in their order, on the device."""
        ...


class FromFiles:
    """Reads each batch from the cache."""

    def __init__(self, data: Readable, device: torch.device) -> None:
        self._data, self._device = data, device

    def batch(self, image_row_B: NDArray[np.int64], caption_row_B: NDArray[np.int64]) -> Batch:
        images, tokens = self._data.read(image_row_B, caption_row_B)
        pixels_BSS3, tokens_BL = (moved(torch.from_numpy(each), self._device) for each in (images, tokens))
        return pixels_BSS3.permute(0, 3, 1, 2), tokens_BL


class OnDevice:
    """Holds all pairs: N · (3 · S² + 8 · L) bytes."""

    def __init__(self, data: Readable, device: torch.device) -> None:
        self._device = device
        images, tokens = data.read(np.arange(1))
        self._image_NSS3 = torch.empty((data.rows, *images.shape[1:]), dtype=torch.uint8, device=device)
        self._token_NL = torch.empty((data.rows, *tokens.shape[1:]), dtype=torch.int64, device=device)
        for start in range(0, data.rows, MOVED_AT_ONCE):
            rows = slice(start, min(start + MOVED_AT_ONCE, data.rows))
            images, tokens = data.read(np.arange(rows.start, rows.stop))
            self._image_NSS3[rows] = torch.from_numpy(images).to(device)
            self._token_NL[rows] = torch.from_numpy(tokens).to(device)

    def batch(self, image_row_B: NDArray[np.int64], caption_row_B: NDArray[np.int64]) -> Batch:
        # copies, since a table's rows may be read-only or backwards
        image_row, caption_row = (
            moved(torch.from_numpy(rows.copy()), self._device) for rows in (image_row_B, caption_row_B)
        )
        pixels_BSS3 = self._image_NSS3.index_select(0, image_row)
        return pixels_BSS3.permute(0, 3, 1, 2), self._token_NL.index_select(0, caption_row)


def open_source(data: Readable, device: torch.device, *, resident: Resident = "auto") -> Source:
    """Decide where to read from.

    Args:
        data: the pairs.
        device: where batches are wanted.
        resident: "always" or "never"; "auto" is for a GPU, if the pairs take less than a fifth of what is
            free of its memory.
    """
    if resident == "always" or (resident == "auto" and device.type == "cuda" and _fits(data, device)):
        return OnDevice(data, device)
    return FromFiles(data, device)


def _fits(data: Readable, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return data.rows * sum(each.nbytes for each in data.read(np.arange(1))) <= MOST_SHARE * free
