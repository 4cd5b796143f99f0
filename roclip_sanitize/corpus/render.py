"""Render a corpus: shards of captioned scenes, written as a crawl would have left them.

    render_corpus() ─▶ one task per shard ─▶ ShardRenderer ─▶ 00000.tar, .parquet, _stats.json

A shard's random stream comes from the seed, the split and its ordinal alone, so that its bytes
are the same whoever renders it. About 4 ms a pair on one core.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from roclip_sanitize.corpus.camera import encode_photo
from roclip_sanitize.corpus.dice import chance, pick
from roclip_sanitize.corpus.scenes import Scene, draw_scene, imagine
from roclip_sanitize.corpus.wording import write_caption
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shard_writer import ShardWriter

SPLITS = ("train", "validation", "test")  # the place of a split is its number in the random stream
COPY_SHARE = 0.005  # pictures that come a second time, caption and all
UID_BYTES = 16
LARGEST_DOWNSCALING = 12  # originals were up to this many times as wide


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderTask:
    """One shard to render.

    Attributes:
        ordinal: its number.
        pairs: how many it gets.
    """

    ordinal: int
    pairs: int

    @property
    def name(self) -> str:
        """The shard's name: its ordinal, five digits or more."""
        return f"{self.ordinal:05d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPair:
    """One pair before it has a name: JPEG bytes, caption, and what img2dataset would know of it."""

    image: bytes
    caption: str
    fields: Mapping[str, Any]


class ShardRenderer:
    """Worker: renders one shard after the other."""

    def __init__(self, out: Path, *, seed: int, split: str) -> None:
        self._folder = StageFolder(out)
        self._seed = seed
        self._split = split

    def __call__(self, task: RenderTask) -> Tally:
        """Render one shard and declare it done."""
        started = time.perf_counter()
        rng = np.random.default_rng([self._seed, SPLITS.index(self._split), task.ordinal])
        with ShardWriter(self._folder.path / f"{task.name}.tar") as writer:
            for index, pair in enumerate(render_pairs(rng, pairs=task.pairs)):
                uid = pair_uid(seed=self._seed, split=self._split, ordinal=task.ordinal, index=index)
                fields = {"uid": uid, "url": f"https://pictures.example/{uid}.jpg", **pair.fields}
                writer.add(f"{task.name}{index:04d}", image=pair.image, caption=pair.caption, fields=fields)
        tally = Tally(seen=task.pairs, seconds=time.perf_counter() - started)
        self._folder.commit(
            task.name, files=writer.files, facts={"rows": task.pairs, "tally": tally.to_json()}
        )
        return tally


def render_corpus(
    out: Path, *, pairs: int, shards: int, seed: int, executor: Executor, split: str = "train"
) -> Tally:
    """Write a corpus of captioned scenes; shards that are done are not written again.

    Args:
        out: folder for ``00000.tar`` and so on.
        pairs: in the whole corpus.
        shards: how many to spread them over; the first ones get one more where it does not divide.
        seed: not negative; the same seed gives the same bytes.
        executor: where the workers run.
        split: "train", "validation" or "test": the same seed gives each other pictures.

    Returns:
        What was written, shards of earlier calls included.

    Raises:
        ConfigError: there are fewer pairs than shards or no shards, the seed is negative, or there is
            no such split.
        MismatchError: ``out`` was made with other settings.
    """
    _require_sane(pairs=pairs, shards=shards, seed=seed, split=split)
    settings = {"pairs": pairs, "shards": shards, "seed": seed, "split": split}
    folder = StageFolder.create(out, stage="corpus", settings=settings)
    tasks = [RenderTask(ordinal=n, pairs=pairs // shards + (n < pairs % shards)) for n in range(shards)]
    missing = [task for task in tasks if folder.marker(task.name) is None]
    for _ in executor.map(partial(ShardRenderer, out, seed=seed, split=split), missing):
        pass
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    if missing or not folder.finished:
        folder.finish({"tally": tally.to_json()})
    return tally


def render_pairs(rng: Generator, *, pairs: int, copy_share: float = COPY_SHARE) -> Iterator[RenderedPair]:
    """Render a shard's pairs one by one; a ``copy_share`` of them are earlier ones, picture and caption."""
    rendered = list[RenderedPair]()
    for _ in range(pairs):
        again = bool(rendered) and chance(rng, copy_share)
        rendered.append(pick(rng, rendered) if again else render_pair(rng))
        yield rendered[-1]


def render_pair(rng: Generator) -> RenderedPair:
    """Imagine, draw and describe one scene."""
    scene = imagine(rng)
    image = encode_photo(draw_scene(scene, rng), rng)
    return RenderedPair(image=image, caption=write_caption(scene, rng), fields=_fields(scene, rng))


def pair_uid(*, seed: int, split: str, ordinal: int, index: int) -> str:
    """The name of a pair: 32 hex digits."""
    return hashlib.blake2b(f"{seed}/{split}/{ordinal}/{index}".encode(), digest_size=UID_BYTES).hexdigest()


def _fields(scene: Scene, rng: Generator) -> dict[str, Any]:
    downscaling = int(rng.integers(2, LARGEST_DOWNSCALING + 1))
    known = asdict(scene)
    original = {f"original_{side}": known[side] * downscaling for side in ("width", "height")}
    return {"object": known.pop("label"), **known, **original}


def _require_sane(*, pairs: int, shards: int, seed: int, split: str) -> None:
    if shards < 1 or pairs < shards:
        raise ConfigError(f"{pairs} pairs in {shards} shards, wanted at least one shard and one pair in each")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, wanted 0 or more")
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}, wanted one of {', '.join(SPLITS)}")
