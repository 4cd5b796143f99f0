"""What attacks on captions achieved: which pictures does a caption find?

An attacker who poisons captions wants certain captions (with a trigger in them, or of a certain
class) to find pictures of a class of their choice. Two measures, of Yang et al. 2023 ("Data
Poisoning Attacks Against Multimodal Encoders", ICML):

    hit_at_K   share of captions with a picture of the wanted class among their K nearest
    min_rank   mean rank of the nearest picture of the wanted class, 0 being the nearest of all

The attack is strong where hit_at_K is high and min_rank low. Each has its control,
clean_hit_at_K and clean_min_rank: the same of captions that nobody tampered with.

Dimension key: Q captions that ask, N pictures, B captions of a block, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation.counts import Count, Sample

HIT_CUTOFFS = (1, 5, 10)
BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What captions found.

    Attributes:
        rank_Q: best_ranks() of them.
        asked_N: whose they are, of all pictures: several goals may ask with one.
    """

    rank_Q: NDArray[np.int64]
    asked_N: NDArray[np.bool_]


def best_ranks(
    caption_QD: NDArray[np.float32],
    image_ND: NDArray[np.float32],
    wanted_N: NDArray[np.bool_],
    *,
    wanted: str = "the class that captions should find",
) -> NDArray[np.int64]:
    """Rank of the nearest wanted picture, for each caption.

    A picture that is not wanted but as similar counts as nearer, as in retrieval: a model that says
    the same of everything obeys nobody.

    Args:
        caption_QD: unit rows.
        image_ND: unit rows.
        wanted_N: which pictures show the wanted class.
        wanted: what that is, for the error.

    Returns:
        (Q,) int64: pictures not wanted that come before the nearest wanted one; 0 is a hit at once.

    Raises:
        DataError: no picture is wanted.
    """
    if not wanted_N.any():
        raise DataError(f"no test picture shows {wanted}: wanted at least one")
    ranks = [np.zeros(0, np.int64)]
    for start in range(0, len(caption_QD), BLOCK):
        cosine_BN = caption_QD[start : start + BLOCK] @ image_ND.T
        nearest_B = cosine_BN[:, wanted_N].max(axis=1)
        ranks.append((cosine_BN[:, ~wanted_N] >= nearest_B[:, None]).sum(axis=1))
    return np.concatenate(ranks).astype(np.int64)


def text_success(attack: str, *, asked: Asked, clean: Asked) -> Iterator[Count | Sample]:
    """Hit@K and MinRank of an attack, each with its control; no mean rank where no caption asked.

    Args:
        attack: its name.
        asked: the captions that the attack is about.
        clean: captions that nobody tampered with.
    """
    for prefix, each in (("", asked), ("clean_", clean)):
        for cutoff in HIT_CUTOFFS:
            hit_N = np.zeros(len(each.asked_N), bool)
            hit_N[each.asked_N] = each.rank_Q < cutoff
            yield Count.of_groups(attack, f"{prefix}hit_at_{cutoff}", hit_N, each.asked_N)
        if len(each.rank_Q):
            yield Sample(
                attack=attack,
                metric=f"{prefix}min_rank",
                value_N=each.rank_Q.astype(np.float64),
                group_N=np.flatnonzero(each.asked_N),
            )
