"""Actors: processes that hold workers, how they are asked, and how it shows that one is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from roclip_sanitize.errors import RoclipError, WorkerLost


class Actor:
    """A process that holds one worker; or some of one crew, where others were lost."""

    def __init__(self) -> None:
        self._session = ""
        self._workers: dict[str, Callable[[Any], Any]] = {}

    def ready(self) -> None:
        """Answers once the process is up."""

    def run(
        self,
        session: str,
        name: str,
        make_worker: Callable[[], Callable[[Any], Any]],
        folder: str,
        task: Any,
    ) -> Any:
        if self._session != session:
            self._workers.clear()  # the old ones' memory goes first
            self._session = session
        if name not in self._workers:
            enter(folder)
            self._workers[name] = make_worker()
        return self._workers[name](task)


RemoteActor: Any = ray.remote(Actor)


class Recipe:
    """How to build a worker, sent along with every task: whatever actor gets it can do it.

    Args:
        make_worker: makes it.
        session: of workers that an actor may hold side by side; those of another session go first.
    """

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], session: str = "") -> None:
        self._name, self._folder = uuid4().hex, os.getcwd()
        self._session = session or self._name
        self._make = ray.put(make_worker)

    def put(self, actor: Any, task: Any) -> Any:
        """Have an actor do a task: a reference to its answer."""
        return actor.run.remote(self._session, self._name, self._make, self._folder, task)


class Group:
    """Several members in one process: each question goes to all of them."""

    def __init__(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> None:
        self._workers = [make() for make in makers]

    def __call__(self, question: Any) -> list[Any]:
        return [worker(question) for worker in self._workers]


class Lost(Exception):
    """An actor is gone, or its node is, and what it was asked has no answer."""


def fetch(reference: Any) -> Any:
    """What an actor answered.

    Raises:
        Lost: nothing, since it is gone.
        Exception: what its worker raised, as it raised it.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise cause(error) from error
    except (RayActorError, ObjectLostError) as error:
        raise Lost(_last_line(error)) from error


def came_up(ping: Any) -> bool:
    """Whether an actor that was asked if it is ready ever was."""
    try:
        fetch(ping)
    except Lost:
        return False
    return True


def remove(actors: list[Any], gone: Any) -> None:
    """Take an actor off a list, and make sure that it is gone."""
    actors[:] = [actor for actor in actors if actor is not gone]
    ray.kill(gone)


def no_retry_left(error: Exception) -> WorkerLost:
    """What to raise when a task was lost too often."""
    return WorkerLost(f"a worker died and its task has no retry left: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def cause(error: Exception) -> Exception:
    """What a worker raised, dug out of the types that Ray wraps around it."""
    current = error
    for _ in range(8):  # as deep as Ray Train nests its wrappers, and some
        failures = list(getattr(current, "worker_failures", {}).values())
        deeper = getattr(current, "cause", None) or next(iter(failures), None)
        if not isinstance(deeper, Exception):
            break
        current = deeper
    if isinstance(current, RoclipError) or (isinstance(error, RayTaskError) and current is not error):
        return current
    return no_retry_left(error)


def enter(folder: str) -> None:
    """Go where the driver is, if that exists here: else its relative paths would lead elsewhere."""
    if os.path.isdir(folder):
        os.chdir(folder)
