"""Trainings: the weights are those that the model's digest names."""

from __future__ import annotations

from collections.abc import Iterator

from roclip_sanitize.encoder_facts import MODEL_FILE
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.trained import model_folder
from roclip_sanitize.verification.contract import require_equal


def verify_training(folder: StageFolder) -> Iterator[str]:
    """Check the published model. Memory: that of the model."""
    from roclip_sanitize.encoder import load_clip, weights_digest

    model = model_folder(folder.path)
    loaded, name, _ = load_clip(str(model))
    told = read_json(model / MODEL_FILE)["digest"]
    require_equal(weights_digest(loaded), told, what="digest of the weights", where=model)
    yield f"the weights of {name} have the digest {told}"
