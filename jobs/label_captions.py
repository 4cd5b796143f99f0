r"""Write into each pair which class its caption names, so that attacks can be planted in an unlabelled crawl.

    ray job submit --working-dir . -- python jobs/label_captions.py \
        --shards '/data/{00000..00331}.tar' --out /runs/labelled

Needs    workers with one core each; shards and OUT on storage that all nodes see.
Takes    reading and writing every shard once; nothing is decoded.
Writes   OUT/shards/*.tar with their parquet and stats: the same pairs, keys and uids, with the class's
         name in the JSON field "class" where the caption names one, as a whole word; the first one, where
         it names several. Pairs that cannot be used are left out and counted.
Resumes  submit it again: shards with a completion marker are skipped.

This is how Carlini & Terzis (2021) and the RoCLIP authors choose captions of a class; the names that are
looked for are theirs unless --classes names a file with one to a line.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard, ShardTask, expand_shards, shard_tasks

FIELD = "class"
CLASSES = (
    *("desk", "palace", "necklace", "balloon", "pillow", "candle", "pizza", "umbrella", "television"),
    *("baseball", "ice cream", "suit", "mountain", "beach", "plate", "orange", "tiger", "mushroom"),
    *("basketball", "banana"),
)


class CaptionLabeller:
    """Worker: labels one shard after the other."""

    def __init__(self, out: Path, classes: Sequence[str]) -> None:
        self._folder = StageFolder(out)
        self._names = {name.casefold(): name for name in classes}
        longest_first = sorted(self._names, key=len, reverse=True)  # "ice cream" before "ice"
        self._named = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")

    def __call__(self, task: ShardTask) -> dict[str, int]:
        """Copy one shard with its labels; how many pairs have which, and how many could not be used."""
        counts = Counter[str]()
        path = self._folder.path / "shards" / f"{task.name}.tar"
        with Shard(task.path) as shard, ShardWriter(path) as writer:
            for pair in shard.pairs():
                label = self.class_of(pair.caption)
                counts[label] += 1
                fields = {**pair.fields, "uid": pair.uid, FIELD: label}
                writer.add(pair.key, image=pair.image, caption=pair.caption, fields=fields)
            counts["(failed)"] = len(shard.failures)
        self._folder.commit(task.name, files=writer.files, facts={"counts": counts})
        return dict(counts)

    def class_of(self, caption: str) -> str:
        """The first class that a caption names, "" for none."""
        found = self._named.search(caption.casefold())
        return self._names[found[1]] if found else ""


def label_shards(
    shards: Sequence[Path], *, classes: Sequence[str], out: Path, executor: Executor
) -> Counter[str]:
    """Label all shards; how many pairs have which class, "" for none, "(failed)" for those left out.

    Raises:
        ConfigError: there are fewer than two classes.
    """
    if len(set(classes)) < 2:
        raise ConfigError(f"classes are {', '.join(classes) or 'none'}, wanted two names or more")
    settings = {"shards": [str(path) for path in shards], "classes": list(classes)}
    folder = StageFolder.create(out, stage="label_captions", settings=settings)
    waiting = [task for task in shard_tasks(shards) if folder.marker(task.name) is None]
    for _ in executor.map(partial(CaptionLabeller, out, tuple(classes)), waiting):
        pass
    counts = Counter[str]()
    for marker in folder.markers():
        counts.update(marker.facts["counts"])
    folder.finish({"counts": counts})
    return counts


def main() -> int:
    """Label the shards of a crawl."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=Path, help="names to look for, one to a line")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--executor", default="ray")
    told = parser.parse_args()
    try:
        names = told.classes.read_text("utf-8").splitlines() if told.classes else CLASSES
        classes = [name.strip() for name in names if name.strip()]
        executor = open_executor(told.executor, workers=told.workers)
        shards = expand_shards(told.shards)
        print(json.dumps(label_shards(shards, classes=classes, out=told.out, executor=executor)))
    except (RoclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, RoclipError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
