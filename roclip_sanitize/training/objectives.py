"""What a step minimises.

    clip_loss           InfoNCE both ways (Radford et al. 2021)
    matched_loss        the same, with one side replaced by what it was matched with
    roclip_final_loss   image ↔ most similar pool caption (Yang, Gao & Mirzasoleiman, NeurIPS 2023)
    roclip_first_loss   image ↔ pool caption most similar to its caption, and
                        caption ↔ pool image most similar to its image (arXiv 2303.06854, version 1)

Two pairs of a batch may be matched with the same pool entry. They are then not each other's
negatives: an equal target cannot be wrong.

Dimension key: B pairs of the batch over all ranks, P pairs in the pool, D width.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from roclip_sanitize.training.pool import PairPool, nearest

NEVER = -1e4  # a logit that no softmax notices


def clip_loss(image_BD: torch.Tensor, caption_BD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of matching rows, as a scalar."""
    return _symmetric(scale * image_BD @ caption_BD.T)


def matched_loss(query_BD: torch.Tensor, target_BD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE where rows of ``target_BD`` may repeat: repeats are masked out."""
    logit_BB = scale * query_BD @ target_BD.T
    same_BB = (target_BD[:, None, :] == target_BD[None, :, :]).all(dim=-1)
    same_BB.fill_diagonal_(False)
    return _symmetric(logit_BB.masked_fill(same_BB, NEVER))


def roclip_final_loss(image_BD: torch.Tensor, pool: PairPool, scale: torch.Tensor) -> torch.Tensor:
    """Each image against the pool caption nearest to it. Only the image tower and the scale learn."""
    target_BD = pool.caption_PD[nearest(image_BD, pool.caption_PD)]
    return matched_loss(image_BD, target_BD, scale)


def roclip_first_loss(
    image_BD: torch.Tensor, caption_BD: torch.Tensor, pool: PairPool, scale: torch.Tensor
) -> torch.Tensor:
    """Both sides re-matched within their own modality; the mean of the two losses."""
    caption_target_BD = pool.caption_PD[nearest(caption_BD, pool.caption_PD)]
    image_target_BD = pool.image_PD[nearest(image_BD, pool.image_PD)]
    image_part = matched_loss(image_BD, caption_target_BD, scale)
    caption_part = matched_loss(caption_BD, image_target_BD, scale)
    return (image_part + caption_part) / 2


def _symmetric(logit_BB: torch.Tensor) -> torch.Tensor:
    label_B = torch.arange(len(logit_BB), device=logit_BB.device)
    return (cross_entropy(logit_BB, label_B) + cross_entropy(logit_BB.T, label_B)) / 2
