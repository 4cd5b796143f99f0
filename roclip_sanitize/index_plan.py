"""What an index is to hold: settings, checked against the store, and the rows that are drawn.

    IndexSettings ─▶ checked_width() ─▶ create_folder() ─▶ part_tasks() ─▶ index.py

Every draw depends on the seed and the store alone, never on parts or workers.

Dimension key: N rows, D width.
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.runfiles import STAGE_FILE, StageFolder
from roclip_sanitize.storage import exists
from roclip_sanitize.store import MODALITIES, EmbeddingStore, Modality, StorePart
from roclip_sanitize.whereabouts import store_of

KINDS = ("flat", "ivf_flat", "ivf_pq", "hnsw", "auto")
TRAINING_ROWS = 16_384
CONTENT = "store_content"  # by which a folder notes what its store held

# Where "auto" changes its kind. Comparing 250,000 rows of width 512 with each other is 6.4e13
# operations, twelve minutes for a core of 90 GFLOP/s; of 10 million, the lists are 20 GB of float32.
FLAT_ROWS = 250_000
UNCOMPRESSED_ROWS = 10_000_000

ROWS_PER_LIST = 39  # at least; k-means learns little from fewer
SAMPLE_PER_LIST = 64
SAMPLE_ROWS = 1 << 18  # at most: 512 MB of width 512
WIDTH_PER_CODE = 8
CODES = 256  # values of a code byte, each learnt from a row of its own at least
LEAST_VIEW, MOST_VIEW = 32, 2048  # nodes that a query of a graph keeps in view


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """What to index.

    Attributes:
        store: the embedding store.
        modality: whose vectors.
        kind: "flat": every vector is kept whole and compared with every query. "ivf_flat", "ivf_pq"
            and "hnsw" are approximate, see index_kinds.py. "auto" is "flat" up to 250,000 rows,
            "ivf_flat" up to 10 million and "ivf_pq" above.
        transform: "" for the vectors as they are, "pca96" for their 96 main directions,
            half-whitened, rows of unit length again. Queries are transformed alike.
        parts: into how many files, at most one per shard; 0 takes what the folder was begun with,
            else as many as there are workers.
        pool: index only so many rows, drawn by ``seed``; 0 takes all.
        seed: of the training sample, the pool and the queries that measure recall.
        queries: which vectors will ask, and so what recall is measured with; "" for those indexed.
        recall: recall@10 that an approximate kind is set up for.
        nprobe: lists that a query looks into, for "hnsw" nodes that it keeps in view; 0 finds the
            fewest that reach ``recall``.
    """

    store: Path
    modality: Modality = "image"
    kind: str = "flat"
    transform: str = ""
    parts: int = 0
    pool: int = 0
    seed: int = 0
    queries: Modality | Literal[""] = ""
    recall: float = 0.95
    nprobe: int = 0

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ConfigError(f"modality is {self.modality!r}, wanted one of {', '.join(MODALITIES)}")
        if self.kind not in KINDS:
            raise ConfigError(f"index kind is {self.kind!r}, wanted one of {', '.join(KINDS)}")
        if not re.fullmatch(r"(pca[1-9]\d*)?", self.transform):
            raise ConfigError(f"transform is {self.transform!r}, wanted '' or for example 'pca96'")
        if self.parts < 0 or self.pool < 0:
            raise ConfigError(f"parts is {self.parts} and pool is {self.pool}, wanted 0 or more")
        if self.queries not in ("", *MODALITIES):
            raise ConfigError(f"queries is {self.queries!r}, wanted '' or one of {', '.join(MODALITIES)}")
        if self.nprobe < 0 or not 0 < self.recall <= 1:
            raise ConfigError(
                f"nprobe is {self.nprobe} and recall is {self.recall}, wanted 0 or more and a share above 0"
            )

    @property
    def asked_by(self) -> Modality:
        """Whose vectors will ask."""
        return self.queries or self.modality

    @property
    def directions(self) -> int:
        """Width after the transform; 0 without one."""
        return int(self.transform.removeprefix("pca") or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How an approximate kind is laid out, the same for all parts.

    Attributes:
        lists: inverted lists, about 4 √rows of the whole index.
        codes: bytes that stand for a row in "ivf_pq": a divisor of its width, at most an eighth of it.
        sample: rows that centroids and codes are learnt from.
        efforts: the least and the most that a query may be told to look at: lists, or nodes in view.
    """

    lists: int
    codes: int
    sample: int
    efforts: tuple[int, int]

    @classmethod
    def of(cls, kind: str, *, rows: int, width: int) -> Sizes:
        """Sizes for so many rows of such a width."""
        lists = max(1, min(round(4 * math.sqrt(rows)), rows // ROWS_PER_LIST))
        return cls(
            lists=lists,
            codes=max(codes for codes in range(1, max(1, width // WIDTH_PER_CODE) + 1) if not width % codes),
            sample=min(SAMPLE_ROWS, max(TRAINING_ROWS, lists * SAMPLE_PER_LIST)),
            efforts=(LEAST_VIEW, max(LEAST_VIEW, min(MOST_VIEW, rows))) if kind == "hnsw" else (1, lists),
        )

    def facts(self, kind: str) -> dict[str, int]:
        """What an index of this kind says of them."""
        told = {"ivf_flat": {"nlist": self.lists}, "ivf_pq": {"nlist": self.lists, "code_bytes": self.codes}}
        return told.get(kind, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One index part to build.

    Attributes:
        name: five digits.
        store_parts: the store parts that it holds.
    """

    name: str
    store_parts: tuple[StorePart, ...]


def chosen(settings: IndexSettings, store: EmbeddingStore) -> IndexSettings:
    """The settings with a kind of their own instead of "auto"."""
    if settings.kind != "auto":
        return settings
    rows = settings.pool or store.rows
    large = "ivf_flat" if rows <= UNCOMPRESSED_ROWS else "ivf_pq"
    return replace(settings, kind="flat" if rows <= FLAT_ROWS else large)


def checked_width(settings: IndexSettings, store: EmbeddingStore) -> int:
    """Width of the store's vectors, once the settings are known to fit them.

    Raises:
        ConfigError: more directions, pool rows or codes are wanted than there are, or captions and
            pictures are to be transformed alike.
        DataError: the store has no rows.
        MismatchError: captions are to ask pictures, or the reverse, without a common space.
    """
    filled = next((part for part in store.parts if part.rows), None)
    if filled is None:
        raise DataError(f"{store.path} has no rows to index{store.why_empty}")
    width: int = store.vectors(filled.name, settings.modality).shape[1]
    most = min(width, store.rows, TRAINING_ROWS)
    if settings.directions > most:
        raise ConfigError(
            f"{settings.transform} wants {settings.directions} directions, "
            f"{store.rows} rows of width {width} have {most}"
        )
    if settings.pool > store.rows:
        raise ConfigError(f"pool is {settings.pool}, {store.path} has {store.rows} rows")
    if settings.kind == "ivf_pq" and store.rows < CODES:
        raise ConfigError(
            f"ivf_pq learns {CODES} codes from as many rows or more, {store.path} has {store.rows}"
        )
    if settings.asked_by != settings.modality:
        store.require_joint(f"asking {settings.modality}s by {settings.asked_by}")
        if settings.transform:
            raise ConfigError(
                f"{settings.transform} fits {settings.modality}s alone, not {settings.asked_by}"
            )
    return width


def create_folder(settings: IndexSettings, store: EmbeddingStore, *, out: Path, workers: int) -> StageFolder:
    """The index folder, its number of parts decided once and for all."""
    begun = StageFolder(out).settings if exists(out / "stage.json") else {}
    parts = settings.parts or int(begun.get("parts", 0))
    decided: dict[str, Any] = {
        "store": str(settings.store),
        "model": store.model,
        "modality": settings.modality,
        "kind": settings.kind,
        "transform": settings.transform,
        "parts": min(parts or workers, len(store.parts)),
        "pool": settings.pool,
        "seed": settings.seed,
    }
    if not begun or CONTENT in begun:  # an index from before it was noted goes on
        decided[CONTENT] = content_of(store.path)
    if settings.queries:
        decided["queries"] = settings.queries
    if settings.kind != "flat":
        decided |= {"recall": settings.recall, "nprobe": settings.nprobe}
    return StageFolder.create(out, stage="index", settings=decided)


def require_store_unchanged(folder: StageFolder) -> None:
    """Refuse an index whose store holds something else than when the index was made.

    Its rows would be those of other pairs. An index that notes nothing of it is from before this was asked,
    and passes.

    Raises:
        DataError: the store is gone.
        MismatchError: what it holds, what it held, and the command that makes the index of what it holds.
    """
    wanted, store = folder.settings.get(CONTENT), store_of(folder)
    if wanted is not None and (found := content_of(store)) != wanted:
        raise MismatchError(
            f"{store} holds {found}, wanted {wanted}, of which {folder.path} was made: "
            f"remove that folder, and run '{_command(folder)}'"
        )


def content_of(store: Path) -> str:
    """What names all that a finished store holds, see StageFolder.content."""
    return StageFolder.open(store, stage="embed").content


def contents_of(out: Path, store: Path, indexes: Sequence[Path]) -> dict[str, Any]:
    """What names all that a store and indexes hold, for the settings of a folder that is made of them.

    Nothing for one that was begun before this was noted: it goes on.
    """
    if exists(out / STAGE_FILE) and CONTENT not in StageFolder(out).settings:
        return {}
    told = [StageFolder.open(index, stage="index").content for index in indexes]
    return {CONTENT: content_of(store), "index_contents": told}


def _command(folder: StageFolder) -> str:
    """What makes an index with the same settings."""
    told = folder.settings
    known = {each.name: each.default for each in fields(IndexSettings) if each.name in told}
    options = [(f"--{name}", str(told[name])) for name, usual in known.items() if told[name] != usual]
    return shlex.join(["roclip", "index", *itertools.chain(*options), "--out", str(folder.path)])


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


def training_sample(
    store: EmbeddingStore, settings: IndexSettings, *, rows: int = TRAINING_ROWS
) -> NDArray[np.float32]:
    """Vectors of at most so many rows drawn from the whole store, (N, D)."""
    row_N = drawn_rows(store, rows, seeds=[settings.seed, 2])
    blocks = []
    for part in (part for part in store.parts if part.rows):
        first, last = np.searchsorted(row_N, (part.start, part.start + part.rows))
        vectors_ND = store.vectors(part.name, settings.modality)
        blocks.append(vectors_ND[row_N[first:last] - part.start].astype(np.float32))
    return np.concatenate(blocks)
