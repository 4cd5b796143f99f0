"""The state of a training run on disk: whole or not at all.

One file, rewritten in place of the last: weights, optimiser, what the method keeps, and how far the run got.
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
from roclip_sanitize.training.methods.contract import Method


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Everything that changes while training runs.

    Attributes:
        step: optimiser steps made.
        model: the open_clip model, not wrapped.
        optimizer: its AdamW.
        method: with what it keeps from step to step.
    """

    step: int
    model: Any
    optimizer: torch.optim.Optimizer
    method: Method


def save_state(path: Path, state: TrainState, *, settings: str, write: bool = True) -> None:
    """Write the state atomically.

    Args:
        path: where to.
        state: of this rank.
        settings: fingerprint of what the run was told.
        write: whether this rank does; all of them call it, since a method's state may be spread over them.
    """
    kept = state.method.state_dict()
    if not write:
        return
    with atomic_file(path) as file:
        torch.save(
            {
                "settings": settings,
                "step": state.step,
                "model": state.model.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "method": kept,
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
    state.method.load_state_dict(saved["method"])
    state.step = int(saved["step"])
    return True
