"""What Ray costs, and what a second worker gives: embed and scan over the same shards, in four ways.

    python -m benchmarks.scaling [--pairs 48000] [--rounds 3]

    local    one worker, in this process
    alike    the same twice at once, in processes that have nothing to do with each other
    ray 1    one worker, an actor of Ray
    ray 2    two of them

Each worker is pinned to a core of its own, threads included, so that a second worker is a second core. The
ways take turns, each time in processes of their own, and start with a run over a few pairs: what is timed is
the work, not the start of Ray and its actors, which is printed beside it and paid once per command. Claims
are ratios of medians. The shards are rendered scenes. Exits with 1 if a claim does not hold.

Two cores share a cache and the way to the memory, and a virtual one may share more. So twice the work of
"local" in the time of "alike" is all that two workers of this machine can do: the ceiling that is printed
beside the claims.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.claims import Claim, report
from roclip_sanitize.corpus.render import render_corpus
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Crew
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.scan import ScanSettings, scan_store

WAYS = {"local": ("local", 1), "alike": ("local", 1), "ray 1": ("ray", 1), "ray 2": ("ray", 2)}
ALIKE = {"alike": 2}  # processes that run at once; one elsewhere
STAGES = ("embed", "scan")
SHARDS = 12  # more than workers by far, or the last one would run alone for long
WARM_PAIRS = 240
MOST_OVERHEAD = 0.05
LEAST_SPEEDUP = 1.8


class OneCore:
    """A worker on a core of its own: the first free one that its process finds in a folder."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], taken: Path) -> None:
        pin(taken)
        self._work = make_worker()

    def __call__(self, task: Any) -> Any:
        return self._work(task)


def pin(taken: Path) -> None:
    """Keep this process on one core, which no other that asks here gets while there are others."""
    mine = taken / str(os.getpid())
    if mine.exists():
        return
    mine.touch()
    for core in sorted(os.sched_getaffinity(0)):
        try:
            (taken / f"core {core}").touch(exist_ok=False)
        except FileExistsError:
            continue
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})
        return


class Pinned:
    """An executor whose workers have a core each."""

    def __init__(self, executor: Any, taken: Path) -> None:
        self._executor, self._taken = executor, taken
        self.name, self.size = executor.name, executor.size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def map(self, make_worker: Callable[[], Any], tasks: Any) -> Any:
        """See Executor.map."""
        return self._executor.map(partial(OneCore, make_worker, self._taken), tasks)

    def crew(self, makers: Sequence[Callable[[], Any]]) -> AbstractContextManager[Crew]:
        """See Executor.crew."""
        crew: AbstractContextManager[Crew] = self._executor.crew(
            [partial(OneCore, make, self._taken) for make in makers]
        )
        return crew


def main() -> None:
    """Measure, print the table, and tell in the exit code whether all claims hold."""
    told = _arguments()
    if told.way:
        print(json.dumps(_measure(told.way, told.folder, told.meeting)))
        return
    with tempfile.TemporaryDirectory(dir=told.scratch) as scratch:
        folder = Path(scratch).resolve()
        for name, pairs in (("warm", WARM_PAIRS), ("work", told.pairs)):
            _prepare(folder / name, pairs)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(told.rounds):
            for way, found in runs.items():
                found.append(_apart(way, folder))
    seconds = {
        way: {name: median(run[name] for run in found) for name in ("start", *STAGES)}
        for way, found in runs.items()
    }
    _show(runs, seconds)
    claims = [claim for stage in STAGES for claim in _claims(stage, seconds)]
    report("scaling", claims)
    raise SystemExit(0 if all(claim.holds for claim in claims) else 1)


def _prepare(folder: Path, pairs: int) -> None:
    """Shards, and a store with its index for scans, which are not timed."""
    here = LocalExecutor()
    render_corpus(folder / "shards", pairs=pairs, shards=SHARDS, seed=0, executor=here)
    _embed(folder, folder / "store", here)
    build_index(IndexSettings(store=folder / "store", transform="pca96"), out=folder / "index", executor=here)


def _embed(folder: Path, out: Path, executor: Any) -> None:
    shards = tuple(folder / "shards" / f"{shard:05d}.tar" for shard in range(SHARDS))
    embed_shards(EmbedSettings(shards=shards, encoder="plain"), out=out, executor=executor)


def _scan(folder: Path, out: Path, executor: Any) -> None:
    scan_store(ScanSettings(store=folder / "store", index=folder / "index"), out=out, executor=executor)


def _apart(way: str, folder: Path) -> dict[str, float]:
    """One way once, in processes of its own: the seconds of the slowest."""
    with tempfile.TemporaryDirectory(dir=folder) as meeting:
        command = [sys.executable, "-m", "benchmarks.scaling", "--way", way]
        command += ["--folder", str(folder), "--meeting", meeting]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(ALIKE.get(way, 1))
        ]
        told = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        raise SystemExit(f"scaling: {way} failed, see above")
    found: list[dict[str, float]] = [json.loads(one.splitlines()[-1]) for one in told]
    return {name: max(one[name] for one in found) for name in found[0]}


def _measure(way: str, folder: Path, meeting: Path) -> dict[str, float]:
    """Seconds of the start, a small run included, and of each stage."""
    name, workers = WAYS[way]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch)
        executor = Pinned(open_executor(name, workers=workers), meeting)
        found = dict[str, float]()
        for data in ("warm", "work"):
            for stage, run in {"embed": _embed, "scan": _scan}.items():
                _meet(meeting, f"{data} {stage}", of=ALIKE.get(way, 1))
                began = time.perf_counter()
                run(folder / data, out / data / stage, executor)
                found[stage] = time.perf_counter() - began
            if data == "warm":
                found["start"] = time.perf_counter() - started
    return found


def _meet(meeting: Path, occasion: str, *, of: int) -> None:
    """Wait until so many processes have come to this."""
    (meeting / f"{occasion} {os.getpid()}").touch()
    while len(list(meeting.glob(f"{occasion} *"))) < of:
        time.sleep(0.01)


def _claims(stage: str, seconds: dict[str, dict[str, float]]) -> list[Claim]:
    local, alike, one, two = (seconds[way][stage] for way in WAYS)
    overhead, speedup = one / local - 1, one / two
    print(f"{stage}: two processes alike do {2 * local / alike:.2f} times the work of one, the ceiling here")
    return [
        Claim(
            name=f"{stage}: seconds that Ray adds, as a share",
            value=overhead,
            target=f"<= {MOST_OVERHEAD}",
            holds=overhead <= MOST_OVERHEAD,
        ),
        Claim(
            name=f"{stage}: times as quick with two workers",
            value=speedup,
            target=f">= {LEAST_SPEEDUP}",
            holds=speedup >= LEAST_SPEEDUP,
        ),
    ]


def _show(runs: dict[str, list[dict[str, float]]], seconds: dict[str, dict[str, float]]) -> None:
    print(f"\n{'seconds, median':16}{'start':>9}{'embed':>9}{'scan':>9}   each round's")
    for way, found in runs.items():
        middle = "".join(f"{seconds[way][name]:>9.2f}" for name in ("start", *STAGES))
        print(f"{way:16}{middle}   {'; '.join(map(_each, found))}")


def _each(run: dict[str, float]) -> str:
    return " ".join(f"{run[stage]:.2f}" for stage in STAGES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=48_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=None, help="folder for results")
    parser.add_argument("--way", choices=WAYS, default="", help="measure this one once; for its own use")
    parser.add_argument("--folder", type=Path, default=None, help="with --way: what main prepared")
    parser.add_argument("--meeting", type=Path, default=None, help="with --way: where its processes meet")
    return parser.parse_args()


if __name__ == "__main__":
    main()
