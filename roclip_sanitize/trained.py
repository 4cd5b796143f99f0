"""What a training leaves behind, for those who need no torch to look it up.

OUT/model/                          the trained weights, written last
OUT/snapshots/samples_000000012480/ the weights after so many training pairs
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roclip_sanitize.encoder_facts import MODEL_FILE, MODEL_FOLDER, weights_folder
from roclip_sanitize.storage import exists, names_in

PREFIX = "samples_"


def model_folder(out: Path) -> Path:
    """Where the trained model lies."""
    return out / MODEL_FOLDER


def training_folder(told: Path) -> Path:
    """The folder of the training that is meant.

    Args:
        told: that folder, the model's in it, or the file of weights there; what is none of them stays
            as it is.
    """
    folder = weights_folder(told)
    return folder.parent if folder is not None and folder.name == MODEL_FOLDER else told


def is_trained(out: Path) -> bool:
    """Whether the trained model is there, whole."""
    return exists(model_folder(out) / MODEL_FILE)


def snapshot_folder(out: Path, *, samples: int) -> Path:
    """The folder for the weights after so many training pairs."""
    return out / "snapshots" / f"{PREFIX}{samples:012d}"


def snapshots(out: Path) -> Iterator[tuple[int, Path]]:
    """(training pairs seen, folder) of each snapshot, earliest first."""
    for name in names_in(out / "snapshots"):
        if name.startswith(PREFIX):
            yield int(name.removeprefix(PREFIX)), out / "snapshots" / name
