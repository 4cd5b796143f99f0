"""What holds for every test."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the two processes of `make test` one takes all that starts Ray, and starts with it.

    That is about half of the time, and most of it is waiting; two clusters at once would wait too long.
    Other modules stay whole, and with them what their tests share.
    """

    def group(item: pytest.Item) -> str:
        marker = item.get_closest_marker("xdist_group")
        return item.path.stem if marker is None else str(marker.args[0])

    items.sort(key=lambda item: group(item) != "ray")
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
