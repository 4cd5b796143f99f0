"""What steps minimise: losses on unit rows.

    clip_loss      InfoNCE both ways (Radford et al. 2021)
    matched_loss   the same against targets that may repeat: equal targets are not each other's negatives
    likeness_loss  InfoNCE one way, between two views of one modality

Each rank computes the rows that are its own against the columns of all: averaged over ranks, that is the
loss of the whole step.

Dimension key: B pairs of the step over all ranks, M of them this rank's, D width.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

NEVER = -1e4  # a logit that no softmax notices
ALL = slice(None)


def clip_loss(
    image_BD: torch.Tensor, caption_BD: torch.Tensor, scale: torch.Tensor, *, mine: slice = ALL
) -> torch.Tensor:
    """Symmetric InfoNCE of matching rows, as a scalar."""
    return _symmetric(image_BD, caption_BD, scale, mine)


def matched_loss(
    query_BD: torch.Tensor,
    target_BD: torch.Tensor,
    scale: torch.Tensor,
    *,
    group_B: torch.Tensor,
    mine: slice = ALL,
) -> torch.Tensor:
    """Symmetric InfoNCE where targets may repeat.

    Args:
        query_BD: unit rows.
        target_BD: what each was matched with, constants.
        scale: of the products.
        group_B: targets of the same group are equal, and are masked out for each other.
        mine: the rows that this rank answers for.
    """
    same_BB = group_B[:, None] == group_B[None, :]
    same_BB.fill_diagonal_(False)
    return _symmetric(query_BD, target_BD, scale, mine, same_BB)


def likeness_loss(
    view_BD: torch.Tensor, target_BD: torch.Tensor, scale: torch.Tensor, *, mine: slice = ALL
) -> torch.Tensor:
    """InfoNCE one way: each row of ``view_BD`` is to find its own among the targets."""
    return cross_entropy(scale * view_BD[mine] @ target_BD.T, _labels(view_BD)[mine])


def _symmetric(
    left_BD: torch.Tensor,
    right_BD: torch.Tensor,
    scale: torch.Tensor,
    mine: slice,
    never_BB: torch.Tensor | None = None,
) -> torch.Tensor:
    label_M = _labels(left_BD)[mine]
    there_MB = scale * left_BD[mine] @ right_BD.T
    back_MB = there_MB.T if len(label_M) == len(left_BD) else scale * right_BD[mine] @ left_BD.T
    if never_BB is not None:  # symmetric, so that its rows are its columns
        there_MB, back_MB = (each.masked_fill(never_BB[mine], NEVER) for each in (there_MB, back_MB))
    return (cross_entropy(there_MB, label_M) + cross_entropy(back_MB, label_M)) / 2


def _labels(rows_BD: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(rows_BD), device=rows_BD.device)
