"""The pool of recent pairs that RoCLIP matches against: a ring of fixed capacity.

It starts empty and only what has been put in can be found, so that nothing is ever matched
with noise. Ranks share it: each holds every n-th slot, finds its own best, and the best of
those is everybody's. What is found is the same for any number of ranks.

Dimension key: P pairs in the pool, B pairs of a batch over all ranks, M of them that this rank is to hold,
D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.ranks import Ranks

Side = Literal["image", "caption"]
Grouping = tuple[torch.Tensor, torch.Tensor]
"""Numbers of groups, int64: of the queries (B,), and of the slots (P,)."""

SHARE = 0.02  # the paper's: 20,000 of a million pairs
LEAST_BATCHES = 32  # of a small corpus the share leaves too few captions to choose from
MOST_SHARE = 0.25  # far less than an epoch: few pairs still lie there when they come again
COMPARED_AT_ONCE = 2**26  # cosines in memory at a time: 256 MiB
LAST_RESORT = torch.finfo(torch.float32).min  # instead of a cosine


class PairPool:
    """First in, first out. Vectors are constants: no gradient flows into them.

    Attributes:
        capacity: P, the most that it holds.
        filled: how many it holds now.
        row_P: of the training data, int64: which pair lies in each slot, -1 where none does.
    """

    def __init__(
        self,
        capacity: int,
        width: int,
        *,
        ranks: Ranks | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = capacity
        self.filled = 0
        self.row_P = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self._cursor = 0
        self._ranks = ranks or Ranks()
        held = len(range(capacity)[self._ranks.mine])
        self._vectors: dict[Side, torch.Tensor] = {
            side: torch.zeros(held, width, device=device) for side in ("image", "caption")
        }

    def put(self, image_BD: torch.Tensor, caption_BD: torch.Tensor, row_B: torch.Tensor) -> None:
        """Add a batch; the oldest pairs make room. A batch larger than the pool leaves its end.

        Args:
            image_BD: unit rows, of all ranks.
            caption_BD: row for row those of the images.
            row_B: the pairs' rows in the training data.
        """
        count = min(len(image_BD), self.capacity)
        # counted on the host: how many slots are whose is not asked of a GPU, which would be waited for
        slot_B = (self._cursor + torch.arange(count)) % self.capacity
        mine_M = (slot_B % self._ranks.size == self._ranks.rank).nonzero()[:, 0]
        place_M = moved(slot_B[mine_M] // self._ranks.size, image_BD.device)
        slot_B, mine_M = moved(slot_B, image_BD.device), moved(mine_M, image_BD.device)
        self.row_P[slot_B] = row_B[-count:]
        for side, vector_BD in (("image", image_BD), ("caption", caption_BD)):
            held = self._vectors[side]  # type: ignore[index]
            held[place_M] = vector_BD.detach()[-count:][mine_M].float()
        self._cursor = (self._cursor + count) % self.capacity
        self.filled = min(self.capacity, self.filled + count)

    def nearest(self, query_BD: torch.Tensor, side: Side, *, apart: Sequence[Grouping] = ()) -> torch.Tensor:
        """The filled slot most similar to each query; of equal ones the lowest.

        Args:
            query_BD: unit rows, the same on every rank.
            side: which of the pool's vectors to compare with.
            apart: a query finds no slot that is of its group in any of these. Where all slots are,
                it finds the lowest.

        Returns:
            (B,) int64, the same on every rank.
        """
        with torch.no_grad():
            best_B, slot_B = self._nearest_here(query_BD.detach().float(), side, apart)
            if self._ranks.size == 1:
                return slot_B
            best_RB = self._ranks.collected(best_B[None])
            slot_RB = self._ranks.collected(slot_B[None])
            losing_RB = best_RB < best_RB.max(dim=0).values
            return slot_RB.masked_fill(losing_RB, self.capacity).min(dim=0).values

    def take(self, slot_B: torch.Tensor, side: Side) -> torch.Tensor:
        """Vectors of some slots, (B, D) float32, on every rank."""
        held = self._vectors[side]
        if self._ranks.size == 1:
            return held[slot_B]
        mine_B = slot_B % self._ranks.size == self._ranks.rank
        taken_BD = held.new_zeros((len(slot_B), held.shape[1]))
        taken_BD[mine_B] = held[slot_B[mine_B] // self._ranks.size]
        return self._ranks.summed(taken_BD)

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that is needed to go on as if nothing had happened; all ranks call it together."""
        whole = {f"{side}_PD": self._ranks.collected(held) for side, held in self._vectors.items()}
        copies = {name: each.to("cpu", copy=True) for name, each in {**whole, "row_P": self.row_P}.items()}
        return {**copies, "cursor": self._cursor, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict(), on any number of ranks."""
        for side, held in self._vectors.items():
            held.copy_(state[f"{side}_PD"][self._ranks.mine])
        self.row_P.copy_(state["row_P"])
        self._cursor, self.filled = int(state["cursor"]), int(state["filled"])

    def _nearest_here(
        self, query_BD: torch.Tensor, side: Side, apart: Sequence[Grouping]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(cosine, slot) of the best that this rank holds, block by block of the pool."""
        ranks, device = self._ranks, query_BD.device
        held = len(range(self.filled)[ranks.mine])
        best_B = torch.full((len(query_BD),), -torch.inf, device=device)
        slot_B = torch.full((len(query_BD),), self.capacity - 1, device=device)
        block = max(1, COMPARED_AT_ONCE // max(1, len(query_BD)))
        for start in range(0, held, block):
            part = slice(start, min(held, start + block))
            cosine_BP = query_BD @ self._vectors[side][part].T
            for group_B, group_P in apart:
                same_BP = group_B[:, None] == group_P[ranks.mine][part][None, :]
                cosine_BP = cosine_BP.masked_fill(same_BP, LAST_RESORT)
            value_B, place_B = cosine_BP.max(dim=1)
            better_B = value_B > best_B
            best_B = torch.where(better_B, value_B, best_B)
            slot_B = torch.where(better_B, (place_B + start) * ranks.size + ranks.rank, slot_B)
        return best_B, slot_B


def default_capacity(pairs: int, *, batch_size: int) -> int:
    """How many pairs a pool should hold beside a corpus of so many: never less than a batch."""
    wanted = max(round(SHARE * pairs), LEAST_BATCHES * batch_size)
    return max(batch_size, min(wanted, round(MOST_SHARE * pairs)))
