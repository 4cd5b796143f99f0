"""What shards hold, by content: the same for all copies of them, wherever they lie.

What a run was made of must be there when it goes on, or its results would be taken for those of other
pairs. Paths and times of files do not tell: shards are written anew under old names, and copied to where
another node reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from roclip_sanitize.executors.base import Executor
from roclip_sanitize.runfiles import fingerprint
from roclip_sanitize.shards import Pair, Shard, ShardTask, shard_tasks


class NotedShard(Shard):
    """A shard that notes what it is read for.

    Args:
        path: where it lies.
        label: field that counts, besides uids, captions and encoded pictures; "" for none.
    """

    def __init__(self, path: Path, *, label: str = "") -> None:
        super().__init__(path)
        self._label, self._digest = label, hashlib.blake2b(digest_size=16)

    def pairs(self) -> Iterator[Pair]:
        """See Shard.pairs."""
        for pair in super().pairs():
            told = (pair.uid, pair.image_hash, str(pair.fields.get(self._label)), pair.caption)
            self._digest.update("\0".join(told).encode() + b"\0\n")
            yield pair

    @property
    def content(self) -> str:
        """Names the pairs that were read so far: 32 hex digits."""
        return self._digest.hexdigest()


class ContentWorker:
    """Reads one shard after the other."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __call__(self, task: ShardTask) -> tuple[str, str]:
        with NotedShard(task.path, label=self._label) as shard:
            for _ in shard.pairs():
                pass
            return task.name, shard.content


def shards_content(shards: Sequence[Path], *, executor: Executor, label: str = "") -> str:
    """Names what shards hold, in order. Reads all of them, and decodes nothing.

    Args:
        shards: which.
        executor: where to read.
        label: see NotedShard.
    """
    tasks = shard_tasks(shards)
    found = dict(executor.map(partial(ContentWorker, label), tasks))
    return joined([found[task.name] for task in tasks])


def joined(contents: Sequence[str]) -> str:
    """Names what several shards hold, of the content of each: sixteen hex digits."""
    return fingerprint(list(contents))
