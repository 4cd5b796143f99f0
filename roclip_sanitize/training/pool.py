"""The pool of recent pairs that RoCLIP matches against: a ring of fixed capacity.

It starts empty and only what has been put in can be found, so that nothing is ever matched
with noise. Every rank puts in the same gathered batch, so that all ranks hold the same pool.

Dimension key: P pairs in the pool, B pairs of a batch, D width of the vectors.
"""

from __future__ import annotations

from typing import Any

import torch

SHARE = 0.02  # the paper's: 20,000 of a million pairs
LEAST_BATCHES = 32  # of a small corpus the share leaves too few captions to choose from
MOST_SHARE = 0.25  # far less than an epoch: no picture may meet its own caption again


class PairPool:
    """First in, first out. Vectors are constants: no gradient flows into them.

    Attributes:
        capacity: P, the most that it holds.
        filled: how many it holds now.
    """

    def __init__(self, capacity: int, width: int, *, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self.filled = 0
        self._cursor = 0
        self._image_PD = torch.zeros(capacity, width, device=device)
        self._caption_PD = torch.zeros(capacity, width, device=device)

    @property
    def image_PD(self) -> torch.Tensor:
        """The pool's image vectors, float32, unit rows, in no particular order."""
        return self._image_PD[: self.filled]

    @property
    def caption_PD(self) -> torch.Tensor:
        """The pool's caption vectors, row for row those of ``image_PD``."""
        return self._caption_PD[: self.filled]

    def put(self, image_BD: torch.Tensor, caption_BD: torch.Tensor) -> None:
        """Add a batch; the oldest pairs make room. A batch larger than the pool leaves its end."""
        image_BD, caption_BD = image_BD.detach()[-self.capacity :], caption_BD.detach()[-self.capacity :]
        count = len(image_BD)
        slots = (self._cursor + torch.arange(count, device=image_BD.device)) % self.capacity
        self._image_PD[slots] = image_BD.float()
        self._caption_PD[slots] = caption_BD.float()
        self._cursor = (self._cursor + count) % self.capacity
        self.filled = min(self.capacity, self.filled + count)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if nothing had happened."""
        return {
            "image_PD": self._image_PD,
            "caption_PD": self._caption_PD,
            "cursor": self._cursor,
            "filled": self.filled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict()."""
        self._image_PD.copy_(state["image_PD"])
        self._caption_PD.copy_(state["caption_PD"])
        self._cursor, self.filled = int(state["cursor"]), int(state["filled"])


def nearest(query_BD: torch.Tensor, pool_PD: torch.Tensor) -> torch.Tensor:
    """Row of the pool most similar to each query: (B,) int64; equal ones give the lowest row."""
    with torch.no_grad():
        rows: torch.Tensor = (query_BD.detach().float() @ pool_PD.T).argmax(dim=1)
    return rows


def default_capacity(pairs: int, *, batch_size: int) -> int:
    """How many pairs a pool should hold beside a corpus of so many: never less than a batch."""
    wanted = max(round(SHARE * pairs), LEAST_BATCHES * batch_size)
    return max(batch_size, min(wanted, round(MOST_SHARE * pairs)))
