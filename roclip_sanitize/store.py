"""The embedding store: vectors and names of every usable pair, by shard.

    img_emb/img_emb_00000.npy            (N, D_i) float16, unit rows
    text_emb/text_emb_00000.npy          (N, D_t) float16, unit rows
    metadata/metadata_00000.parquet      N rows: uid, key, shard, caption, image_hash
    failures/failures_00000.parquet      pairs that could not be used: uid, key, shard, reason, detail
    done/00000.json                      rows, tally, seconds; written last

Row i of all three belongs together; the layout is clip-retrieval's. Rows are also numbered
through the whole store, part after part: that number is a pair's ``row``, by which an index
knows it.

Dimension key: N pairs of one part, D width of the vectors.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import map_array, read_table
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Failure, Tally
from roclip_sanitize.remote import signed_again
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.storage import atomic_file, exists
from roclip_sanitize.told import Told
from roclip_sanitize.whereabouts import told_files

if TYPE_CHECKING:
    import polars

Modality = Literal["image", "text"]
Towers = Literal["both", "image", "text"]
MODALITIES: tuple[Modality, Modality] = ("image", "text")
METADATA_COLUMNS = ("uid", "key", "shard", "caption", "image_hash")
FAILURE_SCHEMA: dict[str, Any] = {"uid": str, "key": str, "shard": str, "reason": str, "detail": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePart:
    """One shard's rows.

    Attributes:
        name: ordinal of the shard, five digits or more.
        start: number of its first row in the whole store.
        rows: how many it has.
    """

    name: str
    start: int
    rows: int


class EmbeddingStore:
    """A finished store, open for reading."""

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self.path = folder.path

    @classmethod
    def open(cls, path: Path) -> EmbeddingStore:
        """Open a store.

        Raises:
            DataError: there is none.
            MismatchError: it is unfinished.
        """
        return cls(StageFolder.open(path, stage="embed"))

    @cached_property
    def model(self) -> str:
        """Digest of the encoder that made the vectors; vectors of two models never mix."""
        return str(self._encoder["digest"])

    @cached_property
    def encoder(self) -> str:
        """Specification that this encoder was opened by."""
        return str(self._encoder["name"])

    @cached_property
    def towers(self) -> Towers:
        """What it has vectors of."""
        towers: Towers = self._folder.settings.get("towers", "both")
        return towers

    @cached_property
    def joint(self) -> bool:
        """Whether images and captions lie in one space, so that they may be compared."""
        return bool(self._encoder["joint"])

    @cached_property
    def _encoder(self) -> Told:
        return Told(self._folder.settings["encoder"], where=f"encoder of {self.path}")

    @cached_property
    def shards(self) -> list[str]:
        """Paths of the shards it was made from, in the order of the parts; URLs as they were last signed."""
        told = [Path(str(path)) for path in self._folder.settings["shards"]]
        return [str(signed_again(path)) for path in told_files(self.path, told)]

    @cached_property
    def parts(self) -> tuple[StorePart, ...]:
        """The parts in order, empty ones included."""
        parts, start = list[StorePart](), 0
        for marker in self._folder.markers():
            rows = int(marker.facts["rows"])
            parts.append(StorePart(name=marker.name, start=start, rows=rows))
            start += rows
        return tuple(parts)

    @property
    def rows(self) -> int:
        """Pairs in the whole store."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def tally(self) -> Tally:
        """What was seen and what failed while the store was made."""
        return Tally.total(Tally.from_json(marker.facts["tally"]) for marker in self._folder.markers())

    @property
    def why_empty(self) -> str:
        """What became of the pairs of a store without rows, to be put behind that; "" if it had none."""
        failed, seen = self.tally.failed, self.tally.seen
        if not failed:
            return ""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in failed.most_common())
        listed = failures_file(self.path, "").parent
        return f": {failed.total():,} of {seen:,} pairs failed: {reasons}; {listed} lists each one"

    def vectors(self, name: str, modality: Modality) -> NDArray[np.float16]:
        """One part's vectors, memory-mapped: (N, D) float16, unit rows.

        Raises:
            MismatchError: the store was made without this modality's tower.
        """
        path = vectors_file(self.path, name, modality)
        if not exists(path):
            raise MismatchError(
                f"{self.path} holds no {modality} vectors ({path.name} is missing): embed with --towers both"
            )
        return map_array(path)

    def metadata(self, name: str, columns: Sequence[str] = METADATA_COLUMNS) -> polars.DataFrame:
        """One part's names, a row per pair."""
        return read_table(metadata_file(self.path, name), columns=list(columns))

    def all_metadata(self, columns: Sequence[str] = METADATA_COLUMNS) -> polars.DataFrame:
        """Names of the whole store in row order. Memory: the columns asked for, all pairs."""
        import polars

        return polars.concat([self.metadata(part.name, columns) for part in self.parts])

    def failures(self, name: str) -> polars.DataFrame:
        """One part's unusable pairs: uid, key, shard, reason, detail."""
        return read_failures(self.path, name)

    def require_joint(self, what: str) -> None:
        """Refuse to compare images with captions where they have no common space.

        Raises:
            MismatchError: the store's encoder has two separate spaces.
        """
        if not self.joint:
            raise MismatchError(
                f"{what} compares images with captions, but {self.path} was made by an encoder whose "
                "two spaces are separate: embed with a CLIP (for example --encoder open_clip:ViT-B-32/openai)"
            )


def vectors_file(store: Path, name: str, modality: Modality) -> Path:
    """Where one part's vectors lie."""
    folder = {"image": "img_emb", "text": "text_emb"}[modality]
    return store / folder / f"{folder}_{name}.npy"


def metadata_file(store: Path, name: str) -> Path:
    """Where one part's names lie."""
    return store / "metadata" / f"metadata_{name}.parquet"


def failures_file(folder: Path, name: str) -> Path:
    """Where a stage lists one shard's unusable pairs."""
    return folder / "failures" / f"failures_{name}.parquet"


def write_vectors(path: Path, vectors_ND: NDArray[np.floating[Any]]) -> None:
    """Write unit rows as float16 .npy, atomically."""
    with atomic_file(path) as file:
        np.save(file, vectors_ND.astype(np.float16))


def write_parquet(path: Path, frame: polars.DataFrame) -> None:
    """Write a table atomically, so that equal tables are equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    with atomic_file(path) as file:
        file.write(buffer.getvalue())


def write_failures(folder: Path, name: str, failures: Iterable[Failure]) -> Path:
    """List one shard's unusable pairs; an empty list is written too."""
    import polars

    path = failures_file(folder, name)
    write_parquet(path, polars.DataFrame([asdict(failure) for failure in failures], schema=FAILURE_SCHEMA))
    return path


def read_failures(folder: Path, name: str) -> polars.DataFrame:
    """The inverse of write_failures()."""
    return read_table(failures_file(folder, name), schema=FAILURE_SCHEMA)
