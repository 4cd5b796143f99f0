"""What holds for every test."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# A busy machine is slow, not wrong: no deadlines. `make quick` takes fewer examples than `make test`,
# and benchmarks/fuzzing.py a million.
settings.register_profile("house", deadline=None, max_examples=50)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("house")

# What tests compute is small: a second thread gains nothing, and where it has no core of its own, the first
# spins in wait for it, for many times as long as both would take.
os.environ |= dict.fromkeys(["OMP_NUM_THREADS", "POLARS_MAX_THREADS"], "1")


@pytest.fixture(scope="session", autouse=True)
def _power_stays_on() -> Iterator[None]:
    """Flushes to the device do nothing: they are for power cuts, which no test has, and take milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ray_ends_before_python() -> Iterator[None]:
    """One of Ray's threads may answer a question while the process is taken down around it, and crash it."""
    yield
    if ray := sys.modules.get("ray"):
        ray.shutdown()


# Two clusters at once would wait for each other, and half of the time is theirs: of the two processes of
# `make test` one takes these modules, and the other takes all that start none.
STARTS_RAY = {
    "cluster",
    "cluster_loop",
    "evaluate_streaming",
    "executors",
    "ingest",
    "kill",
    "matching",
    "object_store",
    "poison",
    "rebuilding",
    "refresh_training",
    "source_faults",
    "submit",
    "sweep",
    "sweep_smoke",
    "sweep_workers",
    "watching_training",
}


def part_of(nodeid: str) -> str:
    """What a test stays together with: its module, whose tests share fixtures, or all that starts Ray."""
    module = Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
    return "ray" if module in STARTS_RAY else module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest part first, or one process would have it to itself in the end."""
    items.sort(key=lambda item: part_of(item.nodeid) != "ray")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """With ``--dist loadfile``, parts instead of files."""
    if config.getoption("dist") != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = part_of  # what subclasses are to define
    return scheduler
