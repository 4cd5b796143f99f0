"""Pictures and captions of a store as rows along their main directions, part by part, for one look.

    SumWorker              of each lot of parts: sums of pictures and of captions, and their products
    find_directions()      what follows from all of them: where pictures differ most, and where captions do
    HalvesWorker           of each part: its rows along the directions
    choose_references()    rows that all others are compared with, and each pair's vote

and Halves reads them, whitened as a round wants them. What is a row, looks.py says.

Dimension key: N pairs of a part, M of a block, P directions of pictures, E of captions, V numbers of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import FOLDINGS, FOLDS, REFERENCES, Round, scales, unit_rows
from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker
from roclip_sanitize.scan.array_files import load_arrays, save_array, save_arrays
from roclip_sanitize.scan.columns import Columns
from roclip_sanitize.scan.cross_files import Files, Lot, fold_of, one_thread
from roclip_sanitize.scan.directions import Directions
from roclip_sanitize.scan.looks import HALVES, blocks
from roclip_sanitize.store import StorePart

DIRECTIONS = ("mean_V", "turn_VE", "deviation_E")

Vectors = NDArray[np.float32]


class SumWorker:
    """Sums lots: what directions are found from."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sources = files.look.sources(files.places)

    def __call__(self, lot: Lot) -> Marker:
        """Sum one lot."""
        laps, sums = Laps(), dict[str, NDArray[Any]]()
        with one_thread():
            for half, source in zip(self._files.look.halves, self._sources, strict=True):
                sums |= {f"{half}_{name}": array for name, array in source.sums(lot.parts).items()}
        path = save_arrays(self._files.sums(lot.name), **sums)
        return self._files.commit(f"sums_{lot.name}", path, laps=laps)


def find_directions(files: Files, lots: Sequence[Lot], *, rows: int) -> Path:
    """Add up all lots, in order. Memory: three times the products of words, 134 MB at most each."""
    told = dict[str, NDArray[Any]]()
    sources = files.look.sources(files.places)
    for half, source, width in zip(files.look.halves, sources, files.look.widths, strict=True):
        sum_V, square_VV = np.zeros(0), np.zeros((0, 0))
        for lot in lots:
            found = load_arrays(files.sums(lot.name))
            its = {name.removeprefix(f"{half}_"): found[name] for name in found if name.startswith(half)}
            if its["sum"].size:  # a part without a pair has no width
                sum_V = its["sum"] + (sum_V if sum_V.size else 0)
                square_VV = source.square(its) + (square_VV if square_VV.size else 0)
        with one_thread():  # sums of several are rounded otherwise
            one = Directions.of(square_VV, sum_V, rows=rows, width=width, centred=source.centred)
        told |= {f"{half}_{name}": getattr(one, name) for name in DIRECTIONS}
    return save_arrays(files.directions, **told)


def read_directions(files: Files) -> tuple[Directions, ...]:
    """Of each half that is looked at."""
    told = load_arrays(files.directions)
    return tuple(
        Directions(**{name: told[f"{half}_{name}"] for name in DIRECTIONS}) for half in files.look.halves
    )


class HalvesWorker:
    """Tells parts' pictures and captions along the directions."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sources = files.look.sources(files.places)
        self._directions = read_directions(files)

    def __call__(self, part: StorePart) -> Marker:
        """Tell one part."""
        laps, told = Laps(), dict[str, NDArray[Any]]()
        known_N = np.ones(part.rows, np.bool_)
        with one_thread():
            halves = self._files.look.halves
            for half, source, directions in zip(halves, self._sources, self._directions, strict=True):
                told[half] = np.empty((part.rows, directions.width), np.float16)
                for block in blocks(part):
                    row_MV = source.rows(part, block)
                    told[half][block] = directions.told(row_MV)
                    if not source.centred:  # words: a caption may have none that others use
                        known_N[block] = np.diff(row_MV.indptr) > 0
            for half, directions in zip(halves, self._directions, strict=True):
                for power in self._files.look.powers(half):
                    each = (unit_told(told[half][one], directions.deviation_E, power) for one in blocks(part))
                    none = np.zeros(directions.width)
                    told[_sum_name(half, power)] = sum(
                        (unit_ME.sum(axis=0, dtype=np.float64) for unit_ME in each), none
                    )
        path = save_arrays(self._files.halves(part.name), known=known_N, **told)
        return self._files.commit(f"halves_{part.name}", path, laps=laps)


def choose_references(files: Files, parts: Sequence[StorePart]) -> list[Path]:
    """Choose what rows are compared with, and count votes.

    Returns:
        The files.

    Memory: 40 bytes a pair, while pictures are counted.
    """
    picture_N = np.asarray(Columns(files.places.columns).picture_N)
    _, number_N, copies = np.unique(picture_N, return_inverse=True, return_counts=True)
    save_array(files.votes, (1 / copies[number_N]).astype(np.float32))
    rng, chosen = np.random.default_rng(0), dict[str, NDArray[Any]]()
    for folding in range(FOLDINGS):
        for fold in range(FOLDS):
            member = np.flatnonzero(fold_of(picture_N, folding) == fold)
            few = min(REFERENCES, len(member))
            chosen[f"{folding}_{fold}"] = np.sort(rng.choice(member, few, replace=False))
    widths = {half: one.width for half, one in zip(HALVES, read_directions(files), strict=True)}
    found = {
        f"{half}_{name}": np.empty((len(row), widths[half]), np.float16)
        for name, row in chosen.items()
        for half in HALVES
    }
    means: dict[str, NDArray[Any]] = {}
    for part in parts:
        told = load_arrays(files.halves(part.name))
        for name, row in chosen.items():
            here = (row >= part.start) & (row < part.start + part.rows)
            for half in HALVES:
                found[f"{half}_{name}"][here] = told[half][row[here] - part.start]
        for half in HALVES:
            for power in files.look.powers(half):
                name = _sum_name(half, power)
                means[name] = means.get(name, np.zeros(widths[half])) + told[name] / max(len(picture_N), 1)
    return [files.votes, save_arrays(files.references, **found, **means)]


class Halves:
    """Rows of both halves, whitened as a round wants them.

    Args:
        files: with directions and references.
        each: the round.
    """

    def __init__(self, files: Files, each: Round) -> None:
        self._files = files
        self._powers = {"picture": each.picture_whitening, "caption": each.caption_whitening}
        self._references = load_arrays(files.references)
        self._deviations = {
            half: one.deviation_E for half, one in zip(HALVES, read_directions(files), strict=True)
        }

    def blocks(self, part: StorePart) -> Iterator[tuple[slice, Vectors, Vectors]]:
        """Places in the part, pictures (M, P) and captions (M, E), block by block; float32."""
        told = load_arrays(self._files.halves(part.name))
        for block in blocks(part):
            picture_MP, caption_ME = (self._whitened(half, told[half][block]) for half in HALVES)
            yield block, picture_MP, caption_ME

    def references(self, folding: int, fold: int) -> tuple[Vectors, Vectors]:
        """Pictures (R, P) and captions (R, E) of one fold's references."""
        picture_RP, caption_RE = (
            self._whitened(half, self._references[f"{half}_{folding}_{fold}"]) for half in HALVES
        )
        return picture_RP, caption_RE

    @cached_property
    def widths(self) -> tuple[int, int]:
        """P and E."""
        picture, caption = (len(self._deviations[half]) for half in HALVES)
        return picture, caption

    def _whitened(self, half: str, told_ME: NDArray[np.float16]) -> Vectors:
        power = self._powers[half]
        mean_E = self._references[_sum_name(half, power)]
        centred_ME: Vectors = unit_told(told_ME, self._deviations[half], power) - mean_E.astype(np.float32)
        return centred_ME


def unit_told(told_ME: NDArray[np.float16], deviation_E: Vectors, power: float) -> Vectors:
    """Rows told in deviations, each direction divided by its deviation to a power; unit rows."""
    return unit_rows(told_ME.astype(np.float32) * (deviation_E / scales(deviation_E, power)))


def _sum_name(half: str, power: float) -> str:
    return f"{half}_unit_{power}"
