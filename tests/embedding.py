"""What is embedded in tests, and what an embedding leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roclip_sanitize.embed import EmbedSettings
from roclip_sanitize.executors.base import MakeWorker, Result, Task
from roclip_sanitize.executors.local import LocalExecutor
from tests.corpora import forged_jpeg, pair_members, picture, write_shard, write_tar


class CountingExecutor(LocalExecutor):
    """Counts the tasks that it is given."""

    def __init__(self) -> None:
        self.tasks = 0

    def map(self, make_worker: MakeWorker[Task, Result], tasks: object) -> Iterator[Result]:
        for task in tasks:  # type: ignore[attr-defined]
            self.tasks += 1
            yield make_worker()(task)


def three_shards(folder: Path) -> EmbedSettings:
    """Three shards: whole, with bad pairs, and no shard at all."""
    bad = [
        *pair_members("good", 20),
        *pair_members("cut", 21, image=picture(21)[:-99]),
        *pair_members("bomb", 22, image=forged_jpeg(20_000, 20_000)),
        *pair_members("mute", 23, caption=b""),
        *pair_members("fine", 24),
    ]
    (folder / "2.tar").write_bytes(b"no tar")
    shards = (write_shard(folder / "0.tar", range(7)), write_tar(folder / "1.tar", bad), folder / "2.tar")
    return EmbedSettings(shards=shards, encoder="plain", batch_size=3)


def data_of(out: Path) -> dict[str, bytes]:
    """Every file's bytes, but for markers, which tell the seconds."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "done" and path.name != "complete.json"
    }
