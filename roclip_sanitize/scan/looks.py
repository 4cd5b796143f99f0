"""As what cross prediction looks at pictures and captions, and how each part is read as that.

    first   pictures as the store's vectors, captions as their words
    second  both as a young model's vectors, where there are such, starting from what the first found;
            where there are several young models, once for each of them, and what counts is the mean

A young model is a CLIP that saw little, and that little trusted: it sees content where thumbnails show
colours and outlines, and has not met a trigger often enough to see nothing else. After a longer training
it judges worse, not better; two of them, of different seeds, judge better than one (benchmarks/LOG.md).

Dimension key: M rows of a block, V numbers of a row: the width of vectors, or the words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import FROM_NOTHING, FROM_TRUST, Round
from roclip_sanitize.encoders import TEXTURES as TEXTURES_ENCODER
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.scan.columns import Columns
from roclip_sanitize.scan.directions import Vocabulary
from roclip_sanitize.scan.parts import Places
from roclip_sanitize.store import MODALITIES, EmbeddingStore, Modality, StorePart

PICTURE_WIDTH, CAPTION_WIDTH, MODEL_WIDTH, TEXTURE_WIDTH = 192, 256, 128, 128
HALVES = ("picture", "caption")
TEXTURES = "textures"  # the look at them
BLOCK_ROWS = 4_096
PAIR = ("uid", "caption", "image_hash")

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One way to look at all pairs.

    Attributes:
        name: of its folder; "" for the first.
        rounds: of regressions.
        store: whose vectors pictures are.
        captions: store whose vectors captions are; None where they are their words.
        widths: directions of pictures and of captions, at the most; of pictures alone where captions are not
            looked at.
    """

    name: str
    rounds: tuple[Round, ...]
    store: Path
    captions: Path | None
    widths: tuple[int, ...]

    @property
    def halves(self) -> tuple[str, ...]:
        """Those of HALVES that it looks at."""
        return HALVES[: len(self.widths)]

    @property
    def last(self) -> int:
        """Number of the last round."""
        return len(self.rounds) - 1

    def powers(self, half: str) -> list[float]:
        """The whitenings that any of its rounds asks for."""
        return sorted(
            {each.picture_whitening if half == "picture" else each.caption_whitening for each in self.rounds}
        )

    def sources(self, places: Places) -> tuple[Source, ...]:
        """Where its halves are read."""
        pictures = VectorSource(self.store, "image")
        if self.halves == HALVES[:1]:
            return (pictures,)
        if self.captions is None:
            return pictures, WordSource(places)
        return pictures, VectorSource(self.captions, "text")


def looks_at(store: Path, second: Sequence[Path] = ()) -> tuple[Look, ...]:
    """The looks at a store: the first, and one in each young model's vectors."""
    first = Look(
        name="",
        rounds=FROM_NOTHING,
        store=store,
        captions=None,
        widths=(PICTURE_WIDTH, CAPTION_WIDTH),
    )
    again = [
        Look(
            name="second" if number == 1 else f"second_{number}",
            rounds=FROM_TRUST,
            store=young,
            captions=young,
            widths=(MODEL_WIDTH, MODEL_WIDTH),
        )
        for number, young in enumerate(second, start=1)
    ]
    return first, *again


def texture_look(textures: Path) -> Look:
    """The look at pictures' textures, in which traces are looked for: it predicts nothing.

    Raises:
        MismatchError: the store is of something else.
    """
    if (found := EmbeddingStore.open(textures).encoder) != TEXTURES_ENCODER:
        raise MismatchError(
            f"{textures} was made by encoder {found!r}, wanted {TEXTURES_ENCODER!r}: "
            f"embed with --encoder {TEXTURES_ENCODER} --towers image"
        )
    return Look(name=TEXTURES, rounds=(), store=textures, captions=None, widths=(TEXTURE_WIDTH,))


def told_second(settings: Mapping[str, Any]) -> dict[Path, str]:
    """The young models' stores that a scan's stage.json names, each with its content then.

    Older scans have one at the most, and name it without a list.
    """
    named, content = (settings.get(name, []) for name in ("second_look", "second_look_content"))
    if isinstance(named, str):
        named, content = [named], [content]
    return {Path(path): told for path, told in zip(named, content, strict=True)}


def require_same_pairs(
    store: EmbeddingStore, second: EmbeddingStore, modalities: Sequence[Modality] = MODALITIES
) -> None:
    """Refuse a second store that has not the first one's pairs, row by row, or not the halves looked at.

    Pairs are the same that have one name, caption and picture: names alone stay when shards are made anew.

    Raises:
        MismatchError: which part differs, and how; or which half has no vectors.
    """
    if len(store.parts) != len(second.parts):
        raise MismatchError(
            f"{second.path} has {len(second.parts)} parts, wanted the {len(store.parts)} of {store.path}: "
            "embed the same shards"
        )
    for ours, other in zip(store.parts, second.parts, strict=True):
        told = [each.metadata(ours.name, PAIR) for each in (store, second)] if ours == other else []
        if not told or not told[0].equals(told[1]):
            raise MismatchError(
                f"part {other.name} of {second.path} holds {other.rows:,} pairs, which are not the "
                f"{ours.rows:,} of {store.path}, one by one: embed the same shards, and retry what failed"
            )
    for modality in modalities:
        for part in second.parts[:1]:
            second.vectors(part.name, modality)  # refuses now what a look would refuse hours later


class Source(Protocol):
    """Rows of pictures or of captions."""

    centred: bool  # whether directions are of rows about their mean

    def rows(self, part: StorePart, block: slice) -> Any:
        """Some of a part's rows, float32, dense or sparse."""
        ...

    def sums(self, parts: Sequence[StorePart]) -> Arrays:
        """Of all rows of some parts: their "sum" (V,) float64, and what square() reads."""
        ...

    def square(self, sums: Arrays) -> NDArray[np.float64]:
        """The sum of the rows' outer products, (V, V), of what sums() gave."""
        ...


class VectorSource:
    """A store's vectors."""

    centred = True

    def __init__(self, store: Path, modality: Modality) -> None:
        self._store, self._modality = EmbeddingStore.open(store), modality

    def rows(self, part: StorePart, block: slice) -> NDArray[np.float32]:
        """See Source: (M, V)."""
        return np.asarray(self._vectors(part)[block], np.float32)

    def sums(self, parts: Sequence[StorePart]) -> Arrays:
        """See Source. A part without a pair has no width.

        Raises:
            DataError: which row holds what is no number. Nothing after this would know.
        """
        width = max(self._vectors(part).shape[1] for part in parts)
        sum_V, square_VV = np.zeros(width), np.zeros((width, width))
        for part in parts:
            for block in blocks(part):
                row_MV = np.asarray(self._vectors(part)[block], np.float64)
                self._require_numbers(row_MV, part, block)
                sum_V += row_MV.sum(axis=0)
                square_VV += row_MV.T @ row_MV
        return {"sum": sum_V, "square": square_VV}

    def square(self, sums: Arrays) -> NDArray[np.float64]:
        """See Source."""
        return sums["square"]

    def _require_numbers(self, row_MV: NDArray[np.float64], part: StorePart, block: slice) -> None:
        whole_M = np.isfinite(row_MV).all(axis=1)
        if not whole_M.all():
            place = int(np.argmin(whole_M))
            found = row_MV[place][~np.isfinite(row_MV[place])][0]
            where = f"row {block.start + place:,} of part {part.name}"
            raise DataError(
                f"{self._store.path} has {found} in the {self._modality} vector of {where}, wanted numbers: "
                "make the store anew"
            )

    def _vectors(self, part: StorePart) -> NDArray[np.float16]:
        return self._store.vectors(part.name, self._modality)


class WordSource:
    """Captions' words, as directions.Vocabulary has them."""

    centred = False  # sparse rows about their mean would not be sparse

    def __init__(self, places: Places) -> None:
        self._columns = Columns(places.columns)
        self._vocabulary = Vocabulary.of(self._columns.word_counts_W, captions=len(self._columns))

    def rows(self, part: StorePart, block: slice) -> Any:
        """See Source: sparse (M, V)."""
        rows = np.arange(part.start, part.start + part.rows)[block]
        return self._vocabulary.rows(self._columns.words(rows))

    def sums(self, parts: Sequence[StorePart]) -> Arrays:
        """See Source."""
        from scipy.sparse import csr_matrix

        words = len(self._vocabulary)
        sum_V, square = np.zeros(words), csr_matrix((words, words))
        for part in parts:
            for block in blocks(part):
                row_MV = self.rows(part, block).astype(np.float64)
                sum_V += np.asarray(row_MV.sum(axis=0))[0]
                square = square + row_MV.T @ row_MV
        square = square.tocsr()
        square.sort_indices()
        return {"sum": sum_V, "data": square.data, "indices": square.indices, "indptr": square.indptr}

    def square(self, sums: Arrays) -> NDArray[np.float64]:
        """See Source."""
        square_VV = np.zeros((len(sums["sum"]),) * 2)
        row = np.repeat(np.arange(len(square_VV)), np.diff(sums["indptr"]))
        square_VV[row, sums["indices"]] = sums["data"]
        return square_VV


def blocks(part: StorePart) -> Iterator[slice]:
    """Places in a part, block by block."""
    for start in range(0, part.rows, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, part.rows))
