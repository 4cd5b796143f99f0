"""Where workers run: in this process, or as Ray actors. One contract, in base.py."""

from __future__ import annotations

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.joining import cluster_address, require_gpus

EXECUTORS = ("ray", "local")


def require_executor(name: str) -> None:
    """Refuse what is no executor's name.

    Raises:
        ConfigError: there is no such executor.
    """
    if name not in EXECUTORS:
        raise ConfigError(f"executor is {name!r}, wanted one of {', '.join(EXECUTORS)}")


def open_executor(name: str, *, workers: int = 0, gpus_per_worker: float = 0.0) -> Executor:
    """Make an executor by name.

    Args:
        name: "ray" or "local".
        workers: how many side by side; 0 takes what the machine or cluster offers.
        gpus_per_worker: GPUs that each worker holds; a fraction shares one.

    Raises:
        ConfigError: there is no such executor, the number of workers is negative, or this machine lacks GPUs.
        RoclipError: the cluster cannot be joined.
    """
    require_executor(name)
    if workers < 0:
        raise ConfigError(f"workers is {workers}, wanted 0 (all that there are) or more")
    if name == "local":
        from roclip_sanitize.executors.local import LocalExecutor, gpus_here

        if gpus_per_worker:
            require_gpus(gpus_per_worker, [gpus_here()], may_grow=False)
        return LocalExecutor()
    from roclip_sanitize.executors.cluster import RayExecutor, gpus_of_nodes

    executor = RayExecutor(workers, gpus_per_worker=gpus_per_worker)
    require_gpus(gpus_per_worker, gpus_of_nodes(), may_grow=bool(cluster_address()))
    return executor
