"""Tasks, dealt out to actors, any of which may be lost: what Executor.map is on Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from roclip_sanitize.errors import WorkerLost
from roclip_sanitize.executors.actors import Lost, Recipe, fetch, no_retry_left, remove

IN_FLIGHT_PER_ACTOR = 2  # one running, one waiting: enough to hide the hand-over
FAILED_STARTS = 20  # of actors that were lost before they did anything: enough for a cluster that shrinks


@dataclass(slots=True)
class _Job:
    """A task, and how often it may still be started again."""

    task: Any
    lives: int


@dataclass(slots=True, eq=False)
class _Seat:
    """An actor that is up, and what it was given and has not answered, in that order."""

    actor: Any
    held: dict[Any, _Job] = field(default_factory=dict)


class Farm:
    """Tasks, dealt out to actors as they come up; what a lost one held goes to the others.

    Args:
        actors: the borrower's list. Lost ones leave it, their replacements join it.
        tasks: pulled one by one.
        recipe: of the worker.
        start: starts an actor.
        lives: how often a task may be started again.
    """

    def __init__(
        self,
        actors: list[Any],
        tasks: Iterable[Any],
        recipe: Recipe,
        start: Callable[[], Any],
        *,
        lives: int,
    ) -> None:
        self._actors, self._recipe, self._start, self._lives = actors, recipe, start, lives
        self._tasks, self._again = iter(tasks), deque[_Job]()
        self._coming = {actor.ready.remote(): actor for actor in actors}
        self._seats, self._running = list[_Seat](), dict[Any, _Seat]()
        self._failed_starts = 0

    def results(self) -> Iterator[Any]:
        """One result per task, as they come; actors that never came up are dismissed."""
        self._fill()
        while self._running or self._again or not self._seats:
            (done,), _ = ray.wait([*self._running, *self._coming], num_returns=1)
            if done in self._coming:
                self._welcome(done)
            else:
                yield from self._answer(done)
        for actor in self._coming.values():
            remove(self._actors, actor)

    def _welcome(self, ready: Any) -> None:
        actor = self._coming.pop(ready)
        try:
            fetch(ready)
        except Lost as error:
            self._failed_starts += 1
            if self._failed_starts > FAILED_STARTS:
                raise WorkerLost(f"no worker lives long enough to start: {error}") from error
            self._replace(actor)
        else:
            self._seats.append(_Seat(actor))
        self._fill()

    def _answer(self, done: Any) -> Iterator[Any]:
        seat = self._running[done]
        try:
            result = fetch(done)
        except Lost as error:
            self._lose(seat, error)
            self._fill()
            return
        del self._running[done], seat.held[done]
        self._fill()
        yield result

    def _lose(self, seat: _Seat, error: Lost) -> None:
        """Take back all that an actor held. Only what it was at may have been its death, and costs a life."""
        for reference in seat.held:
            del self._running[reference]
        first, *others = seat.held.values()
        if not first.lives:
            raise no_retry_left(error) from error
        self._again.extend([_Job(first.task, first.lives - 1), *others])
        self._seats.remove(seat)
        self._replace(seat.actor)

    def _replace(self, actor: Any) -> None:
        remove(self._actors, actor)
        self._actors.append(self._start())
        self._coming[self._actors[-1].ready.remote()] = self._actors[-1]

    def _fill(self) -> None:
        """Give every actor a task, then another; but the latter only once nobody is waited for."""
        for depth in range(1 if self._coming else IN_FLIGHT_PER_ACTOR):
            for seat in self._seats:
                if len(seat.held) <= depth and (job := self._next_job()):
                    reference = self._recipe.put(seat.actor, job.task)
                    seat.held[reference], self._running[reference] = job, seat

    def _next_job(self) -> _Job | None:
        if self._again:
            return self._again.popleft()
        return next((_Job(task, self._lives) for task in self._tasks), None)
