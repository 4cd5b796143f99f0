"""Classes as captions, with an encoder that a reader can follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from roclip_sanitize.captions import wordings
from roclip_sanitize.encoder_facts import EncoderFacts
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.evaluation.zero_shot import (
    ENCODED_AT_ONCE,
    TEMPLATES,
    class_vectors,
    image_vectors,
    predict,
    top_classes,
)


class LetterEncoder:
    """A caption's vector counts its letters a, b and c; a picture's is its mean colour. Unit rows."""

    facts = EncoderFacts(name="letters", digest="0" * 16, joint=True, side=2, fit="squash")

    def __init__(self) -> None:
        self.captions = list[str]()
        self.batches = list[int]()

    def encode_images(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(image_NHW3))
        return unit(image_NHW3.mean(axis=(1, 2)))

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        self.captions += captions
        return unit(np.array([[caption.count(letter) for letter in "abc"] for caption in captions]))


def unit(rows_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    unit_ND: NDArray[np.float32] = (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit_ND


def test_a_class_is_the_mean_of_its_templates_renormalised() -> None:
    found_CD = class_vectors(LetterEncoder(), ["a"], ["{}", "b {}", "bb {}bb"])
    # (1, 0, 0), (1, 1, 0) / √2 and (1, 4, 0) / √17
    mean = np.array([1 + 1 / np.sqrt(2) + 1 / np.sqrt(17), 1 / np.sqrt(2) + 4 / np.sqrt(17), 0]) / 3
    assert found_CD.shape == (1, 3)
    assert found_CD[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert np.linalg.norm(found_CD, axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Watches", ("watches", "watch")),
        ("Casual_Shoes", ("casual shoes", "casual shoe")),
        ("Dress", ("dress",)),
        ("truck", ("truck",)),
        ("犬", ("犬",)),
        ("", ("",)),
        ("_", (" ",)),
    ],
)
def test_a_plural_label_is_asked_for_in_the_singular_too(name: str, words: tuple[str, ...]) -> None:
    assert wordings(name) == words


def test_a_class_is_the_mean_over_its_wordings() -> None:
    found_CD = class_vectors(LetterEncoder(), ["Cabs"], ["{}"])  # "cabs" and "cab"
    assert found_CD[0] == pytest.approx(np.ones(3) / np.sqrt(3), abs=1e-6)
    encoder = LetterEncoder()
    class_vectors(encoder, ["Cabs"], ["{}", "a {}"])
    assert encoder.captions == ["cabs", "a cabs", "cab", "a cab"]


def test_names_are_read_as_words() -> None:
    encoder = LetterEncoder()
    class_vectors(encoder, ["Cab_Back", "b"], ["{}", "a photo of {}"])
    assert encoder.captions == ["cab back", "a photo of cab back", "b", "a photo of b"]


def test_classes_keep_their_order() -> None:
    class_CD = class_vectors(LetterEncoder(), ["c", "a", "b"], ["{}"])
    assert class_CD.argmax(axis=1).tolist() == [2, 0, 1]


def test_the_templates_have_a_place_for_the_name() -> None:
    assert all("{}" in template for template in TEMPLATES)
    with pytest.raises(ConfigError, match=r"template 'a photo' has no \{\} for the class name"):
        class_vectors(LetterEncoder(), ["a"], ["{}", "a photo"])


def test_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="no classes to choose from"):
        class_vectors(LetterEncoder(), [])


def test_many_pictures_are_encoded_in_parts() -> None:
    image_N223 = np.zeros((ENCODED_AT_ONCE + 3, 2, 2, 3), np.uint8)
    image_N223[:, :, :, 0] = 1
    image_N223[-1] = (0, 0, 1)
    encoder = LetterEncoder()
    found_ND = image_vectors(encoder, image_N223)
    assert encoder.batches == [ENCODED_AT_ONCE, 3]
    assert (found_ND[:-1] == (1, 0, 0)).all()
    assert found_ND[-1].tolist() == [0, 0, 1]


def test_the_most_similar_class_is_predicted_and_of_equals_the_first() -> None:
    class_CD = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    image_ND = np.array([[0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    assert predict(image_ND, class_CD).tolist() == [0, 1, 1, 1]


def test_the_best_classes_come_in_order_and_of_equals_the_lower_number_first() -> None:
    class_CD = np.array([[1, 0], [0, 1], [0, 1], [-1, 0]], np.float32)
    image_ND = np.array([[0.8, 0.6], [0, 1]], np.float32)
    assert top_classes(image_ND, class_CD, most=3).tolist() == [[0, 1, 2], [1, 2, 0]]
    assert top_classes(image_ND, class_CD, most=9).tolist() == [[0, 1, 2, 3], [1, 2, 0, 3]]
    assert top_classes(image_ND, class_CD, most=1)[:, 0].tolist() == predict(image_ND, class_CD).tolist()
