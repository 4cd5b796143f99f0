"""Workers in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from roclip_sanitize.executors.base import Crew, MakeWorker, Result, Task


class LocalExecutor:
    """Runs everything here: what to debug with, and the reference for the others."""

    name = "local"
    size = 1

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See Executor.map. The worker is built with the first task, so that no task costs nothing."""
        worker: Callable[[Task], Result] | None = None
        for task in tasks:
            worker = worker or make_worker()
            yield worker(task)

    @contextmanager
    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> Iterator[Crew]:
        """See Executor.crew."""
        yield LocalCrew([make() for make in makers])

    def aside(self, workers: int) -> AbstractContextManager[None]:
        """See Executor.aside: there is but one process."""
        del workers
        return nullcontext()

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        """See Executor.gang: one rank, no restart, since a failure here ends this process too."""
        del folder, ranks, restarts
        member(0, 1)


class LocalCrew:
    """Workers that each own a part, in this process."""

    def __init__(self, workers: Sequence[Callable[[Any], Any]]) -> None:
        self._workers = workers

    def ask(self, questions: Iterable[Any]) -> Iterator[list[Any]]:
        """See Crew.ask."""
        for question in questions:
            yield [worker(question) for worker in self._workers]


def gpus_here() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count()
