"""What is measured on: pictures with a class, and perhaps a caption, read part by part.

A test set is cut into parts that workers read one by one, so that nobody holds more than one
part's worth at a time: shards are parts as they are, a public data set is cut into ranges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from roclip_sanitize.errors import BadPair
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.images import decode_image
from roclip_sanitize.shards import Pair, Shard

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPart:
    """A piece of a test set.

    Attributes:
        name: its ordinal, five digits or more.
        what: what it is a part of, for the test set.
        start: number of its first picture in that.
        stop: number behind its last; -1 for all there are.
    """

    __test__ = False  # no pytest class

    name: str
    what: Path
    start: int = 0
    stop: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPicture:
    """One picture to measure on.

    Attributes:
        row: its number in its part, unusable ones not counted.
        uid: its pair's name; "" where there is no pair.
        label: name of what it shows; "" where that is not known.
        caption: "" where there is none.
        image: RGB.
    """

    __test__ = False  # no pytest class

    row: int
    uid: str
    label: str
    caption: str
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a part holds, as far as can be told without decoding.

    Attributes:
        pictures: how many.
        labels: how many of each label; those without are left out.
        uids: of its pairs.
        image_hashes: of its encoded pictures, where there are such; see Pair.image_hash.
    """

    pictures: int
    labels: Counter[str]
    uids: Sequence[str] = ()
    image_hashes: Sequence[str] = ()


class TestSet(Protocol):
    """Pictures with classes, cut into parts."""

    name: str  # as CLIP_benchmark would call it
    captioned: bool

    @property
    def parts(self) -> Sequence[TestPart]:
        """The parts, in order."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of its classes; () where its labels have to be counted for that."""
        ...

    @property
    def templates(self) -> Sequence[str]:
        """Captions with {} for the class name, usual for it; () where there are none."""
        ...

    def survey(self, part: TestPart) -> Survey:
        """Look a part through without decoding."""
        ...

    def read(self, part: TestPart, failed: Counter[str]) -> Iterator[TestPicture]:
        """Decode a part's pictures, in order; ``failed`` counts what cannot be used, by reason."""
        ...


class ShardSet:
    """Shards whose pairs have a class in a field of their JSON. See TestSet."""

    captioned = True
    classes: Sequence[str] = ()
    templates: Sequence[str] = ()

    def __init__(self, shards: Sequence[Path], label: str) -> None:
        self._label = label
        self.parts = [TestPart(name=f"{number:05d}", what=path) for number, path in enumerate(shards)]
        self.name = "/".join(["wds", *shards[0].parts[:-1][-2:]]) if shards else "wds"

    def survey(self, part: TestPart) -> Survey:
        """See TestSet.survey."""
        uids, hashes, labels = list[str](), list[str](), Counter[str]()
        with Shard(part.what) as shard:
            for pair in shard.pairs():
                uids.append(pair.uid)
                hashes.append(pair.image_hash)
                labels[self._label_of(pair)] += 1
        del labels[""]
        return Survey(pictures=len(uids), labels=labels, uids=uids, image_hashes=hashes)

    def read(self, part: TestPart, failed: Counter[str]) -> Iterator[TestPicture]:
        """See TestSet.read."""
        row = 0
        with Shard(part.what) as shard:
            for pair in shard.pairs():
                try:
                    image = decode_image(pair.image)
                except BadPair as error:
                    failed[str(error).partition(":")[0]] += 1
                    continue
                label = self._label_of(pair)
                yield TestPicture(row=row, uid=pair.uid, label=label, caption=pair.caption, image=image)
                row += 1
            failed.update(failure.reason.value for failure in shard.failures)

    def _label_of(self, pair: Pair) -> str:
        label = pair.fields.get(self._label)
        return "" if label is None else str(label)


def open_test_set(settings: EvaluateSettings) -> TestSet:
    """The test set that an evaluation is told of.

    Raises:
        ConfigError: there is no such public data set.
        DataError: its folder does not hold it.
    """
    if settings.dataset:
        from roclip_sanitize.evaluation.public_sets import open_public_set

        return open_public_set(settings.dataset)
    return ShardSet(settings.test_shards, settings.label)
