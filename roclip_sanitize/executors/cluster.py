"""Workers as Ray actors, training as a Ray Train run.

    actors.py    a process that holds workers; what it answers, or that it is lost
    farm.py      map: tasks go to whichever actor is free
    crew.py      crew: each actor owns a part
    joining.py   which cluster that is, and whether it has GPUs

All but the last import ray, as metrics.py and submission.py do.

Each CPU actor gets an even share of the cores, and sees no GPU: Ray lets an actor that asked
for none see them all, and two libraries would then fight for the memory.

An actor may be lost at any time, alone or with its node. Ray would start it again where there is
room for it, and wait for ever where there is none; so that we do it ourselves: what it held goes to
those that are left, and another one joins them as soon as the cluster has room.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any
from uuid import uuid4

from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.executors.base import Crew, MakeWorker, Result, Task

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere

import ray

from roclip_sanitize.executors.actors import Group, Recipe, RemoteActor, cause, enter
from roclip_sanitize.executors.crew import RayCrew
from roclip_sanitize.executors.farm import Farm
from roclip_sanitize.executors.joining import ADDRESS_VARIABLE, cluster_address, require_answer

NOISY_LOGGERS = ("ray._private.authentication.authentication_token_setup",)  # "token auth is on", each time


class RayExecutor:
    """Runs workers on the Ray cluster that RAY_ADDRESS names, else on one of this machine's own."""

    name = "ray"

    def __init__(
        self, workers: int = 0, *, gpus_per_worker: float = 0.0, restarts: int = 2, cores: int = 0
    ) -> None:
        """Connect.

        Args:
            workers: actors side by side; 0 takes one per GPU if ``gpus_per_worker`` is set, else
                one per core.
            gpus_per_worker: GPUs that each actor holds; a fraction shares one.
            restarts: how often a task is started again whose actor was lost.
            cores: of the cluster that are theirs; 0 takes all.
        """
        _connect()
        resources = ray.cluster_resources()
        self._nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        self._all_cores = cores or max(1, int(resources.get("CPU", 1)))
        offered = int(resources.get("GPU", 0) / gpus_per_worker) if gpus_per_worker else self._all_cores
        self._size = workers or max(1, offered)
        self._gpus = gpus_per_worker
        self._cores = self._cores_each(self._size)
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
            farm = Farm(actors, chain(first, waiting), Recipe(make_worker), self._start, lives=self._restarts)
            yield from farm.results()

    @contextmanager
    def crew(self, makers: Sequence[Callable[[], Callable[[Any], Any]]]) -> Iterator[Crew]:
        """See Executor.crew. More members than workers share them."""
        groups = [makers[start :: self._size] for start in range(min(self._size, len(makers)))]
        with self._borrow(len(groups)) as actors:
            session = uuid4().hex
            recipes = [Recipe(partial(Group, group), session) for group in groups]
            yield RayCrew(actors, recipes, self._start, lives=self._restarts)

    @contextmanager
    def aside(self, workers: int) -> Iterator[RayExecutor]:
        """See Executor.aside: a core each, and as many GPUs as this executor's workers hold."""
        left = self._all_cores - workers
        if workers < 1 or left < 1:
            raise ConfigError(
                f"{workers} workers beside the ranks leave none of {self._all_cores} cores to train with"
            )
        others = RayExecutor(workers, gpus_per_worker=self._gpus, restarts=self._restarts, cores=workers)
        self._all_cores = left
        try:
            yield others
        finally:
            self._all_cores += workers
            others._dismiss(others._idle)

    def gang(
        self, member: Callable[[int, int], None], *, folder: str, ranks: int = 0, restarts: int = 2
    ) -> None:
        """See Executor.gang: a Ray Train run whose workers are the ranks."""
        self._dismiss(self._idle)  # they hold the cores that the ranks need
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        ranks = ranks or self._size
        cores = self._cores_each(ranks)
        threads, here = str(cores), os.getcwd()

        def run_member() -> None:
            context = ray.train.get_context()
            enter(here)
            os.environ["OMP_NUM_THREADS"] = threads
            member(context.get_world_rank(), context.get_world_size())

        class Uninterrupted(TorchTrainer):  # type: ignore[misc]  # Ray has no types
            """SIGINT stays with the driver: Ray Train's own handler would abort the run, and lose a part."""

            def _register_sigint_handler(self, controller: Any) -> None:
                pass

        trainer = Uninterrupted(
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
            raise cause(error) from error

    def _cores_each(self, workers: int) -> int:
        return max(1, min(self._all_cores // workers, cores_each(self._nodes, workers)))

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
        return RemoteActor.options(**options).remote()


def cores_each(nodes: Sequence[int], workers: int) -> int:
    """How many cores each of some workers can have, at most: all of them must fit, and each on one node.

    Args:
        nodes: cores of each.
        workers: how many.
    """
    for cores in range(max(nodes, default=1), 1, -1):
        if sum(node // cores for node in nodes) >= workers:
            return cores
    return 1


def gpus_of_nodes() -> list[float]:
    """How many GPUs each node has of the cluster that was joined."""
    return [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]


def _connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one of this machine's own.

    Raises:
        ConfigError: RAY_ADDRESS is no address of a cluster.
        RoclipError: nobody answers there, or not to us.
    """
    if ray.is_initialized():
        return
    address = cluster_address()
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    if not address:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes our own nodes away
        quiet |= {"include_dashboard": False, "address": "local"}  # else Ray joins whatever runs here
    else:
        require_answer(address)
    try:
        _init(quiet)
    except Exception as error:  # of whatever kind: Ray has many
        if not address:
            raise
        ray.shutdown()
        why = " ".join(str(error).split())[:300]
        raise RoclipError(f"{ADDRESS_VARIABLE}={address} cannot be joined: {why}") from error


def _init(told: dict[str, Any]) -> None:
    try:
        ray.init(**told)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        ray.init(**told)  # a busy machine: what the first try read from disk is now in memory
