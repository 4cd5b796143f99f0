"""What cross prediction leaves on the disk on its way, and how a store is cut for it.

    cross/sums/sums_00000.npz           of one lot of parts: sums of both halves, and of their products
    cross/directions.npz                what follows from all of them
    cross/halves/halves_00000.npz       of one part, row by row: see Directions.told(); sums of unit rows
    cross/references.npz                some rows of each fold, which all others are compared with
    cross/votes.npy                     of every row, one divided by the pairs that have its picture
    cross/round_0/weights.npy           of every row: how much the round learns from it
    cross/round_0/squares_00000.npy     of one lot: sums of products of weighted rows, packed; then gone
    cross/round_0/learnt.npz            regressions
    cross/round_0/ranks_00000.npz       of one part, row by row
    cross/suspicion.npy                 of every row
    cross/second/…                      the same of the second look

Sums are of *lots*, runs of consecutive parts, so that however many parts there are, only so many sums lie
on the disk. Lots depend on the store alone, and are added in order: so results are the same bytes whoever
made them.

Dimension key: N pairs; K foldings, F folds; W rows of a square, U numbers of its upper half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import FOLDINGS, FOLDS
from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker
from roclip_sanitize.scan.looks import Look
from roclip_sanitize.scan.parts import Places
from roclip_sanitize.store import StorePart

MOST_LOTS = 64
STEP = "cross"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Consecutive parts that are summed together.

    Attributes:
        name: that of the first.
        parts: at least one.
    """

    name: str
    parts: tuple[StorePart, ...]


def lots_of(parts: Sequence[StorePart]) -> list[Lot]:
    """At most MOST_LOTS lots of equally many parts; fewer in the last."""
    size = max(1, -(-len(parts) // MOST_LOTS))
    runs = [tuple(parts[start : start + size]) for start in range(0, len(parts), size)]
    return [Lot(name=run[0].name, parts=run) for run in runs]


def fold_of(picture_N: NDArray[np.uint64], folding: int) -> NDArray[np.uint64]:
    """Which fold each picture lies in: a bit of its code, so that copies share it."""
    fold_N: NDArray[np.uint64] = (picture_N >> np.uint64(folding)) % np.uint64(FOLDS)
    return fold_N


def strangers(picture_M: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Of each row another, whose picture lies in the same fold of every folding: (M,) places.

    Not a neighbour, which may come from the same page. A row that is alone in its folds gets itself.
    """
    folds_M = picture_M % np.uint64(FOLDS**FOLDINGS)  # see fold_of()
    other_M = np.arange(len(picture_M))
    for folds in np.unique(folds_M):
        mine = np.flatnonzero(folds_M == folds)
        other_M[mine] = np.roll(mine, len(mine) // 2)
    return other_M


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where cross prediction leaves what it found on its way.

    Attributes:
        places: of the scan.
        look: whose files.
    """

    places: Places
    look: Look

    @property
    def folder(self) -> Path:
        """All of it."""
        return self.places.work / "cross" / self.look.name

    @property
    def marked(self) -> str:
        """What the names of its markers begin with."""
        return f"cross_{self.look.name}_" if self.look.name else "cross_"

    @property
    def directions(self) -> Path:
        """The directions of both halves, and the vocabulary."""
        return self.folder / "directions.npz"

    @property
    def references(self) -> Path:
        """Rows that all others are compared with."""
        return self.folder / "references.npz"

    @property
    def votes(self) -> Path:
        """Of every row: (N,) float32."""
        return self.folder / "votes.npy"

    @property
    def suspicion(self) -> Path:
        """Of every row, by all looks: (N,) float32."""
        return self.places.work / "cross" / "suspicion.npy"

    def sums(self, name: str) -> Path:
        """Those of one lot."""
        return self.folder / "sums" / f"sums_{name}.npz"

    def halves(self, name: str) -> Path:
        """Those of one part."""
        return self.folder / "halves" / f"halves_{name}.npz"

    def weights(self, number: int) -> Path:
        """How much a round learns from each row of the store: (N,) float32."""
        return self._round(number) / "weights.npy"

    def squares(self, number: int, name: str) -> Path:
        """One lot's sums of products, in a round."""
        return self._round(number) / f"squares_{name}.npy"

    def learnt(self, number: int) -> Path:
        """A round's regressions."""
        return self._round(number) / "learnt.npz"

    def ranks(self, number: int, name: str) -> Path:
        """One part's ranks, in a round."""
        return self._round(number) / f"ranks_{name}.npz"

    def last_ranks(self, name: str) -> Path:
        """One part's ranks, in the last round."""
        return self.ranks(self.look.last, name)

    def commit(self, name: str, *files: Path, laps: Laps, rows: int = 0, workers: int = 1) -> Marker:
        """Declare a step done, and book its time."""
        laps.lap(STEP)
        return self.places.commit(f"{self.marked}{name}", *files, rows=rows, laps=laps, workers=workers)

    def _round(self, number: int) -> Path:
        return self.folder / f"round_{number}"


def one_thread() -> Any:
    """A block in which matrix products use one thread: with another number they may round otherwise."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


def packed(square_KFWW: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper halves of symmetric squares, row by row: (K, F, U), half as much to write, send and hash."""
    upper = np.triu_indices(square_KFWW.shape[-1])
    half_KFU: NDArray[np.float64] = square_KFWW[..., *upper]
    return half_KFU


def unpacked(half_KFU: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of packed()."""
    width = math.isqrt(2 * half_KFU.shape[-1])  # U is W (W + 1) / 2
    square_KFWW = np.zeros((*half_KFU.shape[:-1], width, width))
    row, column = np.triu_indices(width)
    square_KFWW[..., row, column] = half_KFU
    square_KFWW[..., column, row] = half_KFU
    return square_KFWW
