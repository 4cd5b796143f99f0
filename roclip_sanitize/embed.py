"""Shards → embedding store: the ``embed`` stage.

Each worker holds one encoder and takes one shard at a time: read, decode, encode, write. A
pair that cannot be read or decoded is listed under ``failures/``, and costs no other pair.

Dimension key: N pairs of a shard, B pairs of a batch, D width of the vectors.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.decoding import chunked, decode_pairs
from roclip_sanitize.encoder_facts import Encoder, EncoderFacts
from roclip_sanitize.encoders import PLAIN, open_encoder
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Failure, Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.shards import Pair, Shard, ShardTask, shard_tasks
from roclip_sanitize.store import (
    METADATA_COLUMNS,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSettings:
    """How to embed.

    Attributes:
        shards: what to read.
        encoder: see encoder.open_encoder().
        batch_size: pairs encoded at once.
        seed: of random weights, where the encoder names none.
    """

    shards: tuple[Path, ...]
    encoder: str
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch-size is {self.batch_size}, wanted 1 or more")


def embed_shards(settings: EmbedSettings, *, out: Path, executor: Executor) -> Tally:
    """Fill the embedding store at ``out``.

    Returns:
        Pairs seen and failed.

    Raises:
        ConfigError: the encoder is unknown.
        MismatchError: ``out`` was made by another model, or from other shards.
        StorageError: the disk is full.
    """
    facts = _describe(settings, executor)
    folder = StageFolder.create(
        out,
        stage="embed",
        settings={
            "encoder": facts.to_json(),
            "shards": [str(path) for path in settings.shards],
            "batch_size": settings.batch_size,
            "seed": settings.seed,
        },
    )
    tasks = [task for task in shard_tasks(settings.shards) if folder.marker(task.name) is None]
    make_worker = partial(EmbedWorker, settings.encoder, settings.seed, settings.batch_size, out)
    for _ in executor.map(make_worker, tasks):
        pass
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    folder.finish({"tally": tally.to_json(), "encoder": facts.to_json()})
    return tally


def _describe(settings: EmbedSettings, executor: Executor) -> EncoderFacts:
    """The encoder's facts. A CLIP is opened in a worker: the driver stays free of torch."""
    if settings.encoder == PLAIN:
        return open_encoder(PLAIN).facts
    (facts,) = executor.map(partial(_Describer, settings.encoder, settings.seed), [None])
    return facts


class _Describer:
    """Opens an encoder to tell its facts."""

    def __init__(self, spec: str, seed: int) -> None:
        self._facts = open_encoder(spec, seed=seed).facts

    def __call__(self, task: None) -> EncoderFacts:
        return self._facts


class EmbedWorker:
    """Embeds one shard after the other with one encoder."""

    def __init__(self, spec: str, seed: int, batch_size: int, out: Path) -> None:
        self._encoder: Encoder = open_encoder(spec, seed=seed)
        self._batch_size = batch_size
        self._folder = StageFolder(out)

    def __call__(self, task: ShardTask) -> Marker:
        started = time.perf_counter()
        with Shard(task.path) as shard:
            failures: list[Failure] = []
            facts = self._encoder.facts
            columns = self._embed(
                decode_pairs(shard, side=facts.side, fit=facts.fit, failures=failures), task.path.name
            )
        rows = len(columns.names)
        tally = Tally(
            seen=rows + len(failures),
            failed=Counter(failure.reason.value for failure in failures),
            seconds=time.perf_counter() - started,
        )
        files = columns.write(self._folder.path, task.name, failures)
        return self._folder.commit(task.name, files=files, facts={"rows": rows, "tally": tally.to_json()})

    def _embed(self, decoded: Iterable[tuple[Pair, NDArray[np.uint8]]], shard: str) -> _Columns:
        columns = _Columns(names=[], image_BD=[], text_BD=[])
        for batch in chunked(decoded, self._batch_size):
            pairs, pictures = zip(*batch, strict=True)
            columns.image_BD.append(self._encoder.encode_images(np.stack(pictures)))
            columns.text_BD.append(self._encoder.encode_captions([pair.caption for pair in pairs]))
            columns.names.extend((pair.uid, pair.key, shard, pair.caption, pair.image_hash) for pair in pairs)
        return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """What one shard's pairs became."""

    names: list[tuple[str, ...]]
    image_BD: list[NDArray[np.float32]]
    text_BD: list[NDArray[np.float32]]

    def write(self, store: Path, name: str, failures: list[Failure]) -> list[Path]:
        """Write the shard's four files."""
        import polars

        frame = polars.DataFrame(
            self.names, schema=dict.fromkeys(METADATA_COLUMNS, polars.String), orient="row"
        )
        image, text = vectors_file(store, name, "image"), vectors_file(store, name, "text")
        write_vectors(image, _stacked(self.image_BD))
        write_vectors(text, _stacked(self.text_BD))
        write_parquet(metadata_file(store, name), frame)
        return [image, text, metadata_file(store, name), write_failures(store, name, failures)]


def _stacked(batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(batches) if batches else np.zeros((0, 0), np.float32)
