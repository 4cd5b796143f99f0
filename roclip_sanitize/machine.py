"""What ran a command: machine, versions, time and memory. Linux tells the memory; elsewhere it is 0."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PACKAGES = (
    "roclip-sanitize",
    "ray",
    "torch",
    "open_clip_torch",
    "faiss-gpu",
    "faiss-cpu",
    "webdataset",
    "img2dataset",
    "polars",
    "typer",
    "numpy",
    "pillow",
    "scikit-learn",
)
SAMPLE_SECONDS = 0.5


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory and system."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": pages,
        "system": f"{platform.system()} {platform.machine()}",
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Watch:
    """Measures a block: seconds, and the peak memory of this process and all that it started.

    Memory is the proportional set size, so that pages shared by several processes count once.

    Attributes:
        seconds: how long the block took.
        peak_memory_bytes: the largest sum seen, sampled twice a second.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_memory_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_memory_bytes = max(self.peak_memory_bytes, family_memory_bytes(os.getpid()))
            if self._ended.wait(SAMPLE_SECONDS):
                return


def family_memory_bytes(pid: int) -> int:
    """Proportional set size of a process and all its descendants, in bytes."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        children[int(fields[1])].append(int(entry.parent.name))
    family, total = [pid], 0
    while family:
        member = family.pop()
        family += children[member]
        total += _proportional_bytes(member)
    return total


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
