"""A pair table made by ``roclip pair``, in the row numbers of a decoded cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.training.data import TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchTable:
    """Whose caption, and whose image, each row gets.

    Attributes:
        caption_row_N: row whose caption replaces row i's, int64.
        image_row_N: row whose image replaces row i's, int64; None for the final version's table.
    """

    caption_row_N: NDArray[np.int64]
    image_row_N: NDArray[np.int64] | None

    @classmethod
    def load(cls, pairs: Path, data: TrainingData) -> MatchTable:
        """Read a table and look its uids up among the cached pairs.

        A pair that the table does not know, or whose partner is not among the cached pairs,
        stays as it is.

        Raises:
            MismatchError: the table shares no pair with the shards to train on.
        """
        from roclip_sanitize.pairing import read_pairs

        frame = read_pairs(pairs)
        row_of = {uid: row for row, uid in enumerate(data.uids())}
        mine = [row_of.get(uid, -1) for uid in frame["uid"]]
        if all(row < 0 for row in mine):
            raise MismatchError(f"pair table {pairs} shares no pair with the shards to train on")
        caption = _lookup(mine, list(frame["caption_uid"]), row_of, data.rows)
        image = None
        if any(frame["image_uid"]):
            image = _lookup(mine, list(frame["image_uid"]), row_of, data.rows)
        return cls(caption_row_N=caption, image_row_N=image)

    def rewritten(self, row_B: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(image rows, caption rows) of each rewriting of a batch."""
        yield row_B, self.caption_row_N[row_B]
        if self.image_row_N is not None:
            yield self.image_row_N[row_B], row_B


def _lookup(mine: list[int], partners: list[str], row_of: dict[str, int], rows: int) -> NDArray[np.int64]:
    partner_N = np.arange(rows, dtype=np.int64)
    for row, uid in zip(mine, partners, strict=True):
        if row >= 0:
            partner_N[row] = row_of.get(uid, row)
    return partner_N
