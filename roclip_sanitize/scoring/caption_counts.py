"""How often the corpus uses each word, each two words in a row, and each caption: what its language is.

    CountWorker     of each lot of parts: the numbers that occur in it, and how often
    join_counts()   all lots together; and of each pair, how many have its caption

Words are numbers as in a scan's columns, two words in a row another number of 24 bits. Two of them share one
now and then, which makes a rare one look a little commoner and saves a dictionary.

Dimension key: N pairs of the store, M of a part, W word numbers, B numbers of two words, T words in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import caption_words, normalise_caption
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.neighbours import codes_of
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.array_files import load_arrays, save_array, save_arrays
from roclip_sanitize.scan.columns import WORD_NUMBERS, word_number
from roclip_sanitize.scan.cross_files import Lot, lots_of
from roclip_sanitize.scan.parts import run_missing
from roclip_sanitize.storage import here
from roclip_sanitize.store import EmbeddingStore

PAIR_NUMBERS = 1 << 24
MIX = np.int64(0x9E3779B1)  # odd and large: neighbouring words end far apart
START = word_number("")  # what comes before a caption's first word: no word is empty

TABLES = {"words": WORD_NUMBERS, "before": WORD_NUMBERS, "pairs": PAIR_NUMBERS}  # how many numbers each has

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Captions as the numbers of their words.

    Attributes:
        caption_T: int64, which caption each word is of.
        word_T: int64, from 0 to 2**20 - 1.
        pair_T: int64, of the word and the one before it, from 0 to 2**24 - 1.
        before_T: int64, the word before; START at the beginning.
    """

    caption_T: Numbers
    word_T: Numbers
    pair_T: Numbers
    before_T: Numbers

    @classmethod
    def of(cls, captions: Sequence[str]) -> Words:
        """Read captions, lists of words as captions.caption_words() gives them."""
        numbers = [[word_number(word) for word in caption_words(caption)] for caption in captions]
        caption_T = np.repeat(np.arange(len(numbers)), [len(one) for one in numbers])
        word_T = np.array([number for one in numbers for number in one], np.int64)
        first_T = np.diff(caption_T, prepend=-1) != 0
        before_T = np.where(first_T, START, np.roll(word_T, 1))
        return cls(
            caption_T=caption_T,
            word_T=word_T,
            pair_T=(before_T * MIX + word_T) % PAIR_NUMBERS,
            before_T=before_T,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionCounts:
    """What a corpus says, and how often.

    Attributes:
        word_W: int64, words.
        before_W: int64, words that another follows; at START the captions that have one.
        pair_B: int64, two words in a row.
        copies_N: int64, of each pair of the store how many have its caption, itself among them.
    """

    word_W: Numbers
    before_W: Numbers
    pair_B: Numbers
    copies_N: Numbers

    @classmethod
    def open(cls, folder: Path) -> CaptionCounts:
        """Those that count_captions() left."""
        word_W, before_W, pair_B, copies_N = (
            np.load(here(folder / f"{name}.npy"), mmap_mode="r") for name in (*TABLES, "copies")
        )
        return cls(word_W=word_W, before_W=before_W, pair_B=pair_B, copies_N=copies_N)


class CountWorker:
    """Counts lots, one after the other."""

    def __init__(self, store: Path, folder: Path) -> None:
        self._store, self._folder = EmbeddingStore.open(store), StageFolder(folder)

    def __call__(self, lot: Lot) -> Marker:
        """Count one lot."""
        frames = (self._store.metadata(part.name, ("caption",)) for part in lot.parts)
        captions = [caption for frame in frames for caption in frame["caption"].to_list()]
        words, found = Words.of(captions), dict[str, NDArray[Any]]()
        for name, number_T in zip(TABLES, (words.word_T, words.before_T, words.pair_T), strict=True):
            found[name], found[f"{name}_count"] = np.unique(number_T, return_counts=True)
        codes = codes_of(normalise_caption(caption) for caption in captions)
        path = save_arrays(_lot_file(self._folder.path, lot), codes=codes, **found)
        return self._folder.commit(f"counts_{lot.name}", files=[path], facts={})


def count_captions(store: EmbeddingStore, folder: Path, executor: Executor) -> None:
    """Count all captions of a store, or go on with it; see CaptionCounts.open().

    Memory: of the driver 40 bytes a pair, and 150 MB of tables; of a worker one lot's captions.
    """
    done, lots = StageFolder(folder), lots_of(store.parts)
    if done.marker("counted"):
        return
    run_missing(partial(CountWorker, store.path, folder), lots, done, "counts_", executor)
    tables = {name: np.zeros(numbers, np.int64) for name, numbers in TABLES.items()}
    codes = [np.empty(0, np.uint64)]
    for lot in lots:
        found = load_arrays(_lot_file(folder, lot))
        for name, table in tables.items():
            table[found[name]] += found[f"{name}_count"]
        codes.append(found["codes"])
    tables["copies"] = _copies(np.concatenate(codes))
    files = [save_array(folder / f"{name}.npy", table) for name, table in tables.items()]
    done.commit("counted", files=files, facts={})


def _copies(code_N: NDArray[np.uint64]) -> Numbers:
    _, inverse_N, count = np.unique(code_N, return_inverse=True, return_counts=True)
    copies_N: Numbers = count[inverse_N].astype(np.int64)
    return copies_N


def _lot_file(folder: Path, lot: Lot) -> Path:
    return folder / "lots" / f"counts_{lot.name}.npz"
