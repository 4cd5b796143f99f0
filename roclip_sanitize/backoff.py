"""What to do when a batch does not fit into memory: encode it in halves, and remember.

No torch here: what runs out of memory is told by what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Batch = TypeVar("Batch", bound=Sequence[Any] | NDArray[Any])

SAYS_SO = ("out of memory", "not enough memory", "can't allocate memory")  # CUDA, and two of the processor's


class MicroBatches:
    """Encodes batches whole while they fit, else in the largest halves that did.

    Attributes:
        at_once: rows that were not too many so far; 0 while there was no need to ask.
    """

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        """Start with whole batches.

        Args:
            release: called when memory ran out, before the next try: to give back what is cached.
        """
        self.at_once = 0
        self._release = release

    def encode(self, function: Callable[[Batch], NDArray[np.float32]], batch: Batch) -> NDArray[np.float32]:
        """``function`` of the batch, whatever the pieces: its rows must not depend on each other.

        Raises:
            Exception: what ``function`` raised, if that was not for memory, or if even one row is too much.
        """
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(batch):
            size = self.at_once or len(batch)
            piece: Any = batch[start : start + size]
            if self._tried(function, piece, parts):
                start += size
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _tried(
        self,
        function: Callable[[Batch], NDArray[np.float32]],
        piece: Batch,
        parts: list[NDArray[np.float32]],
    ) -> bool:
        """Whether the piece fitted; else the next one will be half as large."""
        try:
            parts.append(function(piece))
        except (RuntimeError, MemoryError) as error:
            if len(piece) == 1 or not ran_out_of_memory(error):
                raise
            self.at_once = len(piece) // 2
        else:
            return True
        if self._release:  # outside the handler: until it ends, the error holds on to what filled the memory
            self._release()
        return False


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error is about."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in SAYS_SO)
