"""Methods without models: data that are numbers of rows, and vectors that a test makes up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from roclip_sanitize.training.methods.contract import Encode, Features, Method, Rows, StepPlan, Surroundings
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.settings import TrainSettings
from tests.test_objectives import SCALE

BATCH = 3
KINDS = 8
COLOUR_KC = np.array(  # of different hues, since unit rows know no brightness
    [
        [210, 40, 40],
        [40, 210, 40],
        [40, 40, 210],
        [210, 210, 40],
        [210, 40, 210],
        [40, 210, 210],
        [210, 120, 40],
        [40, 120, 210],
    ]
)
ALL = slice(None)


def surroundings(
    method: str, *, rows: int = 64, width: int = 8, total_steps: int | None = None, **told: Any
) -> Surroundings:
    """Of one epoch whose steps take row after row; pairs 0, 8, 16 … share caption and kind, and so on."""
    settings = TrainSettings(shards=(Path("a.tar"),), **{"method": method, "batch_size": BATCH, **told})
    data = SimpleNamespace(
        rows=rows,
        image_group_N=np.arange(rows),
        caption_group_N=np.arange(rows) % KINDS,
        read=partial(kinds_of, kind_N=np.arange(rows) % KINDS),
    )
    batch = settings.batch_size
    return Surroundings(
        settings=settings,
        data=cast("Any", data),
        rows_of=lambda step: np.arange(batch) + batch * (step % (rows // batch)),
        steps_per_epoch=rows // batch,
        total_steps=total_steps or rows // batch,
        width=width,
        ranks=Ranks(),
        device=torch.device("cpu"),
    )


def kinds_of(
    row_B: Rows, caption_row_B: Rows | None = None, *, kind_N: Rows
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (B, 16, 16, 3) in the colour of their kind; captions (B, 4) with its word and another."""
    row_B, caption_row_B = np.asarray(row_B), row_B if caption_row_B is None else caption_row_B
    noise = np.stack([np.random.default_rng([1, row]).integers(-30, 31, (16, 16, 3)) for row in row_B])
    pictures = (COLOUR_KC[kind_N[row_B]][:, None, None] + noise).astype(np.uint8)
    more_B = 100 + np.asarray(caption_row_B) * 7 % 10
    ends = np.ones_like(more_B)
    return pictures, np.stack([ends, 10 + kind_N[caption_row_B], more_B, 2 * ends], axis=1)


def features(
    image: torch.Tensor,
    caption: torch.Tensor,
    scale: torch.Tensor = SCALE,
    *,
    mine: slice = ALL,
    before: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Features:
    """What the towers would have made of a view."""
    return Features(image_BD=image, caption_BD=caption, scale=scale, mine=mine, before=before)


def random_features(plan: StepPlan, *, width: int = 8) -> list[Features]:
    """Unit rows for each view of a step, the same each time."""
    generator = torch.Generator().manual_seed(plan.step)
    return [
        features(*(torch.nn.functional.normalize(each) for each in drawn))
        for drawn in torch.randn(len(plan.views), 2, len(plan.row_B), width, generator=generator)
    ]


def encoding(cosine_N: Sequence[float]) -> Encode:
    """Vectors of rows whose pictures and captions have given cosines."""
    cosines = torch.tensor(cosine_N)

    def encode(row_N: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        caption_N = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=1)[row_N]
        return torch.tensor([1.0, 0.0]).expand_as(caption_N), caption_N

    return encode


def taken(method: Method, steps: Sequence[int], encode: Encode | None = None) -> list[tuple[StepPlan, float]]:
    """Plan and loss of some steps, as the loop takes them."""
    done = []
    for step in steps:
        method.before(step, encode or encoding([]))
        plan = method.plan(step)
        seen = random_features(plan)
        done.append((plan, method.loss(plan, seen).loss.item()))
        method.after(plan, seen)
    return done


def same_plans(one: StepPlan, other: StepPlan) -> bool:
    """Whether two plans show and say the same."""
    return repr(one) == repr(other)


def one_way(logits: list[list[float]]) -> float:
    """Mean cross-entropy of the diagonal, along rows."""
    labels = torch.arange(len(logits))
    return torch.nn.functional.cross_entropy(torch.tensor(logits, dtype=torch.float64), labels).item()
