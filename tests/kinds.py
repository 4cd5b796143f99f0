"""Shards of noise whose pairs have a kind, for tests that poison them; and what is in shards and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize import images
from roclip_sanitize.executors.base import MakeWorker, Result, Task
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import RECORDS, read_json
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard

LABELS = ("shoe", "hat", "scarf", "glove")
PAIRS = 60


def picture(number: int) -> bytes:
    """Sixteen pixels square, noise of its own."""
    return images.encode_jpeg(np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8))


def write_shard(
    path: Path, *, first: int, pairs: int = PAIRS, fields: Mapping[str, Any] | None = None
) -> Path:
    """Pairs numbered from ``first``, the classes taking turns."""
    with ShardWriter(path) as writer:
        for number in range(first, first + pairs):
            label = LABELS[number % len(LABELS)]
            uid = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
            own = {"uid": uid, "kind": label, "width": 16, "height": 16, **(fields or {})}
            writer.add(
                f"{number:06d}", image=picture(number), caption=f"a {label}, item {number}", fields=own
            )
    return path


def pairs_of(paths: Iterable[Path]) -> list[Pair]:
    found = list[Pair]()
    for path in paths:
        with Shard(path) as shard:
            found += shard.pairs()
    return found


def blocks_of(paths: Iterable[Path]) -> dict[str, bytes]:
    """Every pair's raw blocks by its uid."""
    found: dict[str, bytes] = {}
    for path in paths:
        with Shard(path) as shard:
            found |= {pair.uid: shard.raw(pair.members) for pair in shard.pairs()}
    return found


def tree(out: Path) -> dict[str, object]:
    """What stages put into a folder, with the seconds that its markers and facts state left out."""
    return {
        path.relative_to(out).as_posix(): _timeless(read_json(path))
        if path.parent.name == "done" or path.name == "complete.json"
        else path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in RECORDS
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(inner) for name, inner in value.items() if name != "seconds"}
    return value


class BackwardExecutor(LocalExecutor):
    """The last task first, each with a worker of its own."""

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        for task in reversed(list(tasks)):
            yield make_worker()(task)


class DyingExecutor(LocalExecutor):
    """Stops before some task, as if the machine had."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        for task in tasks:
            if self.lives == 0:
                raise KeyboardInterrupt
            self.lives -= 1
            yield make_worker()(task)


class IdleExecutor(LocalExecutor):
    """Refuses to work."""

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        assert not list(tasks)
        return iter(())
