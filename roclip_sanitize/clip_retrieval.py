"""Embeddings as clip-retrieval leaves them: which row is which pair's.

    img_emb/img_emb_0.npy       (N, D) floats
    text_emb/text_emb_0.npy     the same of captions, if they are there
    metadata/metadata_0.parquet N rows with each pair's key, as ``image_path`` or ``key``, and its
                                ``caption``, if captions were embedded

A key alone tells little: img2dataset gives every dataset's first pair the same. So a pair whose caption is
not the one that was embedded under its key has no row.

Dimension key: N rows of a file, M pairs, D width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import map_array, read_table
from roclip_sanitize.captions import normalise_caption
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.shards import IMAGE_EXTENSIONS
from roclip_sanitize.storage import exists, names_in
from roclip_sanitize.store import Modality, metadata_file

if TYPE_CHECKING:
    import polars

FOLDERS: dict[Modality, str] = {"image": "img_emb", "text": "text_emb"}
VECTORS_FILE = re.compile(r"img_emb_(.+)\.npy")
# image_path is the key that a pair had in its shard. What clip-retrieval calls key comes out of the pair's
# JSON, where a resharder, such as DataComp's, leaves the key that the pair had before.
KEY_COLUMNS = ("image_path", "key")
CAPTION_COLUMN = "caption"
NOT_TOLD = 0  # instead of a caption's hash

Place = tuple[int, int]  # number of the file, row in it


class OtherEmbeddings:
    """A folder of such embeddings, open for reading.

    Args:
        embeddings: the folder.
        names: its files', in their order; see embedding_files().
        towers: what it has vectors of.

    Memory: 70 bytes and its key for every row.

    Raises:
        DataError: a file is not what it should be.
        MismatchError: one has not as many rows as its metadata, or is of another width than the others; or
            keys are not unique.
    """

    def __init__(self, embeddings: Path, names: Sequence[str], towers: Sequence[Modality]) -> None:
        self._vectors = {modality: _all_vectors(embeddings, names, modality) for modality in towers}
        self._place = dict[str, Place]()
        self._captions = list[NDArray[np.uint64] | None]()
        for name in names:
            self._look_up(metadata_file(embeddings, name), name)

    def _look_up(self, path: Path, name: str) -> None:
        """Note the key, and the caption, of every row of one file."""
        file, frame = len(self._captions), read_table(path)
        keys = _keys(frame, path)
        for modality, files in self._vectors.items():
            if (rows := len(files[file])) != len(keys):
                raise MismatchError(
                    f"{path} has {len(keys):,} rows, and {FOLDERS[modality]}_{name}.npy has {rows:,}"
                )
        for row, key in enumerate(keys):
            if key in self._place:
                raise MismatchError(
                    f"{path} has the key {key!r}, which came before: wanted a key of each pair's own"
                )
            self._place[key] = (file, row)
        self._captions.append(_caption_marks(frame))

    def place(self, key: str, caption: str) -> tuple[Place | None, str]:
        """Where the vectors of a pair are; or None, and why it has none."""
        place = self._place.get(plain_key(key))
        if place is None:
            return None, "its key is not among those of the embeddings"
        flaw = self._flaw(*place, caption)
        return (None if flaw else place), flaw

    def _flaw(self, file: int, row: int, caption: str) -> str:
        """Why a row's vectors are not those of a pair with this caption, or ""."""
        mark_N = self._captions[file]
        if mark_N is not None and mark_N[row] not in (NOT_TOLD, _caption_mark(caption)):
            return "the embeddings have another caption under its key"
        for modality, files in self._vectors.items():
            length = float(np.linalg.norm(np.asarray(files[file][row], np.float32)))
            if not np.isfinite(length) or not length:
                return f"its {modality} vector has length {length}"
        return ""

    def gathered(self, modality: Modality, places: Sequence[Place]) -> NDArray[np.float32]:
        """Unit rows in the order of their places: (M, D)."""
        files = self._vectors[modality]
        vector_MD = np.empty((len(places), files[0].shape[1]), np.float32)
        place_M2 = np.array(places, np.int64).reshape(-1, 2)
        for file in np.unique(place_M2[:, 0]):
            mine = place_M2[:, 0] == file
            vector_MD[mine] = files[file][place_M2[mine, 1]]
        unit_MD: NDArray[np.float32] = vector_MD / np.linalg.norm(vector_MD, axis=1, keepdims=True)
        return unit_MD


def embedding_files(embeddings: Path) -> list[str]:
    """What tells the files of one part apart from those of others, in their order: "0" of img_emb_0.npy.

    Raises:
        DataError: there are none, or one lacks its metadata.
    """
    found = [name for name in names_in(embeddings / "img_emb") if VECTORS_FILE.fullmatch(name)]
    names = sorted((VECTORS_FILE.sub(r"\1", name) for name in found), key=lambda name: (len(name), name))
    if not names:
        raise DataError(f"{embeddings} has no img_emb/img_emb_*.npy: wanted clip-retrieval's layout")
    for name in names:
        if not exists(metadata_file(embeddings, name)):
            raise DataError(f"{metadata_file(embeddings, name)} does not exist, but img_emb_{name}.npy does")
    return names


def embedded_towers(embeddings: Path) -> tuple[Modality, ...]:
    """What a folder has vectors of."""
    return tuple(modality for modality in FOLDERS if names_in(embeddings / FOLDERS[modality]))


def plain_key(key: str) -> str:
    """A shard's key as it is looked up."""
    return key.removeprefix("./")


def _all_vectors(embeddings: Path, names: Sequence[str], modality: Modality) -> list[NDArray[Any]]:
    found = [_vectors(embeddings, name, modality) for name in names]
    for name, vector_ND in zip(names, found, strict=True):
        if vector_ND.shape[1] != found[0].shape[1]:
            raise MismatchError(
                f"{FOLDERS[modality]}_{name}.npy of {embeddings} is {vector_ND.shape[1]:,} wide, and "
                f"{FOLDERS[modality]}_{names[0]}.npy {found[0].shape[1]:,}: wanted vectors of one model"
            )
    return found


def _vectors(embeddings: Path, name: str, modality: Modality) -> NDArray[Any]:
    path = embeddings / FOLDERS[modality] / f"{FOLDERS[modality]}_{name}.npy"
    vector_ND = map_array(path)
    if vector_ND.ndim != 2 or vector_ND.dtype.kind != "f":
        raise DataError(f"{path} holds {vector_ND.dtype} {vector_ND.shape}, wanted rows of floats")
    return vector_ND


def _keys(frame: polars.DataFrame, path: Path) -> list[str]:
    column = next((name for name in KEY_COLUMNS if name in frame.columns), "")
    if not column:
        raise DataError(
            f"{path} has the columns {', '.join(frame.columns)}, wanted one of {', '.join(KEY_COLUMNS)}"
        )
    return [_key(str(key), is_path=column == "image_path") for key in frame[column]]


def _key(told: str, *, is_path: bool) -> str:
    """A key as it is looked up. clip-retrieval tells files by paths, and pairs of shards by their keys."""
    if is_path and Path(told).suffix.lower().lstrip(".") in IMAGE_EXTENSIONS:
        return Path(told).stem
    return plain_key(told)


def _caption_marks(frame: polars.DataFrame) -> NDArray[np.uint64] | None:
    """Each row's caption, or None where captions are not told."""
    if CAPTION_COLUMN not in frame.columns:
        return None
    marks = (_caption_mark(str(caption or "")) for caption in frame[CAPTION_COLUMN])
    return np.fromiter(marks, np.uint64, len(frame))


def _caption_mark(caption: str) -> int:
    """64 bits that stand for a caption: all of a dataset's are more than a worker's memory."""
    if not caption:
        return NOT_TOLD
    return int.from_bytes(hashlib.blake2b(normalise_caption(caption).encode(), digest_size=8).digest())
