"""Tiny embedding stores, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.store import (
    EmbeddingStore,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)

MODEL = "0123456789abcdef"


def make_store(
    path: Path,
    image_ND: NDArray[np.floating[Any]],
    text_ND: NDArray[np.floating[Any]],
    part_sizes: Sequence[int],
    *,
    captions: Sequence[str] | None = None,
    image_hashes: Sequence[str] | None = None,
    joint: bool = True,
) -> EmbeddingStore:
    """Write a finished store.

    Args:
        path: an absent or empty folder.
        image_ND: N rows of any length but zero; they are brought to length 1.
        text_ND: the same.
        part_sizes: rows of each part, N in sum.
        captions: N captions; "caption 0", "caption 1", … if absent.
        image_hashes: N hashes; all different if absent.
        joint: whether images and captions share one space.
    """
    rows = len(image_ND)
    assert sum(part_sizes) == rows == len(text_ND)
    captions = captions or [f"caption {row}" for row in range(rows)]
    image_hashes = image_hashes or [f"{row:032x}" for row in range(rows)]
    shards = [f"{part:05d}.tar" for part in range(len(part_sizes))]
    encoder = {
        "name": "by hand",
        "digest": MODEL,
        "joint": joint,
        "image_width": image_ND.shape[1],
        "text_width": text_ND.shape[1],
    }
    folder = StageFolder.create(path, stage="embed", settings={"encoder": encoder, "shards": shards})
    start = 0
    for part, size in enumerate(part_sizes):
        own, name = slice(start, start + size), f"{part:05d}"
        image, text, metadata = (
            vectors_file(path, name, "image"),
            vectors_file(path, name, "text"),
            metadata_file(path, name),
        )
        write_vectors(image, unit_rows(image_ND[own]))
        write_vectors(text, unit_rows(text_ND[own]))
        columns = {
            "uid": [f"{row:032x}" for row in range(rows)[own]],
            "key": [f"{row:09d}" for row in range(rows)[own]],
            "shard": [shards[part]] * size,
            "caption": list(captions[own]),
            "image_hash": list(image_hashes[own]),
        }
        write_parquet(metadata, polars.DataFrame(columns, schema=dict.fromkeys(columns, polars.String)))
        files = [image, text, metadata, write_failures(path, name, [])]
        folder.commit(name, files=files, facts={"rows": size, "tally": Tally(seen=size).to_json()})
        start += size
    folder.finish({"tally": Tally(seen=rows).to_json(), "encoder": encoder})
    return EmbeddingStore.open(path)


def as_if_by(encoder: str, store: EmbeddingStore) -> EmbeddingStore:
    """A store that says it was made by some encoder."""
    told = read_json(store.path / "stage.json")
    told["settings"]["encoder"]["name"] = encoder
    write_json(store.path / "stage.json", told)
    return EmbeddingStore.open(store.path)


def unit_rows(vectors_ND: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows of length 1."""
    rows_ND = np.asarray(vectors_ND, np.float32)
    unit_ND: NDArray[np.float32] = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return unit_ND
