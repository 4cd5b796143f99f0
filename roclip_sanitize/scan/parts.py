"""The scan's work on one store part, as workers do it: column pieces, then evidence.

Two passes, because words are counted over all captions of the store, and then weighed by the
evidence of all, before a part is scored in scoring.py; and another, in judging.py, because the budget
is spent on the worst pairs of all. cross_rounds.py has passes of its own.

Dimension key: N pairs of a part, K neighbours, W word numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import WORK_KEY, Laps
from roclip_sanitize.records import Reason
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.agreement import evidence, word_weights
from roclip_sanitize.scan.columns import WORD_NUMBERS, Columns, read_sparse, write_piece, write_sparse
from roclip_sanitize.scan.long_tail import labels_of
from roclip_sanitize.scan.search import BLOCK_ROWS, What, rows_file
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import atomic_file, exists, here
from roclip_sanitize.store import EmbeddingStore, StorePart, write_parquet

LABEL_COLUMN = "label"  # of a scan's scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a scan finds and leaves its files.

    Attributes:
        store: the embedding store.
        work: intermediate results.
    """

    store: Path
    work: Path

    @property
    def columns(self) -> Path:
        """The folder of the columns."""
        return self.work / "columns"

    def ranking(self, reason: Reason) -> Path:
        """All suspicions behind a reason, ascending, NaN left out."""
        return self.work / "ranking" / f"{reason}.npy"

    @property
    def word_weights(self) -> Path:
        """How much each word should show: (W,) float32."""
        return self.work / "word_weights.npy"

    @property
    def mismatched_words(self) -> Path:
        """How often each word is used by pairs that do not match."""
        return self.work / "mismatched_words.npz"

    def labels(self, name: str) -> Path:
        """The labels of one part's pairs."""
        return self.work / "labels" / f"labels_{name}.parquet"

    def read_labels(self, name: str) -> list[str | None] | None:
        """These labels, None for pairs without one; None where nobody asked for any."""
        path = self.labels(name)
        return read_table(path)[LABEL_COLUMN].to_list() if exists(path) else None

    def evidence(self, name: str) -> Path:
        """What the neighbours say to each word of one part's captions."""
        return self.work / "evidence" / f"evidence_{name}.npz"

    def scores(self, name: str) -> Path:
        """One part's raw scores."""
        return self.work / "scores" / f"scores_{name}.npz"

    def rows(self, what: What, part: StorePart) -> NDArray[np.int64]:
        """What a search noted for a part: (N, K); (N, 0) where there was no such search."""
        path = rows_file(self.work, what, part.name)
        if not exists(path):
            return np.empty((part.rows, 0), np.int64)
        row_NK: NDArray[np.int64] = np.load(here(path))
        return row_NK

    def commit(self, name: str, *files: Path, rows: int, laps: Laps, workers: int = 1) -> Marker:
        """Declare a pass over some rows done. Pairs count once in a scan: where they are judged."""
        facts = {"rows": rows, WORK_KEY: laps.work(0, workers=workers).to_json()}
        return StageFolder(self.work).commit(name, files=files, facts=facts)


class PieceWorker:
    """Writes parts' shares of the columns."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._store = EmbeddingStore.open(places.store)

    def __call__(self, part: StorePart) -> Marker:
        """Write one part's share."""
        laps = Laps()
        path = write_piece(self._store, part.name, self._places.columns)
        laps.lap("columns")
        return self._places.commit(f"piece_{part.name}", path, rows=part.rows, laps=laps)


class LabelWorker:
    """Reads what a field of the shards says of parts' pairs."""

    def __init__(self, places: Places, label: str, shards: Sequence[str]) -> None:
        self._places, self._label, self._shards = places, label, shards
        self._store = EmbeddingStore.open(places.store)

    def __call__(self, part: StorePart) -> Marker:
        """Read one part's shard."""
        import polars

        laps, path = Laps(), self._places.labels(part.name)
        shard = self._shards[int(part.name)]
        uids = self._store.metadata(part.name, ("uid",))["uid"].to_list()
        labels = labels_of(source_path(shard), uids, self._label)
        write_parquet(path, polars.DataFrame({LABEL_COLUMN: polars.Series(labels, dtype=polars.String)}))
        laps.lap("labels")
        return self._places.commit(f"labels_{part.name}", path, rows=part.rows, laps=laps)


class EvidenceWorker:
    """Asks the neighbours about each word of parts' captions."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._columns = Columns(places.columns)

    def __call__(self, part: StorePart) -> Marker:
        """Ask for one part."""
        from scipy.sparse import csr_matrix, vstack

        laps = Laps()
        neighbours_NK = self._places.rows("neighbours", part)
        blocks = [csr_matrix((0, WORD_NUMBERS), dtype=np.float32)]
        for start in range(0, part.rows, BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, part.rows))
            blocks.append(evidence(rows_of(part)[block], neighbours_NK[block], self._columns))
        path = self._places.evidence(part.name)
        write_sparse(path, vstack(blocks, format="csr"))
        laps.lap("evidence")
        return self._places.commit(f"evidence_{part.name}", path, rows=part.rows, laps=laps)


def weigh_words(places: Places, names: Sequence[str]) -> Path:
    """Weigh every word by the evidence of all parts. Memory: one part's evidence at a time."""
    weight_W = word_weights((read_sparse(places.evidence(name)) for name in names), words=WORD_NUMBERS)
    with atomic_file(places.word_weights) as file:
        np.save(file, weight_W)
    return places.word_weights


def rows_of(part: StorePart) -> NDArray[np.int64]:
    """Numbers of a part's rows in the whole store."""
    return np.arange(part.start, part.start + part.rows)


class Named(Protocol):
    """What a pass is done over: a part, or some."""

    @property
    def name(self) -> str:
        """By which its marker is found."""
        ...


def run_missing(
    make_worker: Callable[[], Callable[[Any], Any]],
    tasks: Iterable[Named],
    folder: StageFolder,
    prefix: str,
    executor: Executor,
) -> None:
    """Do the tasks that have no marker yet."""
    missing = [task for task in tasks if folder.marker(f"{prefix}{task.name}") is None]
    for _ in executor.map(make_worker, missing):
        pass
