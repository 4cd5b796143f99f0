"""What goes wrong, on purpose: stores that fail, disks that refuse, nodes that are taken away.

And how to tell whether it mattered: tree() of what a stage left behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.executors.base import Crew, Executor, MakeWorker, Result, Task
from roclip_sanitize.runfiles import read_json

NODES = 3
SOON_SECONDS = 120.0

# What a stage left behind


def tree(out: Path) -> dict[str, object]:
    """All that a folder holds, by path, but for times, retries and what killed writers leave."""
    return {
        path.relative_to(out).as_posix(): _content(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix != ".part"
    }


def _content(path: Path) -> object:
    if path.parent.name == "done" or path.name in {"complete.json", "manifest.json"}:
        return _timeless(read_json(path))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = (name for name in value if "second" not in name and name != "retries")
        return {name: _timeless(value[name]) for name in kept}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return value


# Nodes that are taken away


class DoomedNode:
    """An executor on a cluster, one of whose nodes never answers.

    Whatever comes to that node leaves a flag and then hangs; whatever comes to another waits for the flag.
    So the node holds work when it is taken away, however quick the others are.
    """

    name = "ray"

    def __init__(self, executor: Executor, node: str, flag: Path) -> None:
        self._executor, self._node, self._flag = executor, node, flag

    @property
    def size(self) -> int:
        return self._executor.size

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        tasks = list(tasks)
        if len(tasks) < NODES:  # it may well come to no worker of that node
            return self._executor.map(make_worker, tasks)
        return self._executor.map(self._doomed(make_worker), tasks)

    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> AbstractContextManager[Crew]:
        return self._executor.crew([self._doomed(make) for make in makers])

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        self._executor.gang(member, folder=folder, ranks=ranks, restarts=restarts)

    def _doomed(self, make_worker: MakeWorker[Task, Result]) -> MakeWorker[Task, Result]:
        return partial(_Doomed, make_worker, self._node, self._flag)


class _Doomed:
    """A worker that hangs on one node, and waits for that on the others."""

    def __init__(self, make_worker: MakeWorker[Any, Any], node: str, flag: Path) -> None:
        self._work, self._node, self._flag = make_worker(), node, flag

    def __call__(self, task: Any) -> Any:
        import ray

        if ray.get_runtime_context().get_node_id() == self._node:
            self._flag.touch()
            time.sleep(SOON_SECONDS)
        wait_for(self._flag)
        return self._work(task)


def wait_for(path: Path) -> None:
    """Wait until a file exists.

    Raises:
        TimeoutError: it does not come.
    """
    until = time.monotonic() + SOON_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{path} did not appear in {SOON_SECONDS:g} s")
        time.sleep(0.05)
