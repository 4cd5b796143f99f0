"""What attacks look at, made by hand: a census as CensusTaker would have written it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars

from roclip_sanitize.attacks.census import CENSUS_SCHEMA, Census, CensusTask, census_tasks
from roclip_sanitize.attacks.contract import Scene
from roclip_sanitize.store import write_parquet

Listing = list[list[str]]  # per shard, the labels of its pairs


def listed(folder: Path, split: str, shards: Listing) -> tuple[Census, list[CensusTask]]:
    """A census as CensusTaker would have written it: pair 0 of shard 1 is ``train_1_0``, and so on."""
    tasks = census_tasks(split, [Path(f"{number}.tar") for number in range(len(shards))])
    for number, (task, labels) in enumerate(zip(tasks, shards, strict=True)):
        names = [f"{split}_{number}_{row}" for row in range(len(labels))]
        captions = [f"{label} {name}" for label, name in zip(labels, names, strict=True)]
        columns = (names, names, labels, captions, names)  # any string will do as a picture's hash
        frame = polars.DataFrame(dict(zip(CENSUS_SCHEMA, columns, strict=True)), schema=CENSUS_SCHEMA)
        write_parquet(folder / f"{task.name}.parquet", frame)
    return Census(folder, tasks), tasks


def make_scene(
    folder: Path, train: Listing, test: Listing | None = None, *, classes: int = 4, seed: int = 0
) -> Scene:
    census, _ = listed(folder, "train", train)
    held_out, _ = listed(folder, "test", test or [])
    nothing = np.zeros(census.size, dtype=bool)
    names = tuple(census.counts)[:classes]
    return Scene(census=census, held_out=held_out, classes=names, taken_N=nothing, seed=seed)


SHOES_AND_HATS = [["shoe"] * 6 + ["hat"] * 4, [], ["hat"] * 1 + ["scarf"] * 3 + [""] * 2]
TESTED = [["shoe", "hat", "glove"], ["hat", ""]]


def rng(seed: int = 0) -> np.random.Generator:
    """A stream."""
    return np.random.default_rng(seed)
