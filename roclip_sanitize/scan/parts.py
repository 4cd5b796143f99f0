"""The scan's work on one store part, as workers do it: column pieces, then scores.

Two passes, because words are counted over all captions of the store before a part is scored; and
a third, in judging.py, because the budget is spent on the worst pairs of all.

Dimension key: N pairs of a part, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.runfiles import Marker, StageFolder, atomic_file
from roclip_sanitize.scan.agreement import suspicion
from roclip_sanitize.scan.collisions import Collisions, count_collisions
from roclip_sanitize.scan.columns import Columns, write_piece
from roclip_sanitize.scan.search import BLOCK_ROWS, What, rows_file
from roclip_sanitize.store import EmbeddingStore, StorePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One part's scores.

    Attributes:
        suspicion_N: float32, see agreement.suspicion(); NaN where there is none.
        collisions: counts, zeros where nobody looked.
    """

    suspicion_N: NDArray[np.float32]
    collisions: Collisions

    def write(self, path: Path) -> None:
        """Write the scores, whole or not at all."""
        with atomic_file(path) as file:
            np.savez(
                file,
                suspicion=self.suspicion_N,
                captions_of_picture=self.collisions.captions_of_picture_N,
                pictures_of_caption=self.collisions.pictures_of_caption_N,
            )

    @classmethod
    def read(cls, path: Path) -> Scores:
        """The inverse of write()."""
        with np.load(path) as arrays:
            return cls(
                suspicion_N=arrays["suspicion"],
                collisions=Collisions(
                    captions_of_picture_N=arrays["captions_of_picture"],
                    pictures_of_caption_N=arrays["pictures_of_caption"],
                ),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a scan finds and leaves its files.

    Attributes:
        store: the embedding store.
        work: intermediate results.
    """

    store: Path
    work: Path

    @property
    def columns(self) -> Path:
        """The folder of the columns."""
        return self.work / "columns"

    @property
    def ranking(self) -> Path:
        """All suspicions, ascending, NaN left out."""
        return self.work / "ranking.npy"

    def scores(self, name: str) -> Path:
        """One part's raw scores."""
        return self.work / "scores" / f"scores_{name}.npz"

    def rows(self, what: What, part: StorePart) -> NDArray[np.int64]:
        """What a search noted for a part: (N, K); (N, 0) where there was no such search."""
        path = rows_file(self.work, what, part.name)
        if not path.exists():
            return np.empty((part.rows, 0), np.int64)
        row_NK: NDArray[np.int64] = np.load(path)
        return row_NK


class PieceWorker:
    """Writes parts' shares of the columns."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._store = EmbeddingStore.open(places.store)

    def __call__(self, part: StorePart) -> Marker:
        """Write one part's share."""
        path = write_piece(self._store, part.name, self._places.columns)
        return StageFolder(self._places.work).commit(
            f"piece_{part.name}", files=[path], facts={"rows": part.rows}
        )


class ScoreWorker:
    """Scores parts with the chosen detectors."""

    def __init__(self, places: Places, detectors: Sequence[str]) -> None:
        self._places = places
        self._detectors = detectors
        self._columns = Columns(places.columns)

    def __call__(self, part: StorePart) -> Marker:
        """Score one part."""
        path = self._places.scores(part.name)
        Scores(suspicion_N=self._agreement(part), collisions=self._collisions(part)).write(path)
        return StageFolder(self._places.work).commit(
            f"scores_{part.name}", files=[path], facts={"rows": part.rows}
        )

    def _agreement(self, part: StorePart) -> NDArray[np.float32]:
        score_N = np.full(part.rows, np.nan, np.float32)
        if "agreement" not in self._detectors:
            return score_N
        neighbours_NK = self._places.rows("neighbours", part)
        for start in range(0, part.rows, BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, part.rows))
            score_N[block] = suspicion(rows_of(part)[block], neighbours_NK[block], self._columns)
        return score_N

    def _collisions(self, part: StorePart) -> Collisions:
        if "collisions" not in self._detectors:
            return Collisions.none(part.rows)
        return count_collisions(
            rows_of(part),
            self._places.rows("copies", part),
            picture=self._columns.picture_N,
            caption=self._columns.caption_N,
            captions_of_picture=self._columns.captions_of_picture_N,
        )


def rows_of(part: StorePart) -> NDArray[np.int64]:
    """Numbers of a part's rows in the whole store."""
    return np.arange(part.start, part.start + part.rows)
