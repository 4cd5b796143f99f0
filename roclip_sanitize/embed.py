"""Shards → embedding store: the ``embed`` stage.

Each worker holds one encoder and takes a few shards in a row. Its steps overlap, also across
the border of two shards; the arrows are bounded, so memory does not grow with the shards:

    read ─▶ decode, several threads ─▶ batches ─▶ model ─▶ one shard's rows ─▶ write, the caller's thread

A pair that cannot be read or decoded is listed under ``failures/``, and costs no other pair. A shard
that cannot be had leaves the store unfinished, but all others are done by then. Rows and bytes
depend neither on the number of threads nor on how shards were dealt out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.decoding import decode_pairs
from roclip_sanitize.embed_parts import Batch, Part, Rows
from roclip_sanitize.encoder_facts import AskedPrecision, Encoder, EncoderFacts, Precision
from roclip_sanitize.encoders import TEXTURES, UNLEARNT, open_encoder
from roclip_sanitize.errors import ConfigError, DataError, MismatchError, ShardMissing, ShardUnreadable
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.images import Decode
from roclip_sanitize.limits import Limits, Work
from roclip_sanitize.pipeline import ahead, chunked
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.shards import Shard, ShardTask, shard_tasks
from roclip_sanitize.storage import exists
from roclip_sanitize.store import MODALITIES, Modality, Towers
from roclip_sanitize.unchanged import look_at, tasks_left
from roclip_sanitize.whereabouts import as_told

MODALITIES_OF: dict[Towers, tuple[Modality, ...]] = {
    "both": MODALITIES,
    "image": ("image",),
    "text": ("text",),
}
STEPS = ("read", "decode", "model", "write")
SHARDS_IN_A_ROW = 16
ROUNDS = 4  # rows of shards that each of several workers gets, so that they end together
BATCHES_AHEAD = 2  # ready for the model or in the making
PARTS_AHEAD = 1  # shards in the model while one is written


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSettings:
    """How to embed.

    Attributes:
        shards: what to read.
        encoder: see encoder.open_encoder().
        batch_size: pairs encoded at once.
        seed: of random weights, where the encoder names none.
        decode: "exact" for open_clip's own pixels, "fast" for nearly those.
        towers: "both", or only "image" or "text": what the store gets vectors of. Its rows are the same.
        precision: what a CLIP's matrices are multiplied in. "auto" takes bfloat16 on a GPU, else float32.
        compiled: let torch.compile make a CLIP quicker. It moves vectors in their last bits, so a store
            is made with it throughout or without.
        threads: that decode, in each worker; 0 takes the worker's cores. Never changes a byte.
    """

    shards: tuple[Path, ...]
    encoder: str
    batch_size: int = 256
    seed: int = 0
    decode: Decode = "exact"
    towers: Towers = "both"
    precision: AskedPrecision = "auto"
    compiled: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch-size is {self.batch_size}, wanted 1 or more")
        if self.threads < 0:
            raise ConfigError(f"threads is {self.threads}, wanted 0 (the worker's cores) or more")
        for name, choices in (("decode", Decode), ("towers", Towers), ("precision", AskedPrecision)):
            if (told := getattr(self, name)) not in get_args(choices):
                raise ConfigError(f"{name} is {told!r}, wanted one of {', '.join(get_args(choices))}")
        if self.encoder in UNLEARNT and (self.compiled or self.precision != "auto"):
            raise ConfigError(
                f"encoder {self.encoder!r} multiplies no matrices: it has no precision, nothing to compile"
            )
        if self.encoder == TEXTURES and self.towers != "image":
            raise ConfigError("encoder 'textures' tells pictures only: embed with --towers image")

    def open_encoder(self) -> Encoder:
        """The encoder, set up as told."""
        return open_encoder(self.encoder, seed=self.seed, precision=self.precision, compiled=self.compiled)


def embed_shards(settings: EmbedSettings, *, out: Path, executor: Executor) -> Tally:
    """Fill the embedding store at ``out``.

    Returns:
        Pairs seen and failed.

    Raises:
        ConfigError: the encoder is unknown.
        MismatchError: ``out`` was made by another model, from other shards, or in another precision; or a
            shard holds other pairs by now, as far as unchanged.py can tell.
        ShardMissing, ShardUnreadable: some shards could not be had; all others are done.
        StorageError: the disk is full.
    """
    facts = describe_encoder(settings, executor)
    decisive = _decisive(settings, facts, out) | _precision_of(out, facts)
    folder = StageFolder.create(out, stage="embed", settings=decisive)
    tasks = tasks_left(folder, shard_tasks(settings.shards), executor=executor)
    make_worker = partial(EmbedWorker, replace(settings, shards=()), out)
    answers = chain.from_iterable(executor.map(make_worker, in_rows(tasks, workers=executor.size)))
    if unread := [answer for answer in answers if isinstance(answer, DataError)]:
        raise type(unread[0])(
            f"{unread[0]} ({len(unread)} of {len(tasks)} shards could not be had; all others are done, "
            "and the same command again tries these)"
        )
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    folder.finish({"tally": tally.to_json(), "encoder": facts.to_json()})
    return tally


def embed_limits(store: Path) -> Limits:
    """What bounded the making of a store, over all runs that it took; shards never timed are left out."""
    timed = [marker.facts for marker in StageFolder(store).markers() if "seconds" in marker.facts]
    return Limits.of(Work.total(Work.from_json(facts["seconds"]) for facts in timed), order=STEPS)


def _decisive(settings: EmbedSettings, facts: EncoderFacts, out: Path) -> dict[str, Any]:
    """What decides the store's bytes. What is as it always was is left out: older stores can be resumed."""
    decisive: dict[str, Any] = {"encoder": facts.to_json(), "shards": as_told(out, settings.shards)}
    decisive |= {"batch_size": settings.batch_size, "seed": settings.seed}
    later = {
        "decode": (settings.decode, "exact"),
        "towers": (settings.towers, "both"),
        "compiled": (settings.compiled, False),
    }
    return decisive | {name: value for name, (value, always) in later.items() if value != always}


def _precision_of(out: Path, facts: EncoderFacts) -> dict[str, Precision]:
    """The precision, as a setting: a store that was begun on a GPU is not to be completed without one.

    Plain features have none. A store from before precisions were told is left without.

    Raises:
        MismatchError: the store at ``out`` was begun in another one.
    """
    if not facts.precision:
        return {}
    if not exists(out / "stage.json"):
        return {"precision": facts.precision}
    begun = StageFolder(out).settings.get("precision")
    if begun not in (None, facts.precision):
        raise MismatchError(
            f"{out} was begun in {begun}, and would go on in {facts.precision} here: "
            f"embed with --precision {begun}, or into another folder"
        )
    return {"precision": begun} if begun else {}


def describe_encoder(settings: EmbedSettings, executor: Executor) -> EncoderFacts:
    """The encoder's facts. A CLIP is opened in a worker: the driver stays free of torch."""
    if settings.encoder in UNLEARNT:
        return settings.open_encoder().facts
    (facts,) = executor.map(partial(_Describer, replace(settings, shards=())), [None])
    return facts


class _Describer:
    """Opens an encoder to tell its facts; compiled if told, so that what cannot be is known at once."""

    def __init__(self, settings: EmbedSettings) -> None:
        self._facts = settings.open_encoder().facts

    def __call__(self, task: None) -> EncoderFacts:
        return self._facts


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Shards that one worker takes one after the other."""

    tasks: tuple[ShardTask, ...]

    @property
    def name(self) -> str:
        """Its first shard's."""
        return self.tasks[0].name


def in_rows(tasks: Sequence[ShardTask], *, workers: int) -> Iterator[ShardRow]:
    """Deal shards out: long rows, since steps overlap within one, but some for each worker."""
    fair = len(tasks) if workers == 1 else len(tasks) // (workers * ROUNDS)
    return map(ShardRow, chunked(tasks, max(1, min(SHARDS_IN_A_ROW, fair))))


class EmbedWorker:
    """Embeds shards with one encoder. ``settings.shards`` is not looked at."""

    def __init__(self, settings: EmbedSettings, out: Path) -> None:
        self._encoder: Encoder = settings.open_encoder()
        self._settings = settings
        self._threads = settings.threads or own_cores()
        self._folder = StageFolder(out)
        self._since = 0.0

    def __call__(self, row: ShardRow) -> list[Marker | DataError]:
        """Embed a row of shards: the marker of each, or why it could not be had."""
        todo = [task for task in row.tasks if self._folder.marker(task.name) is None]  # a second try
        self._since = time.perf_counter()
        batches = ahead(self._decoded(todo), depth=BATCHES_AHEAD, name="read")
        with closing(ahead(self._encoded(batches), depth=PARTS_AHEAD, name="model")) as parts:
            return [self._written(part) for part in parts]

    def _decoded(self, tasks: Sequence[ShardTask]) -> Generator[Batch | Part, None, None]:
        """Batches of one shard after the other, behind each shard's last the part that they make up."""
        for task in tasks:
            part = Part(task=task)
            try:
                yield from self._batches(part)
            except (ShardMissing, ShardUnreadable) as error:
                part.unread.append(error)
            yield part

    def _batches(self, part: Part) -> Generator[Batch, None, None]:
        facts = self._encoder.facts
        part.noted.update(look_at(part.task.path, part.retries).note())  # before it is read, not behind
        with (
            Shard(part.task.path) as shard,
            closing(
                decode_pairs(
                    shard,
                    side=facts.side,
                    fit=facts.fit,
                    failures=part.failures,
                    decode=self._settings.decode,
                    threads=self._threads,
                    seconds=part.seconds,
                )
            ) as pairs,
        ):
            part.retries.update(shard.retries)
            for batch in chunked(pairs, self._settings.batch_size):
                yield Batch.gather(batch, shard=shard.name)

    def _encoded(self, stream: Generator[Batch | Part, None, None]) -> Generator[Part, None, None]:
        """Parts with their rows, whose batches came before them."""
        modalities = MODALITIES_OF[self._settings.towers]
        rows = Rows.of(modalities)
        with closing(stream):
            for item in stream:
                started = time.perf_counter()
                if isinstance(item, Batch):
                    for modality, batches_BD in rows.vectors_BD.items():
                        batches_BD.append(self._tower(modality, item))
                    rows.names.extend(item.names)
                    rows.seconds += time.perf_counter() - started
                    continue
                item.seconds["model"] = rows.seconds
                yield replace(item, rows=rows)
                rows = Rows.of(modalities)

    def _tower(self, modality: Modality, batch: Batch) -> NDArray[np.float32]:
        if modality == "image":
            return self._encoder.encode_images(batch.pixels_BHW3)
        return self._encoder.encode_captions(batch.captions)

    def _written(self, part: Part) -> Marker | DataError:
        if part.unread:
            return part.unread[0]
        started = time.perf_counter()
        files = part.write(self._folder.path)
        now = time.perf_counter()
        part.seconds["write"], wall, self._since = now - started, now - self._since, now
        facts = part.facts(wall=wall, threads=self._threads)
        return self._folder.commit(part.task.name, files=files, facts=facts)


def own_cores() -> int:
    """Cores that this worker may use: an executor tells its share as it tells OpenMP."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
