"""Embeddings that are there already → an embedding store, without embedding again: the ``adopt`` stage.

Shards and embeddings need not be cut alike: each pair is looked up by its key, and its caption must be the
one that was embedded, where the embeddings tell it (clip_retrieval.py). The store is what ``roclip embed``
would have written of these shards, and all that works on one works on the other.

Vectors are named by whatever the user says made them: nothing in them tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.clip_retrieval import (
    OtherEmbeddings,
    Place,
    embedded_towers,
    embedding_files,
    plain_key,
)
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Failure, FailureReason, Tally
from roclip_sanitize.remote import file_name
from roclip_sanitize.runfiles import Marker, StageFolder, fingerprint
from roclip_sanitize.shards import Pair, Shard, ShardTask, shard_tasks
from roclip_sanitize.store import (
    METADATA_COLUMNS,
    Modality,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)


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
    places: list[Place] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def adopt_embeddings(settings: AdoptSettings, *, out: Path, executor: Executor) -> Tally:
    """Fill the embedding store at ``out``. Parts that are there already are not written again.

    Returns:
        Pairs seen, and failed: a pair without a vector is one that could not be used.

    Raises:
        ConfigError: no model is named.
        DataError: there are no embeddings, or a file is not what it should be.
        MismatchError: a file has not as many rows as its metadata, or is of another width; keys are not
            unique, in the embeddings or the shards, or none is in the latter; or ``out`` was made otherwise.

    Memory of a worker: 70 bytes and its key for every row of the embeddings, and one shard's captions.
    """
    names = embedding_files(settings.embeddings)
    towers = embedded_towers(settings.embeddings)
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
    make_worker = partial(AdoptWorker, settings.embeddings, tuple(names), towers, out)
    for _ in executor.map(make_worker, tasks):
        pass
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    if tally.seen and tally.failed[FailureReason.NO_EMBEDDING.value] == tally.seen:
        raise MismatchError(
            f"none of the {tally.seen:,} pairs of {settings.shards[0]} and others has a vector in "
            f"{settings.embeddings}: are these the shards that were embedded?"
        )
    _require_rows_of_their_own(folder, settings.embeddings)
    folder.finish({"tally": tally.to_json(), "encoder": facts})
    return tally


class AdoptWorker:
    """Adopts one shard after the other."""

    def __init__(self, embeddings: Path, names: Sequence[str], towers: Sequence[Modality], out: Path) -> None:
        self._folder, self._towers = StageFolder(out), towers
        self._embeddings = OtherEmbeddings(embeddings, names, towers)

    def __call__(self, task: ShardTask) -> Marker:
        part = _Part()
        with Shard(task.path) as shard:
            for pair in shard.pairs():
                self._add(part, pair, shard=shard.name)
            part.failures += shard.failures
        return self._write(task, part)

    def _add(self, part: _Part, pair: Pair, *, shard: str) -> None:
        place, why = self._embeddings.place(pair.key, pair.caption)
        if place is None:
            part.failures.append(
                Failure(
                    uid=pair.uid, key=pair.key, shard=shard, reason=FailureReason.NO_EMBEDDING, detail=why
                )
            )
            return
        part.pairs.append(pair)
        part.places.append(place)

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
            write_vectors(files[-1], self._embeddings.gathered(modality, part.places))
        files.append(write_failures(out, task.name, part.failures))
        failed = Counter(failure.reason.value for failure in part.failures)
        tally = Tally(seen=rows + failed.total(), failed=failed)
        return self._folder.commit(task.name, files=files, facts={"rows": rows, "tally": tally.to_json()})


def _require_rows_of_their_own(folder: StageFolder, embeddings: Path) -> None:
    """No row may be two pairs': shards of two datasets can both have a key that the embeddings have once.

    Raises:
        MismatchError: one is.
    """
    where = dict[str, str]()
    for marker in folder.markers():
        frame = read_table(metadata_file(folder.path, marker.name), ["key", "shard"])
        for told, shard in frame.iter_rows():
            key = plain_key(told)
            if key in where:
                raise MismatchError(
                    f"{where[key]} and {shard} both have a pair {key!r}, and {embeddings} has one: wanted "
                    "the shards of one dataset"
                )
            where[key] = shard
