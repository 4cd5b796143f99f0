"""Where workers run: in this process, or as Ray actors. One contract, in base.py."""

from __future__ import annotations

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor

EXECUTORS = ("ray", "local")


def open_executor(name: str, *, workers: int = 0, gpus_per_worker: float = 0.0) -> Executor:
    """Make an executor by name.

    Args:
        name: "ray" or "local".
        workers: how many side by side; 0 takes what the machine or cluster offers.
        gpus_per_worker: GPUs that each worker holds; a fraction shares one. Ray only.

    Raises:
        ConfigError: there is no such executor, or the number of workers is negative.
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}, wanted 0 (all that there are) or more")
    if name == "local":
        from roclip_sanitize.executors.local import LocalExecutor

        return LocalExecutor()
    if name == "ray":
        from roclip_sanitize.executors.cluster import RayExecutor

        return RayExecutor(workers, gpus_per_worker=gpus_per_worker)
    raise ConfigError(f"executor is {name!r}, wanted one of {', '.join(EXECUTORS)}")
