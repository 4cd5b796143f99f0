"""Embeddings that are there already → an embedding store, without embedding again: the ``adopt`` stage.

    EMBEDDINGS/img_emb/img_emb_0.npy       (N, D) floats, as clip-retrieval writes them
    EMBEDDINGS/text_emb/text_emb_0.npy     the same of captions, if they are there
    EMBEDDINGS/metadata/metadata_0.parquet N rows with each pair's key, as ``key`` or ``image_path``

Shards and embeddings need not be cut alike: each pair is looked up by its key. The store is what
``roclip embed`` would have written of these shards, and all that works on one works on the other.

Vectors are named by whatever the user says made them: nothing in them tells.

Dimension key: N rows of a file, M pairs of a shard, D width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import map_array, read_table
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Failure, FailureReason, Tally
from roclip_sanitize.remote import file_name
from roclip_sanitize.runfiles import Marker, StageFolder, fingerprint
from roclip_sanitize.shards import IMAGE_EXTENSIONS, Pair, Shard, ShardTask, shard_tasks
from roclip_sanitize.storage import exists, names_in
from roclip_sanitize.store import (
    METADATA_COLUMNS,
    Modality,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)

if TYPE_CHECKING:
    import polars

FOLDERS: dict[Modality, str] = {"image": "img_emb", "text": "text_emb"}
KEY_COLUMNS = ("key", "image_path")


VECTORS_FILE = re.compile(r"img_emb_(.+)\.npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptSettings:
    """What to adopt.

    Attributes:
        embeddings: a folder in clip-retrieval's layout.
        shards: the shards that were embedded.
        model: what made the vectors, such as "ViT-B-32/openai": stores of the same name may be searched
            together.
    """

    embeddings: Path
    shards: tuple[Path, ...]
    model: str

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ConfigError("no model named: wanted what made the vectors, such as 'ViT-B-32/openai'")


@dataclass(slots=True)
class _Part:
    """What was found of one shard: its pairs, and the place of each one's vectors."""

    pairs: list[Pair] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def adopt_embeddings(settings: AdoptSettings, *, out: Path, executor: Executor) -> Tally:
    """Fill the embedding store at ``out``. Parts that are there already are not written again.

    Returns:
        Pairs seen, and failed: a pair without a vector is one that could not be used.

    Raises:
        ConfigError: no model is named.
        DataError: there are no embeddings, or a file is not what it should be.
        MismatchError: a file has not as many rows as its metadata; keys are not unique, or none is in the
            shards; or ``out`` was made otherwise.

    Memory of a worker: 60 bytes and its key for every row of the embeddings, and one shard's captions.
    """
    names = embedding_files(settings.embeddings)
    towers = [modality for modality in FOLDERS if names_in(settings.embeddings / FOLDERS[modality])]
    facts = {
        "name": settings.model,
        "digest": fingerprint({"adopted": settings.model}),
        "joint": True,
        "side": 0,
        "fit": "crop",
    }
    told = {
        "encoder": facts,
        "shards": [str(path) for path in settings.shards],
        "adopted": str(settings.embeddings),
    }
    folder = StageFolder.create(out, stage="embed", settings=told)
    tasks = [task for task in shard_tasks(settings.shards) if folder.marker(task.name) is None]
    make_worker = partial(AdoptWorker, settings.embeddings, tuple(names), tuple(towers), out)
    for _ in executor.map(make_worker, tasks):
        pass
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    if tally.seen and tally.failed[FailureReason.NO_EMBEDDING.value] == tally.seen:
        raise MismatchError(
            f"none of the {tally.seen:,} pairs of {settings.shards[0]} and others has a vector in "
            f"{settings.embeddings}: are these the shards that were embedded?"
        )
    folder.finish({"tally": tally.to_json(), "encoder": facts})
    return tally


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


class AdoptWorker:
    """Adopts one shard after the other."""

    def __init__(self, embeddings: Path, names: Sequence[str], towers: Sequence[Modality], out: Path) -> None:
        self._folder, self._towers = StageFolder(out), towers
        self._vectors = {
            modality: [_vectors(embeddings, name, modality) for name in names] for modality in towers
        }
        rows = [len(vector_ND) for vector_ND in self._vectors["image"]]
        self._place = _places(embeddings, names, rows)

    def __call__(self, task: ShardTask) -> Marker:
        part = _Part()
        with Shard(task.path) as shard:
            for pair in shard.pairs():
                self._add(part, pair, shard=shard.name)
            part.failures += shard.failures
        return self._write(task, part)

    def _add(self, part: _Part, pair: Pair, *, shard: str) -> None:
        place = self._place.get(_key(pair.key))
        why = "its key is not among those of the embeddings" if place is None else self._flaw(*place)
        if place is None or why:
            part.failures.append(
                Failure(
                    uid=pair.uid, key=pair.key, shard=shard, reason=FailureReason.NO_EMBEDDING, detail=why
                )
            )
            return
        part.pairs.append(pair)
        part.places.append(place)

    def _flaw(self, file: int, row: int) -> str:
        """Why a pair's vectors are none, or ""."""
        for modality in self._towers:
            length = float(np.linalg.norm(np.asarray(self._vectors[modality][file][row], np.float32)))
            if not np.isfinite(length) or not length:
                return f"its {modality} vector has length {length}"
        return ""

    def _write(self, task: ShardTask, part: _Part) -> Marker:
        import polars

        out, rows = self._folder.path, len(part.pairs)
        columns = {
            "uid": [pair.uid for pair in part.pairs],
            "key": [pair.key for pair in part.pairs],
            "shard": [file_name(task.path)] * rows,
            "caption": [pair.caption for pair in part.pairs],
            "image_hash": [pair.image_hash for pair in part.pairs],
        }
        files = [metadata_file(out, task.name)]
        write_parquet(
            files[0], polars.DataFrame(columns, schema=dict.fromkeys(METADATA_COLUMNS, polars.String))
        )
        for modality in self._towers:
            files.append(vectors_file(out, task.name, modality))
            write_vectors(files[-1], self._gathered(modality, part.places))
        files.append(write_failures(out, task.name, part.failures))
        failed = Counter(failure.reason.value for failure in part.failures)
        tally = Tally(seen=rows + failed.total(), failed=failed)
        return self._folder.commit(task.name, files=files, facts={"rows": rows, "tally": tally.to_json()})

    def _gathered(self, modality: Modality, places: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Unit rows in the order of their places: (M, D)."""
        files = self._vectors[modality]
        vector_MD = np.empty((len(places), files[0].shape[1]), np.float32)
        place_M2 = np.array(places, np.int64).reshape(-1, 2)
        for file in np.unique(place_M2[:, 0]):
            mine = place_M2[:, 0] == file
            vector_MD[mine] = files[file][place_M2[mine, 1]]
        unit_MD: NDArray[np.float32] = vector_MD / np.linalg.norm(vector_MD, axis=1, keepdims=True)
        return unit_MD


def _vectors(embeddings: Path, name: str, modality: Modality) -> NDArray[Any]:
    path = embeddings / FOLDERS[modality] / f"{FOLDERS[modality]}_{name}.npy"
    vector_ND = map_array(path)
    if vector_ND.ndim != 2 or vector_ND.dtype.kind != "f":
        raise DataError(f"{path} holds {vector_ND.dtype} {vector_ND.shape}, wanted rows of floats")
    return vector_ND


def _places(embeddings: Path, names: Sequence[str], rows: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Key → (number of the file, row in it)."""
    places = dict[str, tuple[int, int]]()
    for file, name in enumerate(names):
        path = metadata_file(embeddings, name)
        keys = _keys(read_table(path), path)
        if len(keys) != rows[file]:
            raise MismatchError(f"{path} has {len(keys):,} rows, and img_emb_{name}.npy has {rows[file]:,}")
        for row, key in enumerate(keys):
            if key in places:
                raise MismatchError(
                    f"{path} has the key {key!r}, which came before: wanted a key of each pair's own"
                )
            places[key] = (file, row)
    return places


def _keys(frame: polars.DataFrame, path: Path) -> list[str]:
    column = next((name for name in KEY_COLUMNS if name in frame.columns), "")
    if not column:
        raise DataError(
            f"{path} has the columns {', '.join(frame.columns)}, wanted one of {', '.join(KEY_COLUMNS)}"
        )
    return [_key(str(key), is_path=column == "image_path") for key in frame[column]]


def _key(told: str, *, is_path: bool = False) -> str:
    """A key as it is looked up. clip-retrieval tells files by paths, and pairs of shards by their keys."""
    if is_path and Path(told).suffix.lower().lstrip(".") in IMAGE_EXTENSIONS:
        return Path(told).stem
    return told.removeprefix("./")
