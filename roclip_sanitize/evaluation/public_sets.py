"""Public data sets for zero-shot classification, read where they lie on a disk; nothing is downloaded.

    --dataset cifar10:DIR        DIR holds what torchvision unpacks there
    --dataset imagenet1k:DIR     DIR holds val/ with a folder per class
    --dataset folder:DIR         any folders of pictures, named after their classes

torchvision reads them. Test splits are measured where a set has one; Caltech-101 and EuroSAT have
none, so all of their pictures are (CLIP_benchmark's vtab/ versions of the two take a part). Class
names and the 80 templates of ImageNet are OpenAI's, as open_clip has them: two of its classes are called
"missile" and two "sunglasses", and count as one each. The other sets' templates are short, after what
Radford et al. 2021 (3.1.4) say of naming the kind of thing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.evaluation.test_sets import Survey, TestPart, TestPicture
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.held import joined
from roclip_sanitize.records import FailureReason

PART_PICTURES = 1_000
PHOTO = ("a photo of a {}.", "a photo of the {}.", "a blurry photo of a {}.", "a close-up photo of a {}.")
IMAGENET_CLASSES = 1_000
WORDNET_ID = re.compile(r"n\d{8}")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """One known data set.

    Attributes:
        title: as people call it.
        name: as CLIP_benchmark calls it.
        holds: what must lie in its folder.
        open: folder → a torchvision data set of (PIL image, class number).
        templates: captions with {} for the class name.
        words: class names as captions would write them, from the data set's own.
    """

    title: str
    name: str
    holds: tuple[str, ...]
    open: Callable[[Path], Any]
    templates: tuple[str, ...] = PHOTO
    words: Callable[[str], str] = lambda name: name.replace("_", " ")


class PublicTestSet:
    """A public data set, cut into ranges. See TestSet."""

    captioned = False

    def __init__(self, known: PublicSet, folder: Path) -> None:
        self._known, self._folder = known, folder
        self.name = known.name
        _require_held(known, folder)

    @cached_property
    def _data(self) -> Any:
        try:
            return self._known.open(self._folder)
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self._folder} holds no intact {self._known.title}: {reason}") from error

    @cached_property
    def _labels(self) -> Sequence[int]:
        """Class numbers of all pictures, by the name that this data set of torchvision has for them."""
        names = ("targets", "_labels", "labels", "y")
        found: Sequence[int] = next(getattr(self._data, name) for name in names if hasattr(self._data, name))
        return found

    @cached_property
    def parts(self) -> Sequence[TestPart]:
        """See TestSet.parts."""
        size = len(self._data)
        return [
            TestPart(
                name=f"{number:05d}", what=self._folder, start=start, stop=min(start + PART_PICTURES, size)
            )
            for number, start in enumerate(range(0, size, PART_PICTURES))
        ]

    @cached_property
    def classes(self) -> Sequence[str]:
        """See TestSet.classes."""
        if self._known.name == "imagenet1k":
            return _imagenet()[0]
        names = getattr(self._data, "categories", None) or self._data.classes  # Caltech-101 says categories
        return [self._known.words(name) for name in names]

    @property
    def templates(self) -> Sequence[str]:
        """See TestSet.templates."""
        return _imagenet()[1] if self._known.name == "imagenet1k" else self._known.templates

    def survey(self, part: TestPart) -> Survey:
        """See TestSet.survey."""
        numbers = self._labels[part.start : part.stop]
        return Survey(pictures=len(numbers), labels=Counter(self.classes[int(number)] for number in numbers))

    def content(self, part: TestPart) -> str:
        """Names a part's pictures, as they are encoded, and their classes: 32 hex digits. Decodes nothing."""
        digest = hashlib.blake2b(digest_size=16)
        for number in range(part.start, part.stop):
            label, image = self.classes[int(self._labels[number])], self._encoded(number)
            digest.update(f"{label}\0{len(image)}\0".encode() + image)
        return digest.hexdigest()

    def _encoded(self, number: int) -> bytes:
        """A picture's bytes where it lies; none where they cannot be read."""
        if (pixels := getattr(self._data, "data", None)) is not None:
            return bytes(pixels[number].tobytes())
        try:
            return self._file(number).read_bytes()
        except OSError:
            return b""

    def _file(self, number: int) -> Path:
        """Where a picture lies, by the name that this data set of torchvision has for its files."""
        data = self._data
        for name in ("samples", "_image_files", "_images"):
            if (files := getattr(data, name, None)) is not None:
                return Path(files[number][0] if name == "samples" else files[number])
        folder = Path(data.root, "101_ObjectCategories", data.categories[data.y[number]])  # Caltech-101
        return folder / f"image_{data.index[number]:04d}.jpg"

    def read(self, part: TestPart, failed: Counter[str]) -> Iterator[TestPicture]:
        """See TestSet.read."""
        row = 0
        for number in range(part.start, part.stop):
            try:
                image, label = self._data[number]
                image = image.convert("RGB")
            except (OSError, ValueError, SyntaxError):  # what Pillow raises of broken files
                failed[FailureReason.IMAGE_UNDECODABLE.value] += 1
                continue
            yield TestPicture(row=row, uid="", label=self.classes[int(label)], caption="", image=image)
            row += 1


def open_public_set(spec: str) -> PublicTestSet:
    """The data set that NAME:FOLDER says.

    Raises:
        ConfigError: there is no such name, or no folder is named.
        DataError: the folder does not hold what it should.
    """
    name, separator, folder = spec.partition(":")
    if not separator or not folder:
        raise ConfigError(f"dataset is {spec!r}, wanted NAME:FOLDER, for example cifar10:data/cifar10")
    if name not in PUBLIC_SETS:
        raise ConfigError(f"no public data set {name!r}: there are {', '.join(sorted(PUBLIC_SETS))}")
    return PublicTestSet(PUBLIC_SETS[name], Path(folder))


class PublicContentWorker:
    """Names one part's pictures after the other. ``spec`` is open_public_set()'s."""

    def __init__(self, spec: str) -> None:
        self._set = open_public_set(spec)

    def __call__(self, part: TestPart) -> str:
        return self._set.content(part)


def public_content(spec: str, *, executor: Executor) -> str:
    """Names what a public data set holds, wherever it lies: sixteen hex digits. Reads all pictures measured.

    Raises: as open_public_set().
    """
    return joined(list(executor.map(partial(PublicContentWorker, spec), open_public_set(spec).parts)))


def _require_held(known: PublicSet, folder: Path) -> None:
    missing = [name for name in known.holds if not (folder / name).exists()]
    if missing or not folder.is_dir():
        wanted = ", ".join(missing) or "a folder per class"
        raise DataError(f"{folder} holds no {known.title}: {wanted} expected there (nothing is downloaded)")


def _imagenet() -> tuple[Sequence[str], Sequence[str]]:
    from roclip_sanitize.encoder import imagenet_prompts

    return imagenet_prompts()


def _open_imagenet(folder: Path) -> Any:
    from torchvision.datasets import ImageFolder

    found = [path.name for path in (folder / "val").iterdir() if WORDNET_ID.fullmatch(path.name)]
    if len(found) != IMAGENET_CLASSES:
        raise DataError(
            f"{folder / 'val'} holds {len(found):,} class folders named like n01440764, "
            f"wanted {IMAGENET_CLASSES:,}: class names go by their order"
        )
    return ImageFolder(str(folder / "val"), allow_empty=True)


def _open_folder(folder: Path) -> Any:
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(folder))


def _torchvision(name: str, **told: Any) -> Callable[[Path], Any]:
    """Opens torchvision's class of this name."""

    def open_there(folder: Path) -> Any:
        import torchvision.datasets

        return getattr(torchvision.datasets, name)(root=str(folder), download=False, **told)

    return open_there


PUBLIC_SETS: Mapping[str, PublicSet] = {
    "caltech101": PublicSet(
        title="Caltech-101",
        name="vtab/caltech101",
        holds=("caltech101/101_ObjectCategories", "caltech101/Annotations"),
        open=_torchvision("Caltech101"),
        words=lambda name: name.replace("_", " ").lower(),
    ),
    "cifar10": PublicSet(
        title="CIFAR-10",
        name="cifar10",
        holds=("cifar-10-batches-py",),
        open=_torchvision("CIFAR10", train=False),
    ),
    "cifar100": PublicSet(
        title="CIFAR-100",
        name="vtab/cifar100",
        holds=("cifar-100-python",),
        open=_torchvision("CIFAR100", train=False),
    ),
    "dtd": PublicSet(
        title="Describable Textures",
        name="vtab/dtd",
        holds=("dtd/dtd/images", "dtd/dtd/labels"),
        open=_torchvision("DTD", split="test"),
        templates=("a photo of a {} texture.", "a photo of a {} pattern.", "a photo of a {} thing."),
    ),
    "eurosat": PublicSet(
        title="EuroSAT",
        name="vtab/eurosat",
        holds=("eurosat/2750",),
        open=_torchvision("EuroSAT"),
        templates=("a satellite photo of {}.", "an aerial photo of {}."),
        words=lambda name: CAMEL.sub(" ", name).lower(),
    ),
    "flowers102": PublicSet(
        title="Oxford Flowers 102",
        name="vtab/flowers",
        holds=("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        open=_torchvision("Flowers102", split="test"),
        templates=("a photo of a {}, a type of flower.", "a close-up photo of a {}, a flower."),
    ),
    "folder": PublicSet(title="folders of pictures", name="folder", holds=(), open=_open_folder),
    "food101": PublicSet(
        title="Food-101",
        name="food101",
        holds=("food-101/images", "food-101/meta"),
        open=_torchvision("Food101", split="test"),
        templates=("a photo of {}, a type of food.", "a plate of {}."),
    ),
    "imagenet1k": PublicSet(title="ImageNet-1k", name="imagenet1k", holds=("val",), open=_open_imagenet),
    "pets": PublicSet(
        title="Oxford-IIIT Pets",
        name="vtab/pets",
        holds=("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
        open=_torchvision("OxfordIIITPet", split="test"),
        templates=("a photo of a {}, a type of pet.", "a close-up photo of a {}."),
    ),
    "stl10": PublicSet(
        title="STL-10",
        name="stl10",
        holds=("stl10_binary",),
        open=_torchvision("STL10", split="test"),
    ),
}
