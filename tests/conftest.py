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


# Of the two processes of `make test` one takes what starts several nodes, or keeps a cluster busy for long.
# The other takes all else, and what starts a small cluster last, when the first is through with its nodes.
CLUSTERS = {"cluster", "cluster_loop", "object_store", "submit", "sweep_smoke", "sweep_workers"}
SMALL_CLUSTERS = {
    "evaluate_streaming",
    "executors",
    "ingest",
    "kill",
    "matching",
    "poison",
    "rebuilding",
    "refresh_training",
    "source_faults",
    "sweep",
    "watching_training",
}


def module_of(nodeid: str) -> str:
    """tests/test_kill.py::test_… → kill."""
    return Path(nodeid.partition("::")[0]).stem.removeprefix("test_")


def part_of(nodeid: str) -> str:
    """What a test stays together with: its module, whose tests share fixtures, or all of CLUSTERS."""
    module = module_of(nodeid)
    return "clusters" if module in CLUSTERS else module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest part first, or one process would have it to itself in the end."""
    items.sort(
        key=lambda item: (part_of(item.nodeid) != "clusters", module_of(item.nodeid) in SMALL_CLUSTERS)
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """With ``--dist loadfile``, parts instead of files."""
    if config.getoption("dist") != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = part_of  # what subclasses are to define
    return scheduler
