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
from itertools import islice
from typing import Any

from roclip_sanitize.errors import RoclipError, WorkerLost
from roclip_sanitize.executors.base import Crew, MakeWorker, Result, Task

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere

import ray
from ray.exceptions import RayActorError, RayTaskError

IN_FLIGHT_PER_ACTOR = 2  # one running, one waiting: enough to hide the hand-over
QUESTIONS_IN_FLIGHT = 4


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
        cores = max(1, int(resources.get("CPU", 1)))
        offered = int(resources.get("GPU", 0) / gpus_per_worker) if gpus_per_worker else cores
        self._size = workers or max(1, offered)
        self._gpus = gpus_per_worker
        self._cores = max(1, cores // self._size)
        self._restarts = restarts

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
        actors = [self._start(make_worker) for _ in first]
        running = {actor.run.remote(task): actor for actor, task in zip(actors, first, strict=True)}
        for actor, task in zip(
            actors, islice(waiting, len(actors) * (IN_FLIGHT_PER_ACTOR - 1)), strict=False
        ):
            running[actor.run.remote(task)] = actor
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                actor = running.pop(done)
                result = _fetch(done)
                for task in islice(waiting, 1):
                    running[actor.run.remote(task)] = actor
                yield result
        finally:
            _stop(actors)

    @contextmanager
    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> Iterator[Crew]:
        """See Executor.crew."""
        actors = [self._start(make) for make in makers]
        try:
            yield RayCrew(actors)
        finally:
            _stop(actors)

    def gang(self, member: Callable[[int, int], None], *, folder: str, restarts: int = 2) -> None:
        """See Executor.gang: a Ray Train run whose workers are the ranks."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        cores, threads = self._cores, str(self._cores)

        def run_member() -> None:
            context = ray.train.get_context()
            os.environ["OMP_NUM_THREADS"] = threads
            member(context.get_world_rank(), context.get_world_size())

        trainer = TorchTrainer(
            run_member,
            torch_config=TorchConfig(backend="nccl" if self._gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._size,
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

    def _start(self, make_worker: Callable[[], Callable[[Any], Any]]) -> Any:
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
        return _RemoteActor.options(**options).remote(make_worker)


class RayCrew:
    """Workers that each own a part, each an actor."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    def ask(self, questions: Iterable[Any]) -> Iterator[list[Any]]:
        """See Crew.ask."""
        waiting = iter(questions)
        running = deque(self._put(question) for question in islice(waiting, QUESTIONS_IN_FLIGHT))
        while running:
            answers = [_fetch(reference) for reference in running.popleft()]
            running.extend(self._put(question) for question in islice(waiting, 1))
            yield answers

    def _put(self, question: Any) -> list[Any]:
        shared = ray.put(question)
        return [actor.run.remote(shared) for actor in self._actors]


class _Actor:
    """Holds one worker in a process of its own."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._worker = make_worker()

    def run(self, task: Any) -> Any:
        return self._worker(task)


_RemoteActor: Any = ray.remote(_Actor)


def _connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one of this machine's own."""
    if ray.is_initialized():
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    ray.init(include_dashboard=False, **quiet)


def _stop(actors: Iterable[Any]) -> None:
    for actor in actors:
        ray.kill(actor)


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
