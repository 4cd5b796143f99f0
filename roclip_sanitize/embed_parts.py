"""What one shard's pairs become on their way through ``embed``.

    decoded pairs ─▶ Batch ─▶ (model) ─▶ Rows ─▶ Part ─▶ its files in the store

Dimension key: B pairs of a batch, H = W side in pixels, D width of the vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
from roclip_sanitize.limits import Work
from roclip_sanitize.pipeline import Seconds
from roclip_sanitize.records import Failure, Tally
from roclip_sanitize.shards import Pair, ShardTask
from roclip_sanitize.store import (
    METADATA_COLUMNS,
    Modality,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)

SHARD_KEY = "shard"  # of a marker's facts, for what is noted of its shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pairs on their way to the model, their encoded pictures left behind."""

    names: list[tuple[str, ...]]
    captions: list[str]
    pixels_BHW3: NDArray[np.uint8]

    @classmethod
    def gather(cls, decoded: Sequence[tuple[Pair, NDArray[np.uint8]]], *, shard: str) -> Batch:
        pairs, pictures = zip(*decoded, strict=True)
        return cls(
            names=[(pair.uid, pair.key, shard, pair.caption, pair.image_hash) for pair in pairs],
            captions=[pair.caption for pair in pairs],
            pixels_BHW3=np.stack(pictures),
        )


@dataclass(slots=True, kw_only=True)
class Rows:
    """What one shard's pairs became so far, and the model's seconds."""

    vectors_BD: dict[Modality, list[NDArray[np.float32]]] = field(default_factory=dict)
    names: list[tuple[str, ...]] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def of(cls, modalities: Iterable[Modality]) -> Rows:
        """No rows yet, but what they will have vectors of."""
        return cls(vectors_BD={modality: [] for modality in modalities})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One shard's share of the store.

    Attributes:
        task: the shard.
        rows: what its pairs became.
        failures: pairs that could not be used.
        unread: why the shard could not be had, if so: there is no share of the store then.
        noted: what its shard looks like from outside; see unchanged.py.
        retries: what its store was asked again for, by kind of failure.
        seconds: spent, by step.
    """

    task: ShardTask
    rows: Rows = field(default_factory=Rows)
    failures: list[Failure] = field(default_factory=list)
    unread: list[DataError] = field(default_factory=list)
    noted: dict[str, Any] = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)
    seconds: Seconds = field(default_factory=lambda: Seconds(float))

    def tally(self, *, seconds: float) -> Tally:
        return Tally(
            seen=len(self.rows.names) + len(self.failures),
            failed=Counter(failure.reason.value for failure in self.failures),
            seconds=seconds,
        )

    def facts(self, *, wall: float, threads: int) -> dict[str, Any]:
        """What its marker says of it.

        Args:
            wall: seconds that it took.
            threads: that decoded.
        """
        tally = self.tally(seconds=wall)
        work = Work.measured(pairs=tally.seen, wall=wall, busy=self.seconds, threads={"decode": threads})
        told = {"rows": len(self.rows.names), "tally": tally.to_json(), "seconds": work.to_json()}
        retries = {"retries": dict(sorted(self.retries.items()))} if self.retries else {}
        return {**told, SHARD_KEY: self.noted, **retries}

    def write(self, store: Path) -> list[Path]:
        """Write the shard's files: vectors of each modality that was encoded, names, failures."""
        import polars

        name, schema = self.task.name, dict.fromkeys(METADATA_COLUMNS, polars.String)
        vectors = {modality: vectors_file(store, name, modality) for modality in self.rows.vectors_BD}
        for modality, path in vectors.items():
            write_vectors(path, _stacked(self.rows.vectors_BD[modality]))
        write_parquet(
            metadata_file(store, name), polars.DataFrame(self.rows.names, schema=schema, orient="row")
        )
        return [*vectors.values(), metadata_file(store, name), write_failures(store, name, self.failures)]


def _stacked(batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(batches) if batches else np.zeros((0, 0), np.float32)
