"""Compiling a tower: the same vectors, or one line that says why not."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_a_compiled_tower_answers_as_before_whatever_the_batch() -> None:
    import torch

    from roclip_sanitize.compiling import compiled_tower, drift_of

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.Linear(5, 4))
    with torch.inference_mode():
        quicker = compiled_tower(layers, torch.rand(3, 6), name="toy")
        assert quicker is not layers
        for rows in (1, 2, 7):
            probe = torch.rand(rows, 6)
            assert drift_of(quicker(probe), layers(probe)) < 1e-6


@pytest.mark.parametrize("answer", [-1.0, float("nan")], ids=["another", "none"])
def test_a_tower_that_compiling_changes_is_refused(answer: float) -> None:
    import torch

    from roclip_sanitize.compiling import compiled_tower
    from roclip_sanitize.errors import MismatchError

    def fickle(rows: torch.Tensor) -> torch.Tensor:
        return rows * answer if torch.compiler.is_compiling() else rows * 1.0

    with pytest.raises(MismatchError, match=r"--compile: fickle drifts by .*: embed without it"):
        compiled_tower(fickle, torch.rand(3, 6), name="fickle")


def test_where_there_is_no_compiler_one_line_says_so() -> None:
    import torch
    import torch._inductor.config as inductor

    from roclip_sanitize.compiling import compiled_tower
    from roclip_sanitize.errors import ConfigError

    without = inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
    with without, pytest.raises(ConfigError, match=r"^--compile: toy cannot be compiled here \(") as caught:
        compiled_tower(lambda rows: rows.sin() + 2, torch.rand(3, 6), name="toy")
    assert str(caught.value).isprintable()
