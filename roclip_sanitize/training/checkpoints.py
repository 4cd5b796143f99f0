"""The state of a training run on disk: whole or not at all.

One file, rewritten in place of the last: weights, optimiser, pool, and how far the run got.
Order and augmentation depend on seed and step alone, so that this is all a resume needs.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.runfiles import atomic_file
from roclip_sanitize.training.pool import PairPool


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Everything that changes while training runs.

    Attributes:
        step: optimiser steps made.
        model: the open_clip model, not wrapped.
        optimizer: its AdamW.
        pool: what RoCLIP matches against.
    """

    step: int
    model: Any
    optimizer: torch.optim.Optimizer
    pool: PairPool


def save_state(path: Path, state: TrainState, *, settings: str) -> None:
    """Write the state atomically; ``settings`` is the fingerprint of what the run was told."""
    with atomic_file(path) as file:
        torch.save(
            {
                "settings": settings,
                "step": state.step,
                "model": state.model.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "pool": state.pool.state_dict(),
            },
            file,
        )


def load_state(path: Path, state: TrainState, *, settings: str) -> bool:
    """Fill ``state`` from a checkpoint, if there is one.

    Returns:
        Whether there was one.

    Raises:
        DataError: the file is damaged.
        MismatchError: it belongs to a run that was told otherwise.
    """
    if not path.exists():
        return False
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found = saved["settings"]
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(f"checkpoint {path} is damaged: remove it to start again") from error
    if found != settings:
        raise MismatchError(f"checkpoint {path} belongs to a run with other settings: choose another folder")
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.pool.load_state_dict(saved["pool"])
    state.step = int(saved["step"])
    return True
