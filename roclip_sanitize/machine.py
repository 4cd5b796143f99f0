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
SAMPLE_SECONDS = 1.0


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

    Attributes:
        seconds: how long the block took.
        peak_memory_bytes: the largest sum seen, sampled once a second; see family_memory_bytes().
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
    """Memory of a process and its descendants: private pages of each, and the largest shared part once.

    Shared pages are libraries and files, mostly the same for all: to count them for each process would
    say too much, and to apportion them exactly costs the kernel tens of milliseconds a process.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        children[int(fields[1])].append(int(entry.parent.name))
    family, private, shared = [pid], 0, 0
    while family:
        member = family.pop()
        family += children[member]
        resident_here, shared_here = _pages(member)
        private += resident_here - shared_here
        shared = max(shared, shared_here)
    return (private + shared) * os.sysconf("SC_PAGE_SIZE")


def _pages(pid: int) -> tuple[int, int]:
    """Resident pages of a process, and how many of them are shared."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[2])
