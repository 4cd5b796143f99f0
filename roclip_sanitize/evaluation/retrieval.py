"""Does a picture find its caption among all, and a caption its picture?

Two pairs with the same normalised caption cannot be told apart by it, so finding either is a
hit in both directions. A wrong answer as similar as the right one counts as before it: a model
that says the same of everything finds nothing.

Dimension key: N pairs, B pairs of a block, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import normalise_caption

BLOCK = 512


def retrieval_ranks(
    image_ND: NDArray[np.float32], caption_ND: NDArray[np.float32], captions: Sequence[str]
) -> NDArray[np.int64]:
    """Rank of the right answer to each question, 0 being best.

    Args:
        image_ND: unit rows.
        caption_ND: unit rows of the same pairs.
        captions: their texts.

    Returns:
        (2 N,) int64: first pictures asking for captions, then captions asking for pictures.
    """
    names: dict[str, int] = {}
    code_N = np.array(
        [names.setdefault(normalise_caption(text), len(names)) for text in captions], dtype=np.int64
    )
    return np.concatenate([_ranks(image_ND, caption_ND, code_N), _ranks(caption_ND, image_ND, code_N)])


def _ranks(
    query_ND: NDArray[np.float32], answer_ND: NDArray[np.float32], code_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    ranks = []
    for start in range(0, len(query_ND), BLOCK):
        cosine_BN = query_ND[start : start + BLOCK] @ answer_ND.T
        right_BN = code_N[start : start + BLOCK, None] == code_N[None, :]
        best_right_B = np.where(right_BN, cosine_BN, -np.inf).max(axis=1)
        ranks.append((~right_BN & (cosine_BN >= best_right_B[:, None])).sum(axis=1))
    return np.concatenate(ranks).astype(np.int64)
