"""The state of a training run, kept while it runs: what a resume needs.

    step_000001234.pt     weights, optimiser, what the method keeps, and how far the run got
    step_000001234.json   written last: size and sha256 of the former, and which run it belongs to

Order and augmentation depend on seed and step alone, so that this is all. The small file is what counts: a
checkpoint without one is what a killed writer left. One that no longer fits it is damaged, and the one
before takes its place. Nothing is written of a run whose numbers are none any more, so that the last
checkpoint is always a good one. A resume may have any number of ranks.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from roclip_sanitize.errors import DataError, MismatchError, ShardMissing
from roclip_sanitize.remote import source_name
from roclip_sanitize.training.methods.contract import Method
from roclip_sanitize.training.places import Place
from roclip_sanitize.training.ranks import Ranks

OWN = re.compile(r"\.?step_(\d+)\.(pt|json)(\..*)?")  # with what killed writers leave
NONE = -1


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

    def finite(self, *, moments: bool = True) -> bool:
        """Whether all weights are numbers, and all that the optimiser keeps of them."""
        found = [*self.model.state_dict().values()]
        if moments:
            found += [value for kept in self.optimizer.state.values() for value in kept.values()]
        floats = [value for value in found if torch.is_tensor(value) and value.is_floating_point()]
        return all(bool(torch.isfinite(value).all()) for value in floats)


class CheckpointFolder:
    """The last checkpoints of a run. All ranks hold one and call it together; the first one writes.

    Attributes:
        last: the newest that is known to be good, for people; "" while there is none.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: str,
        keep: int,
        ranks: Ranks,
        device: torch.device | None = None,
        pairs: str = "",
    ) -> None:
        """Say what is kept where.

        Args:
            path: the folder, which may be a URL.
            settings: fingerprint of what the run was told.
            keep: how many checkpoints, from the newest on.
            ranks: who calls.
            device: where they exchange numbers.
            pairs: what the run is trained on, see held.py; "" where nobody knows.
        """
        self._pairs = pairs
        self._place, self._settings, self._keep = Place(path), settings, keep
        self._ranks, self._device = ranks, device or torch.device("cpu")
        self.last = ""

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the earliest first; some may be damaged."""
        own = [OWN.fullmatch(name) for name in self._place.names() if name.endswith(".json")]
        return sorted(int(match[1]) for match in own if match)

    def save(self, state: TrainState) -> bool:
        """Keep the state, and drop what is older than the last few.

        Returns:
            Whether it was kept: it is not if some weight or moment is no number.

        Raises:
            StorageError: it could not be written.
        """
        kept = state.method.state_dict()  # may be spread over ranks
        if not state.finite():
            self._say(f"no checkpoint at step {state.step}: not all weights and moments are numbers")
            return False
        if self._ranks.rank == 0:
            parts = {"step": state.step, "method": kept}
            parts |= {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
            name = _name(state.step)
            with self._place.writing(name) as file:
                hashed = _Hashed(file)
                torch.save(parts, hashed)  # type: ignore[arg-type]  # a file, as far as it asks for one
                hashed.require_whole()
            marker = {"name": name, "size": hashed.size, "sha256": hashed.digest.hexdigest()}
            marker |= {"settings": self._settings} | ({"pairs": self._pairs} if self._pairs else {})
            with self._place.writing(_marker(state.step)) as file:
                file.write(json.dumps(marker, sort_keys=True).encode())
            self.prune()
        self.last = self._full(state.step)
        return True

    def load(self, state: TrainState) -> bool:
        """Fill ``state`` from the newest good checkpoint, if there is any.

        Damaged ones that are newer are removed, with a line on stderr.

        Returns:
            Whether there was one.

        Raises:
            DataError: there are some, and all of them are damaged.
            MismatchError: they belong to a run that was told otherwise, or trained on other pairs.
            StorageError: they could not be read.
        """
        saved = self._newest_good() if self._ranks.rank == 0 else None
        step = self._ranks.from_first(saved["step"] if saved else NONE, self._device)
        if step == NONE:
            return False
        saved = saved or self._read(step)
        state.model.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.method.load_state_dict(saved["method"])
        state.step, self.last = step, self._full(step)
        return True

    def prune(self) -> None:
        """Drop all checkpoints but the newest few, and what writers left that were killed."""
        kept = {each for step in self.steps()[-self._keep :] for each in (_name(step), _marker(step))}
        self._drop({name for name in self._place.names() if OWN.fullmatch(name)} - kept)

    def remove(self) -> None:
        """Drop all of them, and the folder with it if it holds nothing else. For one rank to call."""
        self._drop({name for name in self._place.names() if OWN.fullmatch(name)})
        self._place.leave()

    def _newest_good(self) -> dict[str, Any] | None:
        steps = self.steps()[::-1]
        damaged = []
        for step in steps:
            try:
                saved = self._read(step)
            except _Damaged:
                damaged.append(step)
                continue
            for bad in damaged:
                self._say(f"checkpoint {self._full(bad)} is damaged: going on from step {step}")
                self._drop({_name(bad), _marker(bad)})  # or it would count among the last few
            return saved
        if steps:
            raise DataError(
                f"checkpoint {self._full(steps[0])} is damaged, and no earlier one is whole: "
                f"remove {source_name(self._place.path)} to start again"
            )
        return None

    def _read(self, step: int) -> dict[str, Any]:
        marker = self._read_marker(step)
        if marker["settings"] != self._settings:
            raise MismatchError(
                f"checkpoint {self._full(step)} belongs to a run with other settings: choose another folder"
            )
        if self._pairs and marker["pairs"] not in ("", self._pairs):
            raise MismatchError(
                f"checkpoint {self._full(step)} is of a run on other pairs than the shards hold now: "
                "choose another folder"
            )
        try:
            with self._place.reading(_name(step)) as data:
                whole: Any = data  # bytes or a mapped file: both have a buffer, which has no type of its own
                if len(whole) != marker["size"] or hashlib.sha256(whole).hexdigest() != marker["sha256"]:
                    raise _Damaged
                saved: dict[str, Any] = torch.load(whole, map_location="cpu", weights_only=True)
        except (ShardMissing, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise _Damaged from error
        return saved

    def _read_marker(self, step: int) -> dict[str, Any]:
        try:
            with self._place.reading(_marker(step)) as data:
                marker: dict[str, Any] = json.loads(data[:])
                told = {name: marker[name] for name in ("size", "sha256", "settings")}
                return told | {"pairs": marker.get("pairs", "")}  # none of older ones
        except (ShardMissing, ValueError, KeyError, TypeError) as error:
            raise _Damaged from error

    def _drop(self, names: set[str]) -> None:
        for name in sorted(names, key=lambda name: (".json" not in name, name)):  # what counts goes first
            self._place.remove(name)

    def _full(self, step: int) -> str:
        return source_name(self._place.path / _name(step))

    def _say(self, line: str) -> None:
        if self._ranks.rank == 0:
            print(f"roclip: {line}", file=sys.stderr, flush=True)  # noqa: T201


class _Damaged(Exception):
    """A checkpoint is not what was written."""


class _Hashed:
    """A file open for writing, and the digest of what went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()
        self._failure: OSError | None = None

    def write(self, data: Any) -> int:
        block = memoryview(data)
        self.digest.update(block)
        self.size += block.nbytes
        try:
            if self._failure is None:
                self._file.write(block)
        except OSError as error:
            self._failure = error  # torch would say that it is at an unexpected place
        return block.nbytes

    def flush(self) -> None:
        pass  # whoever opened the file does that

    def require_whole(self) -> None:
        """Raise what kept a part from being written."""
        if self._failure is not None:
            raise self._failure


def _name(step: int) -> str:
    return f"step_{step:09d}.pt"


def _marker(step: int) -> str:
    return f"step_{step:09d}.json"
