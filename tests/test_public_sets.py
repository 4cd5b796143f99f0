"""Public data sets in the formats that they have on disk, made small; nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.evaluation.public_sets import (
    PUBLIC_SETS,
    PublicTestSet,
    open_public_set,
    public_content,
)
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.split import look_through
from roclip_sanitize.evaluation.zero_shot import class_vectors, predict
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json


def write_picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 10, 3), grey, np.uint8)).save(path)


def everything(test_set: PublicTestSet) -> list[tuple[str, tuple[int, int], int]]:
    """Label, size and grey of each picture; and the bytes of each are found where it lies."""
    assert all(test_set._encoded(number) for number in range(test_set.parts[-1].stop))
    pictures = [picture for part in test_set.parts for picture in test_set.read(part, Counter())]
    return [(one.label, one.image.size, int(np.asarray(one.image).mean())) for one in pictures]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_cifar(folder: Path, base: str, names: list[str], *, key: str, meta: str, meta_key: str) -> None:
    (folder / base).mkdir(parents=True)
    rows_N = np.repeat(np.array([[10], [200]], np.uint8), 3_072, axis=1)
    (folder / base / "test_file").write_bytes(pickle.dumps({"data": rows_N, key: [1, 0]}))
    (folder / base / meta).write_bytes(pickle.dumps({meta_key: names}))


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures of CIFAR-10; torchvision wants the real files' checksums, so it is told of these."""
    import torchvision.datasets  # slow to import

    base = torchvision.datasets.CIFAR10.base_folder
    write_cifar(tmp_path, base, ["airplane", "automobile"], key="labels", meta="meta", meta_key="label_names")
    known = torchvision.datasets.CIFAR10
    monkeypatch.setattr(known, "train_list", [])
    monkeypatch.setattr(known, "test_list", [["test_file", md5(tmp_path / base / "test_file")]])
    monkeypatch.setattr(
        known, "meta", {"filename": "meta", "key": "label_names", "md5": md5(tmp_path / base / "meta")}
    )
    return tmp_path


def test_cifar10(cifar10: Path) -> None:
    test_set = open_public_set(f"cifar10:{cifar10}")
    assert list(test_set.classes) == ["airplane", "automobile"]
    assert everything(test_set) == [("automobile", (32, 32), 10), ("airplane", (32, 32), 200)]
    assert test_set.survey(test_set.parts[0]).labels == {"airplane": 1, "automobile": 1}
    assert (test_set.name, test_set.captioned) == ("cifar10", False)


def test_damaged_files_are_said_to_be(cifar10: Path) -> None:
    (cifar10 / "cifar-10-batches-py" / "test_file").write_bytes(b"cut off")
    with pytest.raises(DataError, match="holds no intact CIFAR-10: Dataset not found or corrupted"):
        _ = open_public_set(f"cifar10:{cifar10}").parts


def test_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    known = torchvision.datasets.CIFAR100
    names = ["aquarium_fish", "beaver"]
    write_cifar(
        tmp_path, known.base_folder, names, key="fine_labels", meta="meta", meta_key="fine_label_names"
    )
    base = tmp_path / known.base_folder
    monkeypatch.setattr(known, "train_list", [])
    monkeypatch.setattr(known, "test_list", [["test_file", md5(base / "test_file")]])
    monkeypatch.setattr(
        known, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5(base / "meta")}
    )
    found = everything(open_public_set(f"cifar100:{tmp_path}"))
    assert found == [("beaver", (32, 32), 10), ("aquarium fish", (32, 32), 200)]


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    known, base = torchvision.datasets.STL10, tmp_path / "stl10_binary"
    base.mkdir()
    pixels_N3WH = np.stack([np.full((3, 96, 96), grey, np.uint8) for grey in (30, 90)])
    (base / "test_X.bin").write_bytes(pixels_N3WH.tobytes())
    (base / "test_y.bin").write_bytes(bytes([2, 1]))  # from 1 on
    (base / "class_names.txt").write_text("airplane\nbird\n")
    monkeypatch.setattr(known, "train_list", [])
    monkeypatch.setattr(
        known, "test_list", [[name, md5(base / name)] for name in ("test_X.bin", "test_y.bin")]
    )
    found = everything(open_public_set(f"stl10:{tmp_path}"))
    assert found == [("bird", (96, 96), 30), ("airplane", (96, 96), 90)]


def test_caltech101(tmp_path: Path) -> None:
    folder = tmp_path / "caltech101"
    for number, name in enumerate(("BACKGROUND_Google", "Faces", "ceiling_fan")):
        write_picture(folder / "101_ObjectCategories" / name / "image_0001.jpg", 40 * number)
    (folder / "Annotations").mkdir()
    found = everything(open_public_set(f"caltech101:{tmp_path}"))
    assert found == [("faces", (10, 12), 40), ("ceiling fan", (10, 12), 80)]


def test_food101(tmp_path: Path) -> None:
    folder = tmp_path / "food-101"
    write_picture(folder / "images" / "apple_pie" / "7.jpg", 70)
    write_picture(folder / "images" / "waffles" / "8.jpg", 80)
    (folder / "meta").mkdir()
    (folder / "meta" / "test.json").write_text(
        json.dumps({"apple_pie": ["apple_pie/7"], "waffles": ["waffles/8"]})
    )
    found = everything(open_public_set(f"food101:{tmp_path}"))
    assert found == [("apple pie", (10, 12), 70), ("waffles", (10, 12), 80)]


def test_pets(tmp_path: Path) -> None:
    folder = tmp_path / "oxford-iiit-pet"
    write_picture(folder / "images" / "Abyssinian_1.jpg", 50)
    write_picture(folder / "images" / "basset_hound_2.jpg", 60)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "test.txt").write_text("Abyssinian_1 1 1 1\nbasset_hound_2 2 2 1\n")
    found = everything(open_public_set(f"pets:{tmp_path}"))
    assert found == [("Abyssinian", (10, 12), 50), ("Basset Hound", (10, 12), 60)]


def test_flowers102(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets
    from scipy.io import savemat

    folder = tmp_path / "flowers-102"
    for number in (1, 2, 3):
        write_picture(folder / "jpg" / f"image_{number:05d}.jpg", 20 * number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 102, 2]])})
    savemat(folder / "setid.mat", {"trnid": [[1]], "valid": [[1]], "tstid": [[2, 3]]})
    known = torchvision.datasets.Flowers102
    sums = {
        key: (name, md5(folder / name))
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    monkeypatch.setattr(known, "_file_dict", {**known._file_dict, **sums})
    found = everything(open_public_set(f"flowers102:{tmp_path}"))
    classes = known.classes
    assert found == [(classes[101], (10, 12), 40), (classes[1], (10, 12), 60)]


def test_eurosat(tmp_path: Path) -> None:
    write_picture(tmp_path / "eurosat" / "2750" / "AnnualCrop" / "AnnualCrop_1.jpg", 33)
    write_picture(tmp_path / "eurosat" / "2750" / "SeaLake" / "SeaLake_1.jpg", 66)
    found = everything(open_public_set(f"eurosat:{tmp_path}"))
    assert found == [("annual crop", (10, 12), 33), ("sea lake", (10, 12), 66)]


def test_dtd(tmp_path: Path) -> None:
    folder = tmp_path / "dtd" / "dtd"
    write_picture(folder / "images" / "banded" / "banded_0002.jpg", 44)
    (folder / "labels").mkdir()
    (folder / "labels" / "test1.txt").write_text("banded/banded_0002.jpg\n")
    assert everything(open_public_set(f"dtd:{tmp_path}")) == [("banded", (10, 12), 44)]


def test_imagenet1k(tmp_path: Path) -> None:
    folders = [tmp_path / "val" / f"n{number:08d}" for number in range(1_000)]
    for folder in folders:
        folder.mkdir(parents=True)
    write_picture(folders[0] / "ILSVRC2012_val_00000001.JPEG", 25)
    write_picture(folders[999] / "ILSVRC2012_val_00000002.JPEG", 75)
    test_set = open_public_set(f"imagenet1k:{tmp_path}")
    assert everything(test_set) == [("tench", (10, 12), 25), ("toilet paper", (10, 12), 75)]
    assert len(set(test_set.templates)) == 80
    assert all(template.count("{}") == 1 for template in test_set.templates)


def test_imagenet_with_a_class_missing_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "val" / "n01440764" / "a.JPEG", 0)
    with pytest.raises(DataError, match="holds 1 class folders named like n01440764, wanted 1,000"):
        _ = open_public_set(f"imagenet1k:{tmp_path}").parts


def test_any_folders_of_pictures_and_one_broken_among_them(tmp_path: Path) -> None:
    write_picture(tmp_path / "red_hat" / "a.png", 10)
    write_picture(tmp_path / "shoe" / "b.png", 20)
    (tmp_path / "shoe" / "a.png").write_bytes(b"no picture")
    test_set = open_public_set(f"folder:{tmp_path}")
    failed = Counter[str]()
    found = [(one.row, one.label) for one in test_set.read(test_set.parts[0], failed)]
    assert found == [(0, "red hat"), (1, "shoe")]
    assert failed == {"image_undecodable": 1}


def test_a_set_is_named_by_its_pictures_and_their_classes(tmp_path: Path) -> None:
    def content(folder: str) -> str:
        return public_content(f"folder:{tmp_path / folder}", executor=LocalExecutor())

    for number in range(3):
        write_picture(tmp_path / "one" / ("hat" if number else "shoe") / f"{number}.bmp", 10 * number)
    found = content("one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert content("copy") == found
    write_picture(tmp_path / "copy" / "hat" / "1.bmp", 99)
    assert content("copy") != found, "as large as before"
    shutil.copytree(tmp_path / "one" / "hat", tmp_path / "renamed" / "cap")
    shutil.copytree(tmp_path / "one" / "shoe", tmp_path / "renamed" / "shoe")
    assert content("renamed") != found
    (tmp_path / "one" / "hat" / "1.bmp").write_bytes(b"broken")
    assert content("one") != found


def test_large_sets_are_cut_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roclip_sanitize.evaluation.public_sets.PART_PICTURES", 2)
    for number in range(5):
        write_picture(tmp_path / "hat" / f"{number}.png", 10 * number)
    test_set = open_public_set(f"folder:{tmp_path}")
    assert [(part.name, part.start, part.stop) for part in test_set.parts] == [
        ("00000", 0, 2),
        ("00001", 2, 4),
        ("00002", 4, 5),
    ]
    assert [grey for _, _, grey in everything(test_set)] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("name", sorted(PUBLIC_SETS))
def test_a_folder_without_the_data_says_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no .* expected there \(nothing is downloaded\)") as caught:
        open_public_set(f"{name}:{tmp_path / 'nowhere'}")
    for wanted in PUBLIC_SETS[name].holds:
        assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar10", "dataset is 'cifar10', wanted NAME:FOLDER"),
        ("cifar10:", "wanted NAME:FOLDER"),
        ("mnist:here", r"no public data set 'mnist': there are caltech101, .*stl10"),
    ],
)
def test_what_is_no_data_set(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_public_set(spec)


@pytest.mark.parametrize("name", sorted(set(PUBLIC_SETS) - {"imagenet1k"}))
def test_templates_have_one_place_for_the_name(name: str) -> None:
    assert all(template.count("{}") == 1 for template in PUBLIC_SETS[name].templates)


def test_classes_of_one_name_are_one_so_that_a_perfect_model_is_perfect(tmp_path: Path) -> None:
    folders = [tmp_path / "val" / f"n{number:08d}" for number in range(1_000)]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in (0, 657, 744, 836, 837):
        write_picture(folders[number] / "a.JPEG", 25)
    spec = f"imagenet1k:{tmp_path}"
    test_set = open_public_set(spec)
    settings = EvaluateSettings(arms={"one": tmp_path}, dataset=spec)
    split = look_through(settings, test_set, out=tmp_path / "out", executor=LocalExecutor())
    labels = [label for label, _, _ in everything(test_set)]
    assert labels == ["tench", "missile", "missile", "sunglasses", "sunglasses"]
    assert len(set(split.classes)) == len(split.classes) == 998
    assert read_json(tmp_path / "out" / "split.json")["labelled"] == 5, "and nobody is counted twice"
    label_N = np.array([split.classes.index(label) for label in labels])
    class_CD = class_vectors(NameEncoder(), split.classes, ("{}",), literal=True)
    assert predict(class_CD[label_N], class_CD).tolist() == label_N.tolist()


class NameEncoder:
    """Vectors of captions that are the same for the same text alone."""

    facts: Any = None

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        seeds = [zlib.crc32(caption.encode()) for caption in captions]
        row_ND = np.stack([np.random.default_rng(seed).standard_normal(64) for seed in seeds])
        unit_ND: NDArray[np.float32] = row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True)
        return unit_ND

    def encode_images(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise NotImplementedError
