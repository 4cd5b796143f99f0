"""What a scan looks up of any pair, by row, in constant time.

    store part ─▶ write_piece() ─▶ pieces/piece_00000.npz ─▶ join_pieces() ─▶ uid.npy, words.npy, …
                  one per worker                             once            Columns, memory-mapped

Neighbours lie anywhere in the store, so that a part-wise table would be read in full for every
part. Here each column is one flat array over all rows, and looking up 20 neighbours reads 20
rows. Columns of varying length (words, caption text) are a flat array and its offsets.

Words are numbers, not strings: crc32 modulo 2**20. Two words share a number now and then, which
costs a little evidence and saves a dictionary that every worker would have to hold.

Dimension key: N pairs of the store, M rows asked for, W word numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import caption_words, normalise_caption
from roclip_sanitize.neighbours import codes_of
from roclip_sanitize.scan.collisions import PictureCaptions
from roclip_sanitize.scan.uids import join_uids, split_uids
from roclip_sanitize.storage import atomic_file, here
from roclip_sanitize.store import EmbeddingStore

WORD_NUMBERS = 1 << 20
WORDS_AT_ONCE = 1 << 24
FLAT_COLUMNS = ("uid", "picture", "caption", "words", "text")


def word_number(word: str) -> int:
    """The word's number, from 0 to 2**20 - 1."""
    return zlib.crc32(word.encode()) % WORD_NUMBERS


def word_of(caption: str, number: int) -> str:
    """The first word of a caption that has a number; "" where none has."""
    return next((word for word in caption_words(caption) if word_number(word) == number), "")


def piece_file(folder: Path, name: str) -> Path:
    """Where one part's share of the columns lies."""
    return folder / "pieces" / f"piece_{name}.npz"


def write_piece(store: EmbeddingStore, name: str, folder: Path) -> Path:
    """Turn one part's names into its share of the columns."""
    frame = store.metadata(name, ("uid", "caption", "image_hash"))
    captions = frame["caption"].to_list()
    words = [sorted({word_number(word) for word in caption_words(caption)}) for caption in captions]
    texts = [caption.encode() for caption in captions]
    path = piece_file(folder, name)
    with atomic_file(path) as file:
        np.savez(
            file,
            uid=split_uids(frame["uid"].to_list()),
            picture=codes_of(frame["image_hash"].to_list()),
            caption=codes_of(normalise_caption(caption) for caption in captions),
            words=np.array([number for row in words for number in row], np.int32),
            words_length=np.array([len(row) for row in words], np.int64),
            text=np.frombuffer(b"".join(texts), np.uint8),
            text_length=np.array([len(text) for text in texts], np.int64),
        )
    return path


def join_pieces(folder: Path, names: Sequence[str]) -> list[Path]:
    """Join the parts' shares, and count what only the whole store can tell.

    Args:
        folder: where the pieces are, and the columns go.
        names: the parts, in order.

    Returns:
        The columns' files.

    Cost: reads every piece once per column; holds 60 bytes per pair while counting captions.
    """
    pieces = [piece_file(folder, name) for name in names]
    files = [_join_flat(folder, column, pieces) for column in FLAT_COLUMNS]
    files += [_join_offsets(folder, column, pieces) for column in ("words", "text")]
    picture_N, caption_N = np.load(here(folder / "picture.npy")), np.load(here(folder / "caption.npy"))
    counted = PictureCaptions.counted(picture_N, caption_N)
    files.append(_save(folder / "captions_start.npy", counted.start_N))
    files.append(_save(folder / "captions_count.npy", counted.count_N))
    files.append(_save(folder / "captions_by_picture.npy", counted.caption_D))
    files.append(
        _save(folder / "word_counts.npy", _count_words(np.load(here(folder / "words.npy"), mmap_mode="r")))
    )
    return files


class Columns:
    """The joined columns, open for reading.

    Attributes:
        picture_N: uint64, equal where the pictures' bytes are equal.
        caption_N: uint64, equal where the normalised captions are equal.
        captions_of: different captions that come with exactly each picture.
        word_counts_W: int64, how many captions use each word number.
    """

    def __init__(self, folder: Path) -> None:
        def mapped(name: str) -> NDArray[Any]:
            array: NDArray[Any] = np.load(here(folder / f"{name}.npy"), mmap_mode="r")
            return array

        self.picture_N, self.caption_N = mapped("picture"), mapped("caption")
        self.captions_of = PictureCaptions(
            start_N=mapped("captions_start"),
            count_N=mapped("captions_count"),
            caption_D=mapped("captions_by_picture"),
        )
        self.word_counts_W = np.load(here(folder / "word_counts.npy"))
        self._uid_N2 = mapped("uid")
        self._words, self._word_offsets = mapped("words"), mapped("words_offsets")
        self._text, self._text_offsets = mapped("text"), mapped("text_offsets")

    def __len__(self) -> int:
        return len(self.picture_N)

    def uids(self, row_M: NDArray[np.int64]) -> list[str]:
        """The rows' uids."""
        return join_uids(self._uid_N2[row_M])

    def captions(self, row_M: NDArray[np.int64]) -> list[str]:
        """The rows' captions."""
        starts, stops = self._text_offsets[row_M], self._text_offsets[row_M + 1]
        return [self._text[start:stop].tobytes().decode() for start, stop in zip(starts, stops, strict=True)]

    def words(self, row_M: NDArray[np.int64]) -> Any:
        """Which words the rows' captions use: sparse (M, W) of ones."""
        from scipy.sparse import csr_matrix

        start_M = self._word_offsets[row_M]
        length_M = self._word_offsets[row_M + 1] - start_M
        offset_M = np.concatenate([[0], np.cumsum(length_M)])
        place = np.repeat(start_M - offset_M[:-1], length_M) + np.arange(offset_M[-1])
        ones = np.ones(len(place))
        return csr_matrix((ones, self._words[place], offset_M), shape=(len(row_M), WORD_NUMBERS))

    def frequency(self, word: str) -> float:
        """The share of all captions that use a word."""
        return float(self.word_counts_W[word_number(word)]) / max(1, len(self))


def write_sparse(path: Path, matrix_NW: Any) -> None:
    """Write a sparse (N, W) matrix by rows, atomically."""
    parts = {"data": matrix_NW.data, "words": matrix_NW.indices.astype(np.int32), "offsets": matrix_NW.indptr}
    with atomic_file(path) as file:
        np.savez(file, **parts)


def read_sparse(path: Path) -> Any:
    """The inverse of write_sparse()."""
    from scipy.sparse import csr_matrix

    with np.load(here(path)) as arrays:
        data, words, offsets = arrays["data"], arrays["words"], arrays["offsets"]
    return csr_matrix((data, words, offsets), shape=(len(offsets) - 1, WORD_NUMBERS))


def _join_flat(folder: Path, column: str, pieces: Sequence[Path]) -> Path:
    shapes = [_read(piece, column).shape for piece in pieces]
    dtype = _read(pieces[0], column).dtype if pieces else np.dtype(np.uint64)
    tail = shapes[0][1:] if shapes else ()
    shape = (sum(one[0] for one in shapes), *tail)
    return _write_array(folder / f"{column}.npy", (_read(piece, column) for piece in pieces), shape, dtype)


def _join_offsets(folder: Path, column: str, pieces: Sequence[Path]) -> Path:
    total = np.concatenate([[0], *(_read(piece, f"{column}_length") for piece in pieces)]).astype(np.int64)
    return _save(folder / f"{column}_offsets.npy", np.cumsum(total))


def _count_words(words: NDArray[np.int32]) -> NDArray[np.int64]:
    counts_W = np.zeros(WORD_NUMBERS, np.int64)
    for start in range(0, len(words), WORDS_AT_ONCE):
        counts_W += np.bincount(words[start : start + WORDS_AT_ONCE], minlength=WORD_NUMBERS)
    return counts_W


def _read(piece: Path, column: str) -> NDArray[Any]:
    with np.load(here(piece)) as arrays:
        array: NDArray[Any] = arrays[column]
        return array


def _save(path: Path, array: NDArray[Any]) -> Path:
    return _write_array(path, [array], array.shape, array.dtype)


def _write_array(
    path: Path, pieces: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Path:
    """Write one .npy from pieces that together need not fit into memory."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with atomic_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(piece.tobytes())
    return path
