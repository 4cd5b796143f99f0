"""torch.compile for one tower of a model: made, tried and compared before it is used.

    tower ─▶ compiled_tower() ─▶ the same, quicker, or one line that says why not

What is compiled rounds otherwise than what is not: vectors move in their last bits. So a store says
whether its encoder was compiled, and a model that moves by more than rounding is refused.

Cost: once for each tower and process, up to a minute or two of a C++ compiler. It pays for stores of
many thousands of pairs.

Dimension key: N rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from roclip_sanitize.errors import ConfigError, MismatchError

Tower = Callable[[torch.Tensor], torch.Tensor]

# 1 - cosine of a row with and without compiling; the precision decides what rounding alone may do.
MOST_DRIFT = {torch.float32: 1e-5, torch.bfloat16: 1e-3}


def compiled_tower(tower: Tower, probe: torch.Tensor, *, name: str) -> Tower:
    """Compile a tower for batches of any size. Call it where gradients and autocast are as in use.

    Args:
        tower: rows in, (N, D) vectors out.
        probe: a few rows to try it on.
        name: of the tower, for messages.

    Raises:
        ConfigError: there is no compiler here, or it cannot compile this tower.
        MismatchError: the compiled tower's vectors differ by more than rounding.
    """
    quicker: Tower = torch.compile(tower, dynamic=True)  # one program, whatever the batch
    try:
        found_ND = quicker(probe)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"--compile: {name} cannot be compiled here ({_reason(error)})") from error
    wanted_ND = tower(probe)
    drift, most = drift_of(found_ND, wanted_ND), MOST_DRIFT.get(wanted_ND.dtype, 1e-3)
    if not drift <= most:  # NaN is no agreement
        raise MismatchError(
            f"--compile: {name} drifts by {drift:.1e} (1 - cosine), at most {most:g}: embed without it"
        )
    return quicker


def drift_of(found_ND: torch.Tensor, wanted_ND: torch.Tensor) -> float:
    """The largest 1 - cosine between rows that should be equal."""
    cosine_N = torch.nn.functional.cosine_similarity(found_ND.double(), wanted_ND.double())
    return float((1 - cosine_N).max())


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom: torch wraps it, and adds pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
