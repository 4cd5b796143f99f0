"""How near exact search comes to the machine's sgemm, what parts cost, and what approximate kinds give.

    python -m benchmarks.search [--quick] [--store STORE]

    exact        rows of width 512 asked by some of themselves: products of the search in GFLOP/s, as a
                 share of what numpy's sgemm does in the same process and run, with as many threads; and both
                 by processor time, which a busy machine spoils less
    parts        4 parts on 2 workers against 1 part in one process with all cores: time, and answers
    kinds        recall@1, recall@10 and queries/s of the approximate kinds on fewer rows, against flat

Wanted is 100,000 queries over 1,000,000 rows: 1e14 operations, more than two cores do in minutes. So
2,048 of the queries are asked, and the time for all is computed from their rate. The rows are
generated: points of 24 dimensions around 2,000 centres, mapped to the width, with a little noise.
--store measures the kinds on the pictures of an embedding store instead. --quick takes a tenth of
the rows, and for the kinds 20,000 of width 128.

Each pass is repeated in turn with the others, and the fastest counts: what else the machine does only slows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import IndexSettings, build_index, open_index
from roclip_sanitize.index_plan import KINDS
from roclip_sanitize.matching import QUERIES_AT_ONCE
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.searcher import ShardedIndex
from roclip_sanitize.store import EmbeddingStore, vectors_file, write_vectors

WIDTH = 512
ROWS, QUICK_ROWS = 1_000_000, 100_000
KIND_ROWS = (100_000, WIDTH)  # learnt and linked by one thread: minutes
QUICK_KIND_ROWS = (20_000, 128)
ALL_QUERIES, ALL_ROWS = 100_000, 1_000_000
QUERIES = 2_048
NEIGHBOURS = 10
STORE_PARTS = 8
CENTRES, DIMENSIONS, NOISE = 2_000, 24, 0.02
REPEATS = 3
SGEMM_SIDE = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Work done: GFLOP a second by the clock, and a second of one core."""

    clock: float
    core: float

    @classmethod
    def best(cls, operations: float, run: Callable[[], object], *, repeats: int) -> Rate:
        """Of some repeats, the fastest by either measure: what else the machine does only slows."""
        clock, cores = list[float](), list[float]()
        for _ in range(repeats):
            started, busy = time.perf_counter(), time.process_time()
            run()
            cores.append(time.process_time() - busy)
            clock.append(time.perf_counter() - started)
        return cls(clock=operations / min(clock) / 1e9, core=operations / min(cores) / 1e9)

    def or_better(self, other: Rate) -> Rate:
        """The higher of two, by either measure."""
        return Rate(clock=max(self.clock, other.clock), core=max(self.core, other.core))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """What the exact search did.

    Attributes:
        sgemm: what numpy's sgemm does with all cores.
        search: 1 part in this process.
        parts: GFLOP/s of 4 parts on 2 workers.
        identical: share of the queries that both answered alike, bit for bit.
    """

    sgemm: Rate
    search: Rate
    parts: float
    identical: float


def main() -> None:
    """Measure, and print the tables."""
    told = _arguments()
    rows, (kind_rows, width) = (QUICK_ROWS, QUICK_KIND_ROWS) if told.quick else (ROWS, KIND_ROWS)
    with tempfile.TemporaryDirectory(prefix="roclip-search-") as folder:
        scratch = Path(folder)
        exact = measure_exact(generate(scratch / "store", rows=rows, width=WIDTH), scratch, told.executor)
        _show_exact(exact, rows)
        store = EmbeddingStore.open(told.store) if told.store else None
        store = store or generate(scratch / "kinds", rows=kind_rows, width=width)
        kinds = measure_kinds(store, scratch)
    _show_kinds(kinds, store)
    report("search", [*_exact_claims(exact), *_kind_claims(kinds)])


def measure_exact(store: EmbeddingStore, scratch: Path, executor: str) -> Exact:
    """Sgemm, one part in this process and four parts on two workers, in turn."""
    alone, two = open_executor("local"), open_executor(executor, workers=2)
    _build(store, scratch / "one", alone, parts=1)
    _build(store, scratch / "four", two, parts=4)
    tasks = questions(store)
    with ExitStack() as opened:
        one = opened.enter_context(open_index(scratch / "one", alone))
        four = opened.enter_context(open_index(scratch / "four", two))
        for index in (one, four):
            ask(index, tasks[:1])  # pages and buffers are there from now on
        operations = 2.0 * sum(task.stop - task.start for task in tasks) * store.rows * WIDTH
        sgemm = search = Rate(clock=0.0, core=0.0)
        parts, answers = 0.0, dict[str, list[Neighbours]]()
        for _ in range(REPEATS):
            sgemm = sgemm.or_better(sgemm_rate())
            search = search.or_better(
                Rate.best(operations, lambda: answers.update(one=ask(one, tasks)[1]), repeats=1)
            )
            seconds, answers["four"] = ask(four, tasks)
            parts = max(parts, operations / seconds / 1e9)
    return Exact(sgemm=sgemm, search=search, parts=parts, identical=alike(answers["one"], answers["four"]))


def measure_kinds(store: EmbeddingStore, scratch: Path) -> dict[str, dict[str, Any]]:
    """Facts of an index of each kind, with queries/s of many more queries than the index itself asks."""
    executor, measured = open_executor("local"), {}
    tasks = questions(store)
    for kind in (kind for kind in KINDS if kind != "auto"):
        started = time.perf_counter()
        facts = _build(store, scratch / f"kind_{kind}", executor, kind=kind, parts=1)
        facts["build_seconds"] = time.perf_counter() - started
        with open_index(scratch / f"kind_{kind}", executor) as index:
            ask(index, tasks[:1])
            seconds = min(ask(index, tasks)[0] for _ in range(REPEATS))
        facts["queries_per_second"] = sum(task.stop - task.start for task in tasks) / seconds
        measured[kind] = facts
    return measured


def generate(path: Path, *, rows: int, width: int) -> EmbeddingStore:
    """A store of generated picture vectors in equal parts."""
    random = np.random.default_rng(0)
    centre_CE = random.normal(size=(CENTRES, DIMENSIONS))
    map_ED = random.normal(size=(DIMENSIONS, width)) / np.sqrt(DIMENSIONS)
    names = [f"{part:05d}" for part in range(STORE_PARTS)]
    encoder = {"digest": "generated", "joint": False, "image_width": width}
    settings = {"encoder": encoder, "shards": [f"{name}.tar" for name in names]}
    folder = StageFolder.create(path, stage="embed", settings=settings)
    for number, name in enumerate(names):
        count = rows * (number + 1) // STORE_PARTS - rows * number // STORE_PARTS
        point_NE = centre_CE[random.integers(0, CENTRES, count)] + random.normal(size=(count, DIMENSIONS))
        vector_ND = (point_NE @ map_ED + NOISE * random.normal(size=(count, width))).astype(np.float32)
        vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
        file = vectors_file(path, name, "image")
        write_vectors(file, vector_ND)
        folder.commit(name, files=[file], facts={"rows": count, "tally": Tally(seen=count).to_json()})
    folder.finish({"encoder": encoder})
    return EmbeddingStore.open(path)


def questions(store: EmbeddingStore) -> list[SearchTask]:
    """The first rows of the store, some at a time, each asking for its neighbours."""
    tasks, left = list[SearchTask](), QUERIES
    for part in store.parts:
        for start in range(0, min(part.rows, left), QUERIES_AT_ONCE):
            tasks.append(
                SearchTask(
                    store=store.path,
                    part=part.name,
                    modality="image",
                    start=start,
                    stop=min(start + QUERIES_AT_ONCE, part.rows),
                    k=NEIGHBOURS,
                    exclude_self=True,
                )
            )
        left -= min(part.rows, left)
    return tasks


def ask(index: ShardedIndex, tasks: Sequence[SearchTask]) -> tuple[float, list[Neighbours]]:
    """Seconds that the answers took, and the answers."""
    started = time.perf_counter()
    answers = list(index.search(tasks))
    return time.perf_counter() - started, answers


def alike(expected: Sequence[Neighbours], found: Sequence[Neighbours]) -> float:
    """Share of the queries whose rows and cosines are the same."""
    same = [
        (one.rows_NK == other.rows_NK).all(axis=1) & (one.cosine_NK == other.cosine_NK).all(axis=1)
        for one, other in zip(expected, found, strict=True)
    ]
    return float(np.concatenate(same).mean())


def sgemm_rate() -> Rate:
    """Numpy's float32 matrix product, on a square of a size that BLAS likes: flatter shapes are slower."""
    matrix: NDArray[np.float32] = np.random.default_rng(0).random((SGEMM_SIDE, SGEMM_SIDE), np.float32)
    return Rate.best(2.0 * SGEMM_SIDE**3, lambda: matrix @ matrix, repeats=5)


def _build(store: EmbeddingStore, out: Path, executor: Executor, **settings: Any) -> dict[str, Any]:
    return build_index(IndexSettings(store=store.path, **settings), out=out, executor=executor)


def _show_exact(exact: Exact, rows: int) -> None:
    print(f"{QUERIES:,} queries over {rows:,} rows of width {WIDTH}, GFLOP/s:")
    clock = f"  sgemm {exact.sgemm.clock:.1f}, 1 part {exact.search.clock:.1f}"
    print(f"{clock}, 4 parts on 2 workers {exact.parts:.1f}")
    print(f"  by a core's own time: sgemm {exact.sgemm.core:.1f}, 1 part {exact.search.core:.1f}")
    minutes = 2 * ALL_QUERIES * ALL_ROWS * WIDTH / 1e9 / exact.search.clock / 60
    print(f"  {ALL_QUERIES:,} queries over {ALL_ROWS:,} rows would take {minutes:.1f} minutes at that rate")


def _show_kinds(kinds: dict[str, dict[str, Any]], store: EmbeddingStore) -> None:
    print(f"\n{store.rows:,} rows of width {kinds['flat']['width']}:")
    print(f"{'kind':10}{'nprobe':>8}{'recall@1':>10}{'recall@10':>11}{'queries/s':>11}{'build s':>9}")
    for kind, facts in kinds.items():
        print(
            f"{kind:10}{facts.get('nprobe', '-'):>8}{facts['recall@1']:>10.3f}{facts['recall@10']:>11.3f}"
            f"{facts['queries_per_second']:>11,.0f}{facts['build_seconds']:>9.1f}"
        )


def _exact_claims(exact: Exact) -> list[Claim]:
    share, parts = exact.search.clock / exact.sgemm.clock, exact.parts / exact.search.clock
    core = exact.search.core / exact.sgemm.core
    return [
        Claim(name="exact search, share of sgemm", value=share, target=">= 0.8", holds=share >= 0.8),
        Claim(name="the same by processor time", value=core, target=">= 0.8", holds=core >= 0.8),
        Claim(name="4 parts on 2 workers, of 1 part", value=parts, target=">= 0.9", holds=parts >= 0.9),
        Claim(name="answers alike", value=exact.identical, target="1", holds=exact.identical == 1),
    ]


def _kind_claims(kinds: dict[str, dict[str, Any]]) -> list[Claim]:
    claims, flat = list[Claim](), kinds["flat"]["queries_per_second"]
    for kind in (kind for kind in kinds if kind != "flat"):
        recall, times = kinds[kind]["recall@10"], kinds[kind]["queries_per_second"] / flat
        claims += [
            Claim(name=f"{kind}, recall@10", value=recall, target=">= 0.95", holds=recall >= 0.95),
            Claim(name=f"{kind}, queries/s of flat's", value=times, target="> 1", holds=times > 1),
        ]
    return claims


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
