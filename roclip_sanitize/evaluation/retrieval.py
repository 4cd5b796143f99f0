"""Does a picture find its caption among all, and a caption its picture?

Two pairs with the same normalised caption cannot be told apart by it, so finding either is a
hit in both directions. A wrong answer as similar as the right one counts as before it: a model
that says the same of everything finds nothing.

Dimension key: N pairs, B pairs of a block, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import normalise_caption

BLOCK = 512


def caption_codes(captions: Sequence[str]) -> NDArray[np.int64]:
    """A number for each caption, (N,) int64: equal for equal normalised captions, in every process."""
    digests = b"".join(
        hashlib.blake2b(normalise_caption(caption).encode(), digest_size=8).digest() for caption in captions
    )
    return np.frombuffer(digests, dtype=np.int64)


def retrieval_ranks(
    image_ND: NDArray[np.float32], caption_ND: NDArray[np.float32], code_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rank of the right answer to each question, 0 being best.

    Args:
        image_ND: unit rows.
        caption_ND: unit rows of the same pairs.
        code_N: which captions say the same; see caption_codes(). All different, and only a pair's
            own caption is right.

    Returns:
        (2, N) int64: first pictures asking for captions, then captions asking for pictures.
    """
    return np.stack([_ranks(image_ND, caption_ND, code_N), _ranks(caption_ND, image_ND, code_N)])


def _ranks(
    query_ND: NDArray[np.float32], answer_ND: NDArray[np.float32], code_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    ranks = [np.zeros(0, np.int64)]
    for start in range(0, len(query_ND), BLOCK):
        cosine_BN = query_ND[start : start + BLOCK] @ answer_ND.T
        right_BN = code_N[start : start + BLOCK, None] == code_N[None, :]
        best_right_B = np.where(right_BN, cosine_BN, -np.inf).max(axis=1)
        ranks.append((~right_BN & (cosine_BN >= best_right_B[:, None])).sum(axis=1))
    return np.concatenate(ranks).astype(np.int64)
