"""What it means to run workers somewhere.

Workers are plain classes that know nothing of where they run. Every executor offers three
ways to run them, pinned by tests/test_executors.py, so that the rest of the package never
needs to know which one it has:

    map    a farm: many alike workers, each task goes to whichever is free
    crew   a service: each worker owns a part of something; every question goes to all of them
    gang   a training run: members start together and talk to each other by rank

Nothing large passes through: tasks and results are paths, counts and top-k rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Worker = Callable[[Task], Result]
MakeWorker = Callable[[], Callable[[Task], Result]]


class Crew(Protocol):
    """Workers that each own a part."""

    def ask(self, questions: Iterable[Any]) -> Iterator[list[Any]]:
        """Put each question to every member; yield its answers, in the order of the members.

        Questions keep their order, and only a bounded number is under way.
        """
        ...


class Executor(Protocol):
    """Somewhere to run workers."""

    name: str

    @property
    def size(self) -> int:
        """How many workers run side by side."""
        ...

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield one result per task, in the order in which they finish.

        ``tasks`` is pulled lazily: only a bounded number is under way.

        Raises:
            WorkerLost: a worker died and its task has no retry left.
            Exception: what a worker raised, as it raised it, at the first failure.
        """
        ...

    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> AbstractContextManager[Crew]:
        """Start one worker per maker; they live until the block ends."""
        ...

    def aside(self, workers: int) -> AbstractContextManager[Executor | None]:
        """Set workers apart that run while a gang does; what they take, no gang gets until the block ends.

        The block is given an executor of theirs, or None where nothing runs side by side.

        Raises:
            ConfigError: they would leave the gang nothing.
        """
        ...

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        """Run ``member(rank, size)`` on all ranks together and wait for them.

        With more than one rank, torch.distributed is initialised around the call. A member
        that dies is started again with all others, up to ``restarts`` times, so that it should
        resume from what it saved.

        Args:
            member: what each rank runs.
            folder: where the executor may keep its own state, on storage that all nodes see.
            ranks: how many; each gets an even share of the cores. 0 takes the executor's size.
            restarts: how often a failed run is started again.

        Raises:
            WorkerLost: a member died once more than ``restarts`` allows.
            RoclipError: what a member raised on purpose.
        """
        ...
