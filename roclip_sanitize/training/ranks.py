"""What the ranks of one training exchange.

Rank r of n takes every n-th pair of a step, from the r-th on, and holds every n-th slot of the pool. What
they exchange is put together in the order that one rank alone would have had, so that nothing above
this module depends on their number.

Dimension key: B pairs of a step over all ranks, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This rank among the others; alone by default.

    Attributes:
        rank: from 0.
        size: how many there are. More than one need torch.distributed to be set up.
    """

    rank: int = 0
    size: int = 1

    @property
    def mine(self) -> slice:
        """Which rows of a step, and which slots of the pool, are this rank's."""
        return slice(self.rank, None, self.size)

    def gathered(self, local_BD: torch.Tensor) -> torch.Tensor:
        """All ranks' rows with their gradients, in the order that one rank alone would have."""
        if self.size == 1:
            return local_BD
        from torch.distributed.nn.functional import all_gather

        return self._interleaved(all_gather(local_BD))  # type: ignore[no-untyped-call]

    def collected(self, local: torch.Tensor) -> torch.Tensor:
        """The same without gradients, for any rows; parts may differ in length by one."""
        if self.size == 1:
            return local
        lengths = torch.zeros(self.size, dtype=torch.int64, device=local.device)
        lengths[self.rank] = len(local)
        distributed.all_reduce(lengths)
        longest = int(lengths.max())
        padded = local.new_zeros((longest, *local.shape[1:]))
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        return self._interleaved([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on each of them."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def from_first(self, value: int, device: torch.device) -> int:
        """What the first rank says: each rank hears the same."""
        if self.size == 1:
            return value
        said = torch.tensor(value if self.rank == 0 else 0, device=device)
        return int(self.summed(said))

    def _interleaved(self, parts: Any) -> torch.Tensor:
        count = sum(len(part) for part in parts)
        whole = parts[0].new_zeros((count, *parts[0].shape[1:]))
        rows = torch.arange(count, device=whole.device)
        order = torch.cat([rows[rank :: self.size] for rank in range(self.size)])
        woven: torch.Tensor = whole.index_copy(0, order, torch.cat(list(parts)))
        return woven
