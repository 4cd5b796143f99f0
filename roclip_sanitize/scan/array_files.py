"""Arrays on a disk or behind a URL: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.storage import atomic_file, here


def save_array(path: Path, array: NDArray[Any]) -> Path:
    """Write an array, whole or not at all."""
    with atomic_file(path) as file:
        np.save(file, array)
    return path


def save_arrays(path: Path, **arrays: NDArray[Any]) -> Path:
    """Write arrays, whole or not at all."""
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a name for a flag
    return path


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The inverse of save_arrays()."""
    with np.load(here(path)) as arrays:
        return dict(arrays)
