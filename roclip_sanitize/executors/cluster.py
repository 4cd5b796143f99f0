"""Workers as Ray actors, training as a Ray Train run. The only module that imports ray.

Each CPU actor gets an even share of the cores, and sees no GPU: Ray lets an actor that asked
for none see them all, and two libraries would then fight for the memory.

An actor may be lost at any time, alone or with its node. Ray would start it again where there is
room for it, and wait for ever where there is none; so that we do it ourselves: what it held goes to
those that are left, and another one joins them as soon as the cluster has room.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, zip_longest
from typing import Any
from uuid import uuid4

from roclip_sanitize.errors import RoclipError, WorkerLost
from roclip_sanitize.executors.base import Crew, MakeWorker, Result, Task

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

IN_FLIGHT_PER_ACTOR = 2  # one running, one waiting: enough to hide the hand-over
QUESTIONS_IN_FLIGHT = 4
FAILED_STARTS = 20  # of actors that were lost before they did anything: enough for a cluster that shrinks
PATIENCE_SECONDS = 30.0  # for an actor of a crew to start, before a neighbour does its part
NOISY_LOGGERS = ("ray._private.authentication.authentication_token_setup",)  # "token auth is on", each time


class RayExecutor:
    """Runs workers on the Ray cluster that RAY_ADDRESS names, else on one of this machine's own."""

    name = "ray"

    def __init__(self, workers: int = 0, *, gpus_per_worker: float = 0.0, restarts: int = 2) -> None:
        """Connect.

        Args:
            workers: actors side by side; 0 takes one per GPU if ``gpus_per_worker`` is set, else
                one per core.
            gpus_per_worker: GPUs that each actor holds; a fraction shares one.
            restarts: how often a task is started again whose actor was lost.
        """
        _connect()
        resources = ray.cluster_resources()
        largest = max(
            (int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1
        )
        self._all_cores = max(1, int(resources.get("CPU", 1)))
        offered = int(resources.get("GPU", 0) / gpus_per_worker) if gpus_per_worker else self._all_cores
        self._size = workers or max(1, offered)
        self._gpus = gpus_per_worker
        self._cores = max(1, min(self._all_cores // self._size, largest))  # an actor fits one node
        self._restarts = restarts
        self._idle: list[Any] = []

    @property
    def size(self) -> int:
        """See Executor.size."""
        return self._size

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See Executor.map."""
        waiting = iter(tasks)
        first = list(islice(waiting, self._size))
        if not first:
            return
        with self._borrow(len(first)) as actors:
            farm = _Farm(
                actors, chain(first, waiting), _Recipe(make_worker), self._start, lives=self._restarts
            )
            yield from farm.results()

    @contextmanager
    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> Iterator[Crew]:
        """See Executor.crew. More members than workers share them."""
        groups = [makers[start :: self._size] for start in range(min(self._size, len(makers)))]
        with self._borrow(len(groups)) as actors:
            session = uuid4().hex
            recipes = [_Recipe(partial(_Group, group), session) for group in groups]
            yield RayCrew(actors, recipes, self._start, lives=self._restarts)

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        """See Executor.gang: a Ray Train run whose workers are the ranks."""
        self._dismiss(self._idle)  # they hold the cores that the ranks need
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        ranks = ranks or self._size
        cores = max(1, self._all_cores // ranks)
        threads, here = str(cores), os.getcwd()

        def run_member() -> None:
            context = ray.train.get_context()
            _enter(here)
            os.environ["OMP_NUM_THREADS"] = threads
            member(context.get_world_rank(), context.get_world_size())

        trainer = TorchTrainer(
            run_member,
            torch_config=TorchConfig(backend="nccl" if self._gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=ranks,
                use_gpu=bool(self._gpus),
                resources_per_worker={"CPU": cores, **({"GPU": self._gpus} if self._gpus else {})},
            ),
            run_config=RunConfig(
                name="ray_train", storage_path=folder, failure_config=FailureConfig(max_failures=restarts)
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise _cause(error) from error

    @contextmanager
    def _borrow(self, count: int) -> Iterator[list[Any]]:
        """Actors for the length of a block. Starting one takes seconds, so they are kept and used again."""
        actors = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
        actors += [self._start() for _ in range(count - len(actors))]
        try:
            yield actors
        except BaseException:
            self._dismiss(actors)  # they may still be at work on what nobody waits for
            raise
        self._idle += actors

    def _dismiss(self, actors: list[Any]) -> None:
        for actor in actors:
            ray.kill(actor)
        actors.clear()

    def _start(self) -> Any:
        environment = {"OMP_NUM_THREADS": str(self._cores)}
        if not self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        options = {
            "num_cpus": self._cores,
            "num_gpus": self._gpus,
            "runtime_env": {"env_vars": environment},
        }
        return _RemoteActor.options(**options).remote()


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


class _Farm:
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
        recipe: _Recipe,
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
            _remove(self._actors, actor)

    def _welcome(self, ready: Any) -> None:
        actor = self._coming.pop(ready)
        try:
            _fetch(ready)
        except _Lost as error:
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
            result = _fetch(done)
        except _Lost as error:
            self._lose(seat, error)
            self._fill()
            return
        del self._running[done], seat.held[done]
        self._fill()
        yield result

    def _lose(self, seat: _Seat, error: _Lost) -> None:
        """Take back all that an actor held. Only what it was at may have been its death, and costs a life."""
        for reference in seat.held:
            del self._running[reference]
        first, *others = seat.held.values()
        if not first.lives:
            raise _no_retry_left(error) from error
        self._again.extend([_Job(first.task, first.lives - 1), *others])
        self._seats.remove(seat)
        self._replace(seat.actor)

    def _replace(self, actor: Any) -> None:
        _remove(self._actors, actor)
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


class RayCrew:
    """Workers that each own a part, spread over actors. The part of a lost one moves to another.

    Args:
        actors: the borrower's list. Lost ones leave it, their replacements join it.
        recipes: of the workers, one for each of the actors.
        start: starts an actor.
        lives: how often a question may be put again to one of them.
    """

    def __init__(
        self, actors: list[Any], recipes: Sequence[_Recipe], start: Callable[[], Any], *, lives: int
    ) -> None:
        self._actors, self._recipes, self._start, self._lives = actors, recipes, start, lives
        self._hosts = list(actors)
        pings = [actor.ready.remote() for actor in actors]
        answered, _ = ray.wait(pings, num_returns=len(pings), timeout=PATIENCE_SECONDS)
        for member, (actor, ping) in enumerate(zip(list(actors), pings, strict=True)):
            if ping not in answered:
                self._lodge(member, actor)
            elif not _came_up(ping):
                self._move(member, actor)

    def ask(self, questions: Iterable[Any]) -> Iterator[list[Any]]:
        """See Crew.ask."""
        waiting = iter(questions)
        running = deque(self._put(question) for question in islice(waiting, QUESTIONS_IN_FLIGHT))
        while running:
            shared, asked = running.popleft()
            by_actor = [self._answer(member, shared, *told) for member, told in enumerate(asked)]
            running.extend(self._put(question) for question in islice(waiting, 1))
            rounds = zip_longest(*by_actor, fillvalue=_NOBODY)  # members were dealt out in turn
            yield [answer for turn in rounds for answer in turn if answer is not _NOBODY]

    def _put(self, question: Any) -> tuple[Any, list[tuple[Any, Any]]]:
        shared = ray.put(question)
        hosts = zip(self._hosts, self._recipes, strict=True)
        return shared, [(actor, recipe.put(actor, shared)) for actor, recipe in hosts]

    def _answer(self, member: int, shared: Any, actor: Any, reference: Any) -> Any:
        """What a member answers, wherever it must be built for that."""
        for _ in range(self._lives):
            try:
                return _fetch(reference)
            except _Lost:
                if self._hosts[member] is actor:  # else an earlier question has found out
                    self._move(member, actor)
            actor = self._hosts[member]
            reference = self._recipes[member].put(actor, shared)
        try:
            return _fetch(reference)
        except _Lost as error:
            raise _no_retry_left(error) from error

    def _move(self, member: int, lost: Any) -> None:
        """Find another host: a new actor if there is room for one, else a neighbour."""
        _remove(self._actors, lost)
        self._hosts[member] = self._start()
        self._actors.append(self._hosts[member])
        ping = self._hosts[member].ready.remote()
        answered, _ = ray.wait([ping], timeout=PATIENCE_SECONDS)
        if not answered:
            self._lodge(member, self._hosts[member])

    def _lodge(self, member: int, pending: Any) -> None:
        """Stop waiting for an actor: the neighbour with the fewest members takes this one in too.

        Without neighbours, waiting is all there is to do.
        """
        neighbours = [actor for actor in self._actors if actor is not pending]
        if neighbours:
            self._hosts[member] = min(neighbours, key=self._hosts.count)
            _remove(self._actors, pending)


class _Recipe:
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
        return actor.run.remote(self._session, self._name, self._make, self._folder, task)


class _Group:
    """Several members in one process: each question goes to all of them."""

    def __init__(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> None:
        self._workers = [make() for make in makers]

    def __call__(self, question: Any) -> list[Any]:
        return [worker(question) for worker in self._workers]


class _Actor:
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
            _enter(folder)
            self._workers[name] = make_worker()
        return self._workers[name](task)


def _enter(folder: str) -> None:
    """Go where the driver is, if that exists here: else its relative paths would lead elsewhere."""
    if os.path.isdir(folder):
        os.chdir(folder)


_NOBODY = object()
_RemoteActor: Any = ray.remote(_Actor)


def _connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one of this machine's own."""
    if ray.is_initialized():
        return
    if not os.environ.get("RAY_ADDRESS"):  # nobody takes this machine's own nodes away
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if not os.environ.get("RAY_ADDRESS"):
        quiet["include_dashboard"] = False
    try:
        ray.init(**quiet)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        ray.init(**quiet)  # a busy machine: what the first try read from disk is now in memory


class _Lost(Exception):
    """An actor is gone, or its node is, and what it was asked has no answer."""


def _fetch(reference: Any) -> Any:
    """What an actor answered.

    Raises:
        _Lost: nothing, since it is gone.
        Exception: what its worker raised, as it raised it.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise _cause(error) from error
    except (RayActorError, ObjectLostError) as error:
        raise _Lost(_last_line(error)) from error


def _came_up(ping: Any) -> bool:
    try:
        _fetch(ping)
    except _Lost:
        return False
    return True


def _remove(actors: list[Any], gone: Any) -> None:
    """Take an actor off a list, and make sure that it is gone."""
    actors[:] = [actor for actor in actors if actor is not gone]
    ray.kill(gone)


def _no_retry_left(error: Exception) -> WorkerLost:
    return WorkerLost(f"a worker died and its task has no retry left: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _cause(error: Exception) -> Exception:
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
    return _no_retry_left(error)
