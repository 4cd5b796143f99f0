"""What the machine can do at most, measured: the ceilings that limit tables compare with.

Each ceiling is the median of a few short repeats on data made here, so that a whole set takes
some seconds. Rates are of one core where they say so, else of all cores together.

    memory copy     one large array to another
    sgemm           the BLAS that numpy and exact search use
    read, write     a file on the given disk, past the page cache where the system allows
    hash            sha256, what markers and manifests cost
    decode          a 256-px JPEG to 224 px, one core: what fills an embedding run's model
    bf16 matmul     the GPU, where there is one

Dimension key: H = W side in pixels.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize.images import decode_image, encode_jpeg, to_square

REPEATS = 5
MEMORY_BYTES = 1 << 28
DISK_BYTES = 1 << 27
MATRIX_SIDE = 2048
GPU_MATRIX_SIDE = 8192
JPEG_SIDE, MODEL_SIDE = 256, 224
JPEGS_A_REPEAT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """One limit.

    Attributes:
        name: what is limited.
        value: the median rate.
        unit: of the value.
        cores: how many cores it took; 0 for all, or a device of its own.
    """

    name: str
    value: float
    unit: str
    cores: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def measure_ceilings(folder: Path | None = None) -> Iterator[Ceiling]:
    """Measure one ceiling after the other, about ten seconds in all.

    Args:
        folder: on the disk to measure; None takes the system's temporary folder.

    Raises:
        OSError: the folder cannot be written.
    """
    yield Ceiling(name="memory copy", value=_memory_copy() / 1e9, unit="GB/s", cores=1)
    yield Ceiling(name="sgemm", value=_sgemm() / 1e9, unit="GFLOP/s")
    written, read = _disk(folder)
    yield Ceiling(name="write", value=written / 1e6, unit="MB/s")
    yield Ceiling(name="read", value=read / 1e6, unit="MB/s")
    yield Ceiling(name="hash (sha256)", value=_hash() / 1e6, unit="MB/s", cores=1)
    yield Ceiling(name=f"decode {JPEG_SIDE} → {MODEL_SIDE} px", value=_decode(), unit="pictures/s", cores=1)
    if Path("/dev/nvidia0").exists():  # torch takes seconds to load: not to find that there is none
        yield from _gpu()


def median_rate(work: float, run: Callable[[], object], *, repeats: int = REPEATS) -> float:
    """Units of work per second: the median of some repeats, after one that warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return work / max(statistics.median(seconds), 1e-9)


def _memory_copy() -> float:
    source = np.ones(MEMORY_BYTES, np.uint8)
    target = np.empty_like(source)
    return median_rate(MEMORY_BYTES, lambda: np.copyto(target, source))


def _sgemm() -> float:
    """Floating-point operations per second."""
    left = np.random.default_rng(0).random((MATRIX_SIDE, MATRIX_SIDE), np.float32)
    return median_rate(2 * MATRIX_SIDE**3, lambda: left @ left)


def _disk(folder: Path | None) -> tuple[float, float]:
    """Bytes per second of writing and syncing a file, and of reading it again."""
    data = np.random.default_rng(0).bytes(DISK_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="roclip-bench-") as file:

        def write() -> None:
            file.seek(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

        def read() -> None:
            if hasattr(os, "posix_fadvise"):  # else the page cache is what is measured
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            Path(file.name).read_bytes()

        return median_rate(DISK_BYTES, write, repeats=3), median_rate(DISK_BYTES, read, repeats=3)


def _hash() -> float:
    data = bytes(DISK_BYTES)
    return median_rate(DISK_BYTES, lambda: hashlib.sha256(data).digest(), repeats=3)


def _decode() -> float:
    """Pictures per second."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)  # grown, it has a photo's smoothness
    smooth = to_square(coarse, JPEG_SIDE).astype(np.int16)
    noise = rng.integers(-8, 9, smooth.shape, dtype=np.int16)
    jpeg = encode_jpeg((smooth + noise).clip(0, 255).astype(np.uint8))

    def decode() -> None:
        for _ in range(JPEGS_A_REPEAT):
            to_square(decode_image(jpeg), MODEL_SIDE, fit="crop")

    return median_rate(JPEGS_A_REPEAT, decode)


def _gpu() -> Iterator[Ceiling]:
    import torch

    if not torch.cuda.is_available():
        return
    left = torch.ones(GPU_MATRIX_SIDE, GPU_MATRIX_SIDE, dtype=torch.bfloat16, device="cuda")

    def multiply() -> None:
        left @ left
        torch.cuda.synchronize()

    rate = median_rate(2 * GPU_MATRIX_SIDE**3, multiply)
    yield Ceiling(name=f"bf16 matmul ({torch.cuda.get_device_name()})", value=rate / 1e12, unit="TFLOP/s")
