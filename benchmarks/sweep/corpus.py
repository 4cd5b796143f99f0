"""The shards that a sweep names: found or rendered, and which classes are in them.

Classes are counted once, on the clean shards, so that every cell is asked about the same ones. The
uids of held-out pairs are kept, to show that no poison is among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.sweep.cells import Corpus
from benchmarks.sweep.settings import Rendered, Sweep, expand_list
from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.runfiles import StageFolder, fingerprint, read_json, write_json
from roclip_sanitize.shards import Shard, ShardTask, expand_shards, shard_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known of a corpus before anything is planted in it.

    Attributes:
        classes: the commonest labels of the training shards, commonest first, equals by name.
        pairs: usable training pairs.
        held_out: uids of the held-out pairs.
    """

    classes: tuple[str, ...]
    pairs: int
    held_out: frozenset[str]


def find_corpus(sweep: Sweep, run: Path, *, executor: Executor) -> Corpus:
    """The sweep's shards, rendered first if it says so.

    Raises:
        ConfigError: no shards are named, or one twice.
        ShardMissing: a named shard does not exist.
    """
    if sweep.rendered is not None:
        shards, test_shards = _render(sweep.rendered, run / "corpus", executor)
    else:
        shards, test_shards = (
            tuple(expand_shards("::".join(expand_list(names)))) for names in (sweep.shards, sweep.test_shards)
        )
    return Corpus(
        shards=shards,
        test_shards=test_shards,
        label=sweep.label,
        classes=sweep.classes,
        rendered=sweep.rendered,
    )


def survey(corpus: Corpus, run: Path, *, executor: Executor) -> Survey:
    """List the labels of the training shards and the uids of the held-out ones, once per run folder.

    Raises:
        DataError: the label field is missing, or has one value only.
    """
    train = _listed(corpus.shards, "train", corpus, run, executor)
    frequencies = Counter[str]()
    for shard in train:
        frequencies.update(shard["counts"])
    ranked = sorted(frequencies, key=lambda label: (-frequencies[label], label))
    pairs = sum(shard["pairs"] for shard in train)
    if len(ranked) < 2:
        raise DataError(
            f"the field {corpus.label!r} has {len(ranked)} values in the {pairs:,} pairs of {len(train)} "
            "training shards, wanted two or more: is it the label?"
        )
    test = _listed(corpus.test_shards, "test", corpus, run, executor)
    return Survey(
        classes=tuple(ranked[: corpus.classes]),
        pairs=pairs,
        held_out=frozenset(uid for shard in test for uid in shard["uids"]),
    )


class ShardLister:
    """Worker: counts the labels of one shard, and lists its uids if it is held out."""

    def __init__(self, folder: Path, label: str, *, uids: bool) -> None:
        self._folder, self._label, self._uids = StageFolder(folder), label, uids

    def __call__(self, task: ShardTask) -> str:
        with Shard(task.path) as shard:
            pairs = [(pair.uid, str(pair.fields.get(self._label) or "")) for pair in shard.pairs()]
        counts = Counter(label for _, label in pairs if label)
        path = self._folder.path / f"{task.name}.json"
        uids = [uid for uid, _ in pairs] if self._uids else []
        write_json(path, {"pairs": len(pairs), "counts": counts, "uids": uids})
        self._folder.commit(task.name, files=[path], facts={"rows": len(pairs)})
        return task.name


def _listed(
    shards: Sequence[Path], split: str, corpus: Corpus, run: Path, executor: Executor
) -> list[dict[str, Any]]:
    """Labels and uids, shard by shard; counted once per corpus, whichever sweep asks."""
    settings = {"shards": [str(path) for path in shards], "label": corpus.label, "split": split}
    path = run / "labels" / fingerprint(settings)
    folder = StageFolder.create(path, stage="labels", settings=settings)
    waiting = [task for task in shard_tasks(shards) if folder.marker(task.name) is None]
    for _ in executor.map(partial(ShardLister, path, corpus.label, uids=split == "test"), waiting):
        pass
    return [read_json(path / f"{task.name}.json") for task in shard_tasks(shards)]


def _render(rendered: Rendered, out: Path, executor: Executor) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    from roclip_sanitize.corpus.render import render_corpus

    plans = {"train": (rendered.pairs, rendered.shards), "test": (rendered.test_pairs, 1)}
    for split, (pairs, shards) in plans.items():
        render_corpus(
            out / split, pairs=pairs, shards=shards, seed=rendered.seed, split=split, executor=executor
        )
    train, test = (tuple(sorted((out / split).glob("*.tar"))) for split in plans)
    return train, test
