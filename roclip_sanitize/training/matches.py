"""A pair table made by ``roclip pair``, in the row numbers of a decoded cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.training.data import TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchTable:
    """Whose caption, and whose image, each row gets.

    Attributes:
        caption_row_N: row whose caption replaces row i's, int64.
        image_row_N: row whose image replaces row i's, int64; None for the final version's table.
        method: "first" or "final": which version's it is.
    """

    caption_row_N: NDArray[np.int64]
    image_row_N: NDArray[np.int64] | None
    method: str

    @classmethod
    def load(cls, pairs: Path, data: TrainingData) -> MatchTable:
        """Read a table and look its uids up among the cached pairs.

        A pair that the table does not know, or whose partner is not among the cached pairs,
        stays as it is. Pairs that share a uid are told apart by their turn among those, in the table as in
        the cache; which of them is somebody's partner no table says: the first that is another pair is.

        Raises:
            MismatchError: the table shares no pair with the shards to train on.
        """
        from roclip_sanitize.pairing import read_pairs

        frame = read_pairs(pairs)
        rows = _Rows(data.uids())
        mine = rows.in_turn(frame["uid"])
        if all(row < 0 for row in mine):
            raise MismatchError(f"pair table {pairs} shares no pair with the shards to train on")
        caption = rows.partners(mine, frame["caption_uid"])
        image = rows.partners(mine, frame["image_uid"]) if any(frame["image_uid"]) else None
        method = StageFolder(pairs).facts.get("method") or ("final" if image is None else "first")
        return cls(caption_row_N=caption, image_row_N=image, method=method)

    def require(self, pairing: str) -> None:
        """Refuse to be of another version than was asked for; "final" is also what nobody asked for.

        Raises:
            ConfigError: it is.
        """
        if pairing not in ("final", self.method):
            raise ConfigError(
                f"pairing is {pairing!r}, but the table of pairs was made with method {self.method!r}"
            )

    def rewritten(self, row_B: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(image rows, caption rows) of each rewriting of a batch."""
        yield row_B, self.caption_row_N[row_B]
        if self.image_row_N is not None:
            yield self.image_row_N[row_B], row_B


class _Rows:
    """Where pairs lie, by uid."""

    def __init__(self, uids: Sequence[str]) -> None:
        self._many = len(uids)
        self._first: dict[str, int] = {}
        self._later: dict[str, list[int]] = {}
        for row, uid in enumerate(uids):
            if self._first.setdefault(uid, row) != row:
                self._later.setdefault(uid, []).append(row)

    def in_turn(self, uids: Iterable[str]) -> list[int]:
        """Rows of pairs that are listed in order; -1 of those that are not there."""
        left = {uid: iter((self._first[uid], *later)) for uid, later in self._later.items()}
        return [next(left[uid], -1) if uid in left else self._first.get(uid, -1) for uid in uids]

    def partners(self, mine: Iterable[int], uids: Iterable[str]) -> NDArray[np.int64]:
        """(N,) whose caption or image each row gets, given lines of a table: its own where there is none."""
        partner_N = np.arange(self._many, dtype=np.int64)
        for row, uid in zip(mine, uids, strict=True):
            if row >= 0:
                found = self._first.get(uid, row)
                partner_N[row] = self._later[uid][0] if found == row and uid in self._later else found
        return partner_N
