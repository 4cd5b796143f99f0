"""Classes for pairs that have none: common words whose pictures are alike. Pure.

An attacker's target is something that pictures show. A word tells whether it is such a thing by its pictures:
the mean of their vectors lies far from that of all pictures, where that of a brand's or a colour's does not.

Dimension key: N pairs, D width, C pairs with a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import caption_words

CLASSES = 30
LEAST_CLASSES = 4
MOST = 0.3  # of the captions: a word that more use tells nothing of a picture


def class_words(captions: Sequence[str], picture_ND: NDArray[np.floating], *, least: int) -> list[str]:
    """The words that stand for classes, those whose pictures are most alike first.

    Args:
        captions: of the pairs.
        picture_ND: their pictures' vectors.
        least: pairs that each class is to have, by class_of(); four classes stay if fewer have so many.
    """
    rows = defaultdict[str, list[int]](list)
    for row, caption in enumerate(captions):
        for word in set(caption_words(caption)):
            rows[word].append(row)
    telling = {word: mine for word, mine in rows.items() if len(mine) <= MOST * len(captions)}
    largest = sorted(map(len, telling.values()), reverse=True)[:LEAST_CLASSES]
    common = {word: mine for word, mine in telling.items() if len(mine) >= min([least, *largest])}
    mean_D = np.asarray(picture_ND, np.float32).mean(axis=0)
    alike = {word: likeness(picture_ND[mine], mean_D) for word, mine in common.items()}
    words = sorted(alike, key=lambda word: (-alike[word], word))[:CLASSES]
    while len(words) > LEAST_CLASSES:
        counts = dict.fromkeys(words, 0)
        for caption in captions:
            if word := class_of(caption, words):
                counts[word] += 1
        fewest = min(words, key=lambda word: (counts[word], word))
        if counts[fewest] >= least:
            break
        words.remove(fewest)
    return words


def likeness(picture_CD: NDArray[np.floating], mean_D: NDArray[np.float32]) -> float:
    """Share of some pictures' distances from the mean of all that their own mean explains, 0 to 1."""
    away_CD = np.asarray(picture_CD, np.float32) - mean_D
    whole = float((away_CD**2).sum(axis=1).mean())
    by_chance = whole / len(away_CD)
    own = float((away_CD.mean(axis=0) ** 2).sum()) - by_chance
    return own / whole if whole else 0.0


def class_of(caption: str, words: Sequence[str]) -> str:
    """The first of the class words that a caption uses, "" if it uses none."""
    used = set(caption_words(caption))
    return next((word for word in words if word in used), "")
