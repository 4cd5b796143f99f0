"""Workers as Ray actors, training as a Ray Train run. The only module that imports ray.

Each CPU actor gets an even share of the cores, and sees no GPU: Ray lets an actor that asked
for none see them all, and two libraries would then fight for the memory.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice, zip_longest
from typing import Any
from uuid import uuid4

from roclip_sanitize.errors import RoclipError, WorkerLost
from roclip_sanitize.executors.base import Crew, MakeWorker, Result, Task

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere

import ray
from ray.exceptions import RayActorError, RayTaskError

IN_FLIGHT_PER_ACTOR = 2  # one running, one waiting: enough to hide the hand-over
QUESTIONS_IN_FLIGHT = 4
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
            restarts: how often a dead actor, and the task it held, is started again.
        """
        _connect()
        resources = ray.cluster_resources()
        self._all_cores = max(1, int(resources.get("CPU", 1)))
        offered = int(resources.get("GPU", 0) / gpus_per_worker) if gpus_per_worker else self._all_cores
        self._size = workers or max(1, offered)
        self._gpus = gpus_per_worker
        self._cores = max(1, self._all_cores // self._size)
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
            recipe = _Recipe(make_worker)
            running = {recipe.put(actor, task): actor for actor, task in zip(actors, first, strict=True)}
            more = islice(waiting, len(actors) * (IN_FLIGHT_PER_ACTOR - 1))
            for actor, task in zip(actors, more, strict=False):
                running[recipe.put(actor, task)] = actor
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                actor = running.pop(done)
                result = _fetch(done)
                for task in islice(waiting, 1):
                    running[recipe.put(actor, task)] = actor
                yield result

    @contextmanager
    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> Iterator[Crew]:
        """See Executor.crew. More members than workers share them."""
        groups = [makers[start :: self._size] for start in range(min(self._size, len(makers)))]
        with self._borrow(len(groups)) as actors:
            yield RayCrew(actors, [_Recipe(partial(_Group, group)) for group in groups])

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
            "max_restarts": self._restarts,
            "max_task_retries": self._restarts,
            "runtime_env": {"env_vars": environment},
        }
        return _RemoteActor.options(**options).remote()


class RayCrew:
    """Workers that each own a part, spread over actors."""

    def __init__(self, actors: Sequence[Any], recipes: Sequence[_Recipe]) -> None:
        self._actors, self._recipes = actors, recipes

    def ask(self, questions: Iterable[Any]) -> Iterator[list[Any]]:
        """See Crew.ask."""
        waiting = iter(questions)
        running = deque(self._put(question) for question in islice(waiting, QUESTIONS_IN_FLIGHT))
        while running:
            by_actor = [_fetch(reference) for reference in running.popleft()]
            running.extend(self._put(question) for question in islice(waiting, 1))
            rounds = zip_longest(*by_actor, fillvalue=_NOBODY)  # members were dealt out in turn
            yield [answer for turn in rounds for answer in turn if answer is not _NOBODY]

    def _put(self, question: Any) -> list[Any]:
        shared = ray.put(question)
        return [recipe.put(actor, shared) for actor, recipe in zip(self._actors, self._recipes, strict=True)]


class _Recipe:
    """How to build a worker, sent along with every task: an actor that was restarted builds it again."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._name, self._folder = uuid4().hex, os.getcwd()
        self._make = ray.put(make_worker)

    def put(self, actor: Any, task: Any) -> Any:
        return actor.run.remote(self._name, self._make, self._folder, task)


class _Group:
    """Several members in one process: each question goes to all of them."""

    def __init__(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> None:
        self._workers = [make() for make in makers]

    def __call__(self, question: Any) -> list[Any]:
        return [worker(question) for worker in self._workers]


class _Actor:
    """A process that holds one worker at a time."""

    def __init__(self) -> None:
        self._name = ""
        self._worker: Callable[[Any], Any] | None = None

    def run(self, name: str, make_worker: Callable[[], Callable[[Any], Any]], folder: str, task: Any) -> Any:
        if self._worker is None or self._name != name:
            _enter(folder)
            self._worker = None  # the old one's memory goes first
            self._worker, self._name = make_worker(), name
        return self._worker(task)


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


def _fetch(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise _cause(error) from error
    except RayActorError as error:
        raise _cause(error) from error


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
    last_line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return WorkerLost(f"a worker died and its task has no retry left: {last_line}")
