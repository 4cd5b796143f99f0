"""Pictures and captions of a store as rows along their main directions, part by part.

    SumWorker              of each lot of parts: sums of pictures and of captions, and their products
    find_directions()      what follows from all of them: where pictures differ most, and where captions do
    HalvesWorker           of each part: its rows along the directions
    choose_references()    rows that all others are compared with, and each pair's vote

and Halves reads them, whitened as a round wants them.

Dimension key: N pairs of a part, M of a block, P directions of pictures, E of captions, V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import (
    FOLDINGS,
    FOLDS,
    FROM_NOTHING,
    REFERENCES,
    Round,
    scales,
    unit_rows,
)
from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker, atomic_file
from roclip_sanitize.scan.columns import Columns
from roclip_sanitize.scan.cross_files import Files, Lot, fold_of, load_arrays, one_thread, save_arrays
from roclip_sanitize.scan.directions import Directions, Vocabulary
from roclip_sanitize.scan.parts import Places, rows_of
from roclip_sanitize.store import EmbeddingStore, StorePart

PICTURE_WIDTH, CAPTION_WIDTH = 192, 256
BLOCK_ROWS = 4_096
HALVES = ("picture", "caption")

Vectors = NDArray[np.float32]


class SumWorker:
    """Sums lots: what directions are found from."""

    def __init__(self, places: Places) -> None:
        self._files = Files(places=places)
        self._store, self._columns = EmbeddingStore.open(places.store), Columns(places.columns)
        self._vocabulary = Vocabulary.of(self._columns.word_counts_W, captions=len(self._columns))

    def __call__(self, lot: Lot) -> Marker:
        """Sum one lot."""
        from scipy.sparse import csr_matrix

        laps, words = Laps(), len(self._vocabulary)
        said_sum, said_square = np.zeros(words), csr_matrix((words, words))
        width = max(self._store.vectors(part.name, "image").shape[1] for part in lot.parts)
        seen_sum, seen_square = np.zeros(width), np.zeros((width, width))
        with one_thread():
            for part in lot.parts:
                for rows, image_MD in _blocks(self._store, part):
                    seen_sum += image_MD.sum(axis=0)
                    seen_square += image_MD.T @ image_MD
                    said = self._vocabulary.rows(self._columns.words(rows)).astype(np.float64)
                    said_sum += np.asarray(said.sum(axis=0))[0]
                    said_square = said_square + said.T @ said
        said_square = said_square.tocsr()
        said_square.sort_indices()
        path = save_arrays(
            self._files.sums(lot.name),
            picture_sum=seen_sum,
            picture_square=seen_square,
            caption_sum=said_sum,
            caption_data=said_square.data,
            caption_indices=said_square.indices,
            caption_indptr=said_square.indptr,
        )
        return self._files.commit(f"sums_{lot.name}", path, laps=laps)


def find_directions(files: Files, lots: Sequence[Lot], *, rows: int, words: int) -> Path:
    """Add up all lots, in order. Memory: twice the products of words, 134 MB at most each."""
    said_square, said_sum = np.zeros((words, words)), np.zeros(words)
    seen_square, seen_sum = np.zeros((0, 0)), np.zeros(0)
    for lot in lots:
        told = load_arrays(files.sums(lot.name))
        row = np.repeat(np.arange(words), np.diff(told["caption_indptr"]))
        said_square[row, told["caption_indices"]] += told["caption_data"]
        said_sum += told["caption_sum"]
        if told["picture_sum"].size:  # a part without a pair has no width
            seen_square = told["picture_square"] + (seen_square if seen_square.size else 0)
            seen_sum = told["picture_sum"] + (seen_sum if seen_sum.size else 0)
    picture = Directions.of(seen_square, seen_sum, rows=rows, width=PICTURE_WIDTH, centred=True)
    caption = Directions.of(said_square, said_sum, rows=rows, width=CAPTION_WIDTH, centred=False)
    told = {
        f"{half}_{name}": getattr(one, name)
        for half, one in (("picture", picture), ("caption", caption))
        for name in ("mean_V", "turn_VE", "deviation_E")
    }
    return save_arrays(files.directions, **told)


def read_directions(files: Files) -> tuple[Directions, Directions]:
    """Of pictures, and of captions."""
    told = load_arrays(files.directions)
    names = ("mean_V", "turn_VE", "deviation_E")
    picture, caption = (
        Directions(**{name: told[f"{half}_{name}"] for name in names}) for half in ("picture", "caption")
    )
    return picture, caption


class HalvesWorker:
    """Tells parts' pictures and captions along the directions."""

    def __init__(self, places: Places) -> None:
        self._files = Files(places=places)
        self._store, self._columns = EmbeddingStore.open(places.store), Columns(places.columns)
        self._vocabulary = Vocabulary.of(self._columns.word_counts_W, captions=len(self._columns))
        self._picture, self._caption = read_directions(self._files)

    def __call__(self, part: StorePart) -> Marker:
        """Tell one part."""
        laps = Laps()
        picture_NP = np.empty((part.rows, self._picture.width), np.float16)
        caption_NE = np.empty((part.rows, self._caption.width), np.float16)
        known_N = np.zeros(part.rows, np.bool_)
        with one_thread():
            for rows, image_MD in _blocks(self._store, part):
                block = rows - part.start
                picture_NP[block] = self._picture.told(image_MD.astype(np.float32))
                said_MV = self._vocabulary.rows(self._columns.words(rows))
                caption_NE[block] = self._caption.told(said_MV)
                known_N[block] = np.diff(said_MV.indptr) > 0
        unit_sums = {
            _sum_name(half, power): sum(
                unit_told(told[start : start + BLOCK_ROWS], deviation, power).sum(axis=0, dtype=np.float64)
                for start in range(0, max(part.rows, 1), BLOCK_ROWS)
            )
            for half, told, deviation in (
                ("picture", picture_NP, self._picture.deviation_E),
                ("caption", caption_NE, self._caption.deviation_E),
            )
            for power in _powers(half)
        }
        path = save_arrays(
            self._files.halves(part.name), picture=picture_NP, caption=caption_NE, known=known_N, **unit_sums
        )
        return self._files.commit(f"halves_{part.name}", path, laps=laps)


def choose_references(files: Files, parts: Sequence[StorePart]) -> list[Path]:
    """Choose what rows are compared with, and count votes.

    Returns:
        The files.

    Memory: 40 bytes a pair, while pictures are counted.
    """
    picture_N = np.asarray(Columns(files.places.columns).picture_N)
    _, number_N, copies = np.unique(picture_N, return_inverse=True, return_counts=True)
    with atomic_file(files.votes) as file:
        np.save(file, (1 / copies[number_N]).astype(np.float32))
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
            for power in _powers(half):
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
        for start in range(0, part.rows, BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, part.rows))
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


def _powers(half: str) -> list[float]:
    """The whitenings that any round asks for."""
    return sorted(
        {each.picture_whitening if half == "picture" else each.caption_whitening for each in FROM_NOTHING}
    )


def _sum_name(half: str, power: float) -> str:
    return f"{half}_unit_{power}"


def _blocks(
    store: EmbeddingStore, part: StorePart
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Rows' numbers and their pictures' vectors, float64, block by block."""
    image_ND, rows = store.vectors(part.name, "image"), rows_of(part)
    for start in range(0, part.rows, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        yield rows[block], np.asarray(image_ND[block], np.float64)
