"""What an index is to hold: settings, checked against the store, and the rows that are drawn.

    IndexSettings ─▶ checked_width() ─▶ create_folder() ─▶ part_tasks() ─▶ index.py

Every draw depends on the seed and the store alone, never on parts or workers.

Dimension key: N rows, D width.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.store import MODALITIES, EmbeddingStore, Modality, StorePart

KINDS = ("flat",)
TRAINING_ROWS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """What to index.

    Attributes:
        store: the embedding store.
        modality: whose vectors.
        kind: "flat": every vector is kept whole and compared with every query.
        transform: "" for the vectors as they are, "pca96" for their 96 main directions,
            half-whitened, rows of unit length again. Queries are transformed alike.
        parts: into how many files, at most one per shard; 0 takes what the folder was begun with,
            else as many as there are workers.
        pool: index only so many rows, drawn by ``seed``; 0 takes all.
        seed: of the training sample, the pool and the queries that measure recall.
    """

    store: Path
    modality: Modality = "image"
    kind: str = "flat"
    transform: str = ""
    parts: int = 0
    pool: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ConfigError(f"modality is {self.modality!r}, wanted one of {', '.join(MODALITIES)}")
        if self.kind not in KINDS:
            raise ConfigError(f"index kind is {self.kind!r}, wanted one of {', '.join(KINDS)}")
        if not re.fullmatch(r"(pca[1-9]\d*)?", self.transform):
            raise ConfigError(f"transform is {self.transform!r}, wanted '' or for example 'pca96'")
        if self.parts < 0 or self.pool < 0:
            raise ConfigError(f"parts is {self.parts} and pool is {self.pool}, wanted 0 or more")

    @property
    def directions(self) -> int:
        """Width after the transform; 0 without one."""
        return int(self.transform.removeprefix("pca") or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One index part to build.

    Attributes:
        name: five digits.
        store_parts: the store parts that it holds.
    """

    name: str
    store_parts: tuple[StorePart, ...]


def checked_width(settings: IndexSettings, store: EmbeddingStore) -> int:
    """Width of the store's vectors, once the settings are known to fit them.

    Raises:
        ConfigError: more directions or pool rows are wanted than there are.
        DataError: the store has no rows.
    """
    filled = next((part for part in store.parts if part.rows), None)
    if filled is None:
        raise DataError(f"{store.path} has no rows to index")
    width: int = store.vectors(filled.name, settings.modality).shape[1]
    most = min(width, store.rows, TRAINING_ROWS)
    if settings.directions > most:
        raise ConfigError(
            f"{settings.transform} wants {settings.directions} directions, "
            f"{store.rows} rows of width {width} have {most}"
        )
    if settings.pool > store.rows:
        raise ConfigError(f"pool is {settings.pool}, {store.path} has {store.rows} rows")
    return width


def create_folder(settings: IndexSettings, store: EmbeddingStore, *, out: Path, workers: int) -> StageFolder:
    """The index folder, its number of parts decided once and for all."""
    begun = out / "stage.json"
    parts = settings.parts
    if not parts and begun.exists():
        parts = int(read_json(begun)["settings"].get("parts", 0))
    decided = {
        "store": str(settings.store),
        "model": store.model,
        "modality": settings.modality,
        "kind": settings.kind,
        "transform": settings.transform,
        "parts": min(parts or workers, len(store.parts)),
        "pool": settings.pool,
        "seed": settings.seed,
    }
    return StageFolder.create(out, stage="index", settings=decided)


def part_tasks(store: EmbeddingStore, folder: StageFolder) -> list[PartTask]:
    """The store's parts as contiguous runs of about equal length."""
    bounds = np.linspace(0, len(store.parts), folder.settings["parts"] + 1).astype(int)
    return [
        PartTask(name=f"{number:05d}", store_parts=store.parts[first:last])
        for number, (first, last) in enumerate(itertools.pairwise(bounds))
    ]


def drawn_rows(store: EmbeddingStore, count: int, *, seeds: list[int]) -> NDArray[np.int64]:
    """Some row numbers of the store, ascending; all of them where that many are wanted."""
    if count >= store.rows:
        return np.arange(store.rows)
    return np.sort(np.random.default_rng(seeds).choice(store.rows, count, replace=False, shuffle=False))


def training_sample(store: EmbeddingStore, settings: IndexSettings) -> NDArray[np.float32]:
    """Vectors of at most 16,384 rows drawn from the whole store, (N, D)."""
    row_N = drawn_rows(store, TRAINING_ROWS, seeds=[settings.seed, 2])
    blocks = []
    for part in (part for part in store.parts if part.rows):
        first, last = np.searchsorted(row_N, (part.start, part.start + part.rows))
        vectors_ND = store.vectors(part.name, settings.modality)
        blocks.append(vectors_ND[row_N[first:last] - part.start].astype(np.float32))
    return np.concatenate(blocks)
