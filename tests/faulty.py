"""What goes wrong, on purpose: stores that fail, disks that refuse, nodes that are taken away."""

from __future__ import annotations

import errno
import os
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem

from roclip_sanitize import runfiles, storage
from roclip_sanitize.executors.base import Crew, Executor, MakeWorker, Result, Task

NODES = 3
SOON_SECONDS = 300.0

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

    def aside(self, workers: int) -> AbstractContextManager[Executor | None]:
        return self._executor.aside(workers)

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


# Stores that fail


class ForgetfulStore(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """This disk under another protocol's name; the first time that anything is asked of it, it fails.

    Registered wherever this module is imported, hence in workers too: wrap what makes them in
    ``with_stores``.
    """

    protocol = "forgetful"
    asked: ClassVar[set[tuple[str, ...]]] = set()

    @classmethod
    def _strip_protocol(cls, path: Any, *told: Any, **named: Any) -> Any:
        return super()._strip_protocol(re.sub(r"^[a-z]+://", "/", str(path)), *told, **named)

    def info(self, path: str, **told: Any) -> dict[str, Any]:
        self._may_fail("info", path)
        found: dict[str, Any] = super().info(path, **told)
        return found

    def ls(self, path: str, detail: bool = False, **told: Any) -> Any:
        self._may_fail("ls", path)
        return super().ls(path, detail=detail, **told)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **told: Any) -> bytes:
        self._may_fail("cat", path, str(start))
        data: bytes = super().cat_file(path, start=start, end=end, **told)
        return data

    def _may_fail(self, *what: str) -> None:
        if what not in self.asked:
            self.asked.add(what)
            raise ConnectionResetError("connection reset by peer")


class StoreError(Exception):
    """What a store's own library raises: no OSError."""


class ShakyStore(ForgetfulStore):
    """Fails 5 % of what is asked of it, in all ways there are, and counts; what is in ``dead``, always."""

    protocol = "shaky"
    rate = 0.05
    dice: ClassVar[random.Random] = random.Random(0)
    failed: ClassVar[Counter[str]] = Counter()
    dead: ClassVar[set[str]] = set()
    ways: ClassVar[tuple[Exception | None, ...]] = (
        OSError(errno.EIO, "Input/output error"),
        ConnectionResetError("connection reset by peer"),
        TimeoutError("timed out"),
        StoreError("503 slow down"),
        None,  # sends half of it
    )

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **told: Any) -> bytes:
        data = super().cat_file(path, start=start, end=end, **told)
        return data[: len(data) // 2] if self.failed.pop("half", 0) else data

    def _may_fail(self, *what: str) -> None:
        if what[0] == "cat" and Path(what[1]).name in self.dead:
            raise ConnectionRefusedError("connection refused")
        if self.dice.random() >= self.rate:
            return
        way = self.dice.choice(self.ways)
        if way is not None:
            self.failed[type(way).__name__] += 1
            raise way
        if what[0] == "cat":
            self.failed.update(["ShortRead", "half"])


for kind in (ForgetfulStore, ShakyStore):
    register_implementation(kind.protocol, kind, clobber=True)


class WithStores:
    """An executor whose workers know these stores, too."""

    name = "ray"

    def __init__(self, executor: Executor) -> None:
        self._executor, self.size = executor, executor.size

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return self._executor.map(partial(_same, make_worker), tasks)


def _same(make_worker: MakeWorker[Any, Any]) -> Callable[[Any], Any]:
    return make_worker()  # to find this, the worker has imported this module


# Disks that refuse


class RefusingDisk:
    """What stands between runfiles.py and the disk; one step of a write to a folder fails.

    Steps are the making of a temporary file, each write to it (half of it is done), its flush to the
    device, and its renaming.

    Args:
        folder: whose files are meant.
        code: errno of the failure.
        at: number of the step that fails, from 1; 0 for none.
    """

    def __init__(self, folder: Path, *, code: int = 0, at: int = 0) -> None:
        self.steps = 0
        self._folder, self._code, self._at = folder.resolve(), code, at

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put it in place until the patches are undone."""
        made: dict[int, Path] = {}
        make, opened, flush, rename = tempfile.mkstemp, os.fdopen, os.fsync, Path.replace

        def mkstemp(*, dir: Path, prefix: str, suffix: str) -> tuple[int, str]:
            self._step(dir)
            handle, name = make(dir=dir, prefix=prefix, suffix=suffix)
            made[handle] = dir
            return handle, name

        def fdopen(handle: int, *told: Any) -> Any:
            file = opened(handle, *told)
            return _RefusingFile(file, partial(self._step, made[handle])) if handle in made else file

        def fsync(handle: int) -> None:
            self._step(made.pop(handle, self._folder))  # else it is of a folder's names
            flush(handle)

        def replace(path: Path, target: Any) -> Path:
            self._step(path.parent)
            return rename(path, target)

        patch.setattr(storage, "tempfile", SimpleNamespace(mkstemp=mkstemp))
        for module in (storage, runfiles):
            patch.setattr(module, "os", SimpleNamespace(**{**vars(os), "fdopen": fdopen, "fsync": fsync}))
        patch.setattr(Path, "replace", replace)

    def _step(self, folder: Path) -> None:
        if not folder.resolve().is_relative_to(self._folder):
            return
        self.steps += 1
        if self.steps == self._at:
            raise OSError(self._code, os.strerror(self._code))


class _RefusingFile:
    """A file open for writing, of which a write may be refused when half of it is done."""

    def __init__(self, file: Any, step: Callable[[], None]) -> None:
        self._file, self._step = file, step

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._file.write(data[: len(data) // 2])
        self._step()
        self._file.write(data[len(data) // 2 :])
        return len(data)

    def __enter__(self) -> _RefusingFile:
        return self

    def __exit__(self, *told: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
