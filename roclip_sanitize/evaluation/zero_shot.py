"""Classes as captions: which one is a picture most like?

Each class name goes into several templates; its vector is the mean of theirs, renormalised
(Radford et al. 2021). Labels are often plural ("Watches") where captions speak of one thing, so
that a name and its singular both go in.

Dimension key: N pictures, C classes, K best of them, T templates × wordings, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import wordings
from roclip_sanitize.encoder_facts import Encoder
from roclip_sanitize.errors import ConfigError

TEMPLATES = ("{}", "a photo of {}", "a photo of a {}", "a picture of the {}", "{} for sale", "buy {} online")
ENCODED_AT_ONCE = 512


def class_vectors(
    encoder: Encoder, classes: Sequence[str], templates: Sequence[str] = TEMPLATES, *, literal: bool = False
) -> NDArray[np.float32]:
    """One unit row per class: (C, D) float32.

    Args:
        encoder: with both towers in one space.
        classes: their names.
        templates: captions with {} for the name.
        literal: whether names are captions' own words already, as those of public data sets are; else
            see wordings().

    Raises:
        ConfigError: there are no classes, or a template has no place for the name.
    """
    if not classes:
        raise ConfigError("no classes to choose from: wanted at least one label name")
    for template in templates:
        if "{}" not in template:
            raise ConfigError(f"template {template!r} has no {{}} for the class name")
    words = [(name,) if literal else wordings(name) for name in classes]
    mean_CD = np.stack([_mean_D(encoder, each, templates) for each in words])
    vectors: NDArray[np.float32] = mean_CD / np.linalg.norm(mean_CD, axis=1, keepdims=True)
    return vectors


def image_vectors(encoder: Encoder, image_NSS3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit rows of many pictures: (N, D) float32."""
    starts = range(0, len(image_NSS3), ENCODED_AT_ONCE)
    return np.concatenate(
        [encoder.encode_images(image_NSS3[start : start + ENCODED_AT_ONCE]) for start in starts]
    )


def predict(image_ND: NDArray[np.float32], class_CD: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number of the most similar class: (N,) int64; equal ones give the lowest number."""
    class_N: NDArray[np.int64] = (image_ND @ class_CD.T).argmax(axis=1)
    return class_N


def top_classes(
    image_ND: NDArray[np.float32], class_CD: NDArray[np.float32], *, most: int
) -> NDArray[np.int64]:
    """Numbers of the most similar classes, best first; of equal ones the lower number comes first.

    Args:
        image_ND: unit rows.
        class_CD: unit rows.
        most: how many at most.

    Returns:
        (N, K) int64 with K = min(most, C); column 0 is predict()'s.
    """
    class_NC = np.argsort(-(image_ND @ class_CD.T), axis=1, kind="stable")
    return class_NC[:, :most].astype(np.int64)


def _mean_D(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    captions = [template.replace("{}", name) for name in names for template in templates]
    mean_D: NDArray[np.float32] = encoder.encode_captions(captions).mean(axis=0)
    return mean_D
