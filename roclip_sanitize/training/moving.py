"""Between the host and a GPU without waiting for it.

A GPU works through what it is handed, and the host hands it the next step meanwhile. A plain copy either
way makes the host wait until all of that is done: the GPU then has nothing to do until it is handed
something again. From, and to, memory that is pinned a copy is handed over like any other work.

On a processor nothing here does more than ``to`` and ``item``.
"""

from __future__ import annotations

import torch


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same values on another device; to a GPU without waiting for it.

    Args:
        tensor: of any shape and type. What becomes of it afterwards does not matter: where it is not
            where it is wanted, it is copied at once.
        device: where it is wanted.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Coming:
    """A number on its way to the host. What was handed to the GPU later is not waited for.

    Args:
        value: a scalar of any type, without a gradient.
    """

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value
        self._arrived: torch.cuda.Event | None = None
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(value.device))

    def item(self) -> float:
        """The number, waited for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)
