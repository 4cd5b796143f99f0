"""Plain features: what can be said of a picture or a caption without having learnt anything.

Pictures become 16 × 16 thumbnails, captions hashed word counts, each as a unit row. No training
means no training data, so no attacker's caption can have bent these vectors; that is why the
scan's neighbour agreement starts from them. The two spaces are separate: images compare with
images, captions with captions.

No torch, no files.

Dimension key: N pairs, S side of the thumbnail.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import caption_words, normalise_caption
from roclip_sanitize.cross_prediction import unit_rows
from roclip_sanitize.encoder_facts import EncoderFacts

SIDE_PX = 16
CAPTION_WIDTH = 512
# Change with anything that changes vectors of pictures, or of most captions: stores of two versions are
# never compared, nor completed. It stayed when scripts with marks, or without spaces, got words of their
# own: pictures are what they were, and scans read captions, not these vectors. A store that was begun
# before, and is completed now, has two kinds of words of such captions: embed it anew if captions are to be
# matched in it.
VERSION = "plain-1"


class PlainEncoder:
    """Thumbnails and hashed words. See Encoder."""

    facts = EncoderFacts(name="plain", digest=VERSION, joint=False, side=SIDE_PX, fit="squash")

    def encode_images(self, image_NSS3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 16, 16, 3) uint8 → (N, 768) float32, unit rows. A black picture becomes the even row."""
        rows = image_NSS3.reshape(len(image_NSS3), SIDE_PX * SIDE_PX * 3).astype(np.float32) + 1.0
        return unit_rows(rows)

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """N captions → (N, 512) float32, unit rows."""
        if not captions:  # which the vectoriser refuses
            return np.empty((0, CAPTION_WIDTH), np.float32)
        rows: NDArray[np.float32] = self._vectorizer.transform(captions).toarray().astype(np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows[norms[:, 0] == 0, 0] = 1.0  # signed hashes can cancel out; the row must still be a unit
        return unit_rows(rows)

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(n_features=CAPTION_WIDTH, analyzer=_words_or_whole, norm=None)


def _words_or_whole(caption: str) -> list[str]:
    """A caption of digits alone still says something: then the whole of it is one word."""
    return caption_words(caption) or [normalise_caption(caption)]
