"""Shards → decoded cache → batches.

Pictures are decoded, and captions tokenised, once; every epoch then reads uint8 pixels and
token ids from memory-mapped files, so that the towers and not the decoder set the pace:

    images_00000.npy   (N, S, S, 3) uint8
    tokens_00000.npy   (N, L) int32
    uids_00000.parquet N uids, in the same order, and hashes that tell equal pictures and captions

Which rows make up a step depends on the seed and the step alone: not on the number of ranks,
and not on how often the run was killed.

Dimension key: N pairs, B pairs of a step, S side in pixels, L tokens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.decoding import chunked, decode_pairs
from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.held import NotedShard, joined
from roclip_sanitize.images import Fit
from roclip_sanitize.records import Failure, Tally
from roclip_sanitize.runfiles import Marker, StageFolder, fingerprint
from roclip_sanitize.shards import ShardTask, shard_tasks
from roclip_sanitize.sources import source_version
from roclip_sanitize.storage import atomic_file, folders_in, here
from roclip_sanitize.store import write_failures, write_parquet

TOKENISED_AT_ONCE = 512
REASONS_SHOWN = 3
LAYOUT = 2  # of the files: a cache of another layout is made anew
UID_SCHEMA: dict[str, Any] = {"uid": str, "image_hash": bytes, "caption_hash": bytes}


def build_cache(
    shards: Sequence[Path], *, model: str, side: int, fit: Fit, root: Path, executor: Executor
) -> Path:
    """Decode shards for a model, or find that it was done before.

    Args:
        shards: what to decode.
        model: the open_clip model whose tokenizer to use.
        side: pixels a side.
        fit: how pictures become square.
        root: folder of caches; each set of shards, model and size gets one of its own, and so
            does a shard that was written anew.
        executor: where to decode.

    Returns:
        The cache's folder.
    """
    versions = [source_version(path) for path in shards]
    settings = {"shards": versions, "model": model, "side": side, "fit": fit, "layout": LAYOUT}
    path = root / fingerprint(settings)
    folder = StageFolder.create(path, stage="cache", settings=settings)
    tasks = [task for task in shard_tasks(shards) if folder.marker(task.name) is None]
    for _ in executor.map(partial(CacheWorker, path, model, side, fit), tasks):
        pass
    if not folder.finished:
        folder.finish({"tally": cache_tally(path).to_json()})
    return path


def cache_tally(cache: Path) -> Tally:
    """Pairs seen and failed while a cache was made."""
    return Tally.total(Tally.from_json(marker.facts["tally"]) for marker in StageFolder(cache).markers())


def known_content(shards: Sequence[Path], *, root: Path) -> str:
    """Names the pairs of shards, see held.py, by a finished cache of these very files; "" where none tells.

    Args:
        shards: which.
        root: folder of caches.
    """
    versions = [source_version(path) for path in shards]
    for name in folders_in(root):
        folder = StageFolder(root / name)
        if folder.finished and folder.settings["shards"] == versions:
            return _content(folder.markers())
    return ""


class CacheWorker:
    """Decodes one shard after the other."""

    def __init__(self, cache: Path, model: str, side: int, fit: Fit) -> None:
        from roclip_sanitize.encoder import tokenizer_for

        self._folder = StageFolder(cache)
        self._tokenize = tokenizer_for(model)
        self._side, self._fit = side, fit

    def __call__(self, task: ShardTask) -> Marker:
        started = time.perf_counter()
        failures: list[Failure] = []
        uids: list[str] = []
        captions: list[str] = []
        pictures: list[NDArray[np.uint8]] = []
        with NotedShard(task.path) as shard:
            for pair, picture in decode_pairs(shard, side=self._side, fit=self._fit, failures=failures):
                uids.append(pair.uid)
                captions.append(pair.caption)
                pictures.append(picture)
        tokens = [self._tokenize(list(part)).numpy() for part in chunked(captions, TOKENISED_AT_ONCE)]
        image_NSS3 = np.stack(pictures) if pictures else np.zeros((0, self._side, self._side, 3), np.uint8)
        token_NL = np.concatenate(tokens).astype(np.int32) if tokens else np.zeros((0, 1), np.int32)
        root = self._folder.path
        files = write_rows(root, task.name, uids=uids, image_NSS3=image_NSS3, token_NL=token_NL)
        files.append(write_failures(root, task.name, failures))
        tally = Tally(
            seen=len(uids) + len(failures),
            failed=Counter(failure.reason.value for failure in failures),
            seconds=time.perf_counter() - started,
        )
        facts = {"rows": len(uids), "tally": tally.to_json(), "content": shard.content}
        return self._folder.commit(task.name, files=files, facts=facts)


def write_rows(
    root: Path,
    name: str,
    *,
    uids: Sequence[str],
    image_NSS3: NDArray[np.uint8],
    token_NL: NDArray[np.int32],
) -> list[Path]:
    """Write one shard's rows in the layout of a cache, and say into which files; no marker is written."""
    import polars

    files = [root / f"images_{name}.npy", root / f"tokens_{name}.npy", root / f"uids_{name}.parquet"]
    _save(files[0], image_NSS3)
    _save(files[1], token_NL)
    columns = {"uid": uids, "image_hash": _hashes(image_NSS3), "caption_hash": _hashes(token_NL)}
    write_parquet(files[2], polars.DataFrame(columns, schema=UID_SCHEMA))
    return files


class TrainingData:
    """A decoded cache, open for reading by row number.

    Attributes:
        rows: N, pairs in all.
        content: names its pairs, see held.py; "" in an older cache.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        every = StageFolder.open(cache, stage="cache").markers()
        self.content = _content(every)
        markers = [marker for marker in every if marker.facts["rows"]]
        if not markers:
            raise _no_pair(cache)
        self._names = [marker.name for marker in markers]
        self._images = [_load(cache / f"images_{name}.npy") for name in self._names]
        self._tokens = [_load(cache / f"tokens_{name}.npy") for name in self._names]
        self._starts = np.cumsum([0, *(len(part) for part in self._images)])
        self.rows = int(self._starts[-1])

    def read(
        self, row_B: NDArray[np.int64], caption_row_B: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels (B, S, S, 3) uint8 of some rows, in their order; tokens (B, L) int64 of these or others."""
        caption_row_B = row_B if caption_row_B is None else caption_row_B
        images: NDArray[np.uint8] = self._picked(self._images, row_B)
        return images, self._picked(self._tokens, caption_row_B).astype(np.int64)

    def uids(self) -> list[str]:
        """Names of all rows."""
        return list(self._facts("uid"))

    @cached_property
    def image_group_N(self) -> NDArray[np.int64]:
        """Numbers of the rows' pictures: the same where their pixels are."""
        return np.unique(self._facts("image_hash"), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def caption_group_N(self) -> NDArray[np.int64]:
        """Numbers of the rows' captions: the same where their tokens are."""
        return np.unique(self._facts("caption_hash"), return_inverse=True)[1].astype(np.int64)

    def _facts(self, column: str) -> NDArray[Any]:
        import polars

        files = [self._cache / f"uids_{name}.parquet" for name in self._names]
        return polars.concat([read_table(file, columns=[column]) for file in files])[column].to_numpy()

    def _picked(self, parts: Sequence[NDArray[Any]], row_B: NDArray[np.int64]) -> NDArray[Any]:
        part_B = np.searchsorted(self._starts, row_B, side="right") - 1
        picked = np.empty((len(row_B), *parts[0].shape[1:]), parts[0].dtype)
        for part in np.unique(part_B):
            here = part_B == part
            picked[here] = parts[part][row_B[here] - self._starts[part]]
        return picked


def _content(markers: Sequence[Marker]) -> str:
    contents = [str(marker.facts.get("content", "")) for marker in markers]
    return joined(contents) if all(contents) else ""


def _no_pair(cache: Path) -> DataError:
    """Names the first of the shards, and says what is wrong with their pairs."""
    shards = [version[0] for version in StageFolder(cache).settings["shards"]]
    where = f"{shards[0]} and {len(shards) - 1} more" if len(shards) > 1 else str(shards[0])
    tally = cache_tally(cache)
    if not tally.seen:
        return DataError(f"no pair in {where}: wanted pictures with captions")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.failed.most_common(REASONS_SHOWN))
    return DataError(f"none of the {tally.seen:,} pairs in {where} is usable: {reasons}")


def epoch_order(rows: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits all rows: the same for everyone who knows seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_file(path) as file:
        np.save(file, array)


def _load(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(here(path), mmap_mode="r")
    return array


def _hashes(array: NDArray[Any]) -> list[bytes]:
    """One for each row, of its bytes."""
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in array]
