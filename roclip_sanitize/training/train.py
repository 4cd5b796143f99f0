"""The ``train`` stage: kept shards → a CLIP.

OUT/model/           weights.safetensors and model.json: what open_clip loads
OUT/snapshots/       the same after each epoch, to see how attacks take hold
OUT/checkpoint.pt    while it runs: what a resume needs
OUT/log.jsonl        loss, speed, logit scale
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.training.data import build_cache, cache_tally
from roclip_sanitize.training.settings import TrainSettings


def train_clip(
    settings: TrainSettings, *, out: Path, executor: Executor, cache: Path | None = None, ranks: int = 1
) -> Tally:
    """Train, or finish a training that was cut short.

    Args:
        settings: what to do.
        out: the run's folder.
        executor: where.
        ranks: how many workers share each step.
        cache: folder for decoded pairs, which several runs may share; in ``out`` by default.

    Returns:
        Pairs seen and failed while decoding.

    Raises:
        ConfigError: the model is unknown.
        DataError: too few pairs, or the loss is no longer a number.
        MismatchError: ``out`` was made with other settings.
    """
    folder = StageFolder.create(out, stage="train", settings=settings.to_json())
    if folder.finished:
        return Tally.from_json(folder.facts["tally"])
    started = time.perf_counter()
    model = _model_facts(settings, executor)
    decoded = build_cache(settings.shards, **model, root=cache or out / "cache", executor=executor)
    member = partial(_run_member, settings, decoded, out, model["fit"])
    executor.gang(member, folder=str((out / "ray").absolute()), ranks=ranks)
    tally = cache_tally(decoded)
    rows = tally.seen - tally.failed.total()
    samples = rows // settings.batch_size * settings.batch_size
    seconds = round(time.perf_counter() - started, 1)
    folder.finish({"tally": tally.to_json(), "seconds": seconds, "samples_per_epoch": samples})
    return tally


def _model_facts(settings: TrainSettings, executor: Executor) -> dict[str, Any]:
    """What the decoder must know. Models of others are asked in a worker: the driver stays free of torch."""
    own = Path(__file__).parent.parent / "models" / f"{settings.model}.json"
    if own.exists() and not settings.pretrained:
        side = read_json(own)["vision_cfg"]["image_size"]
        return {"model": settings.model, "side": side, "fit": "squash"}
    (facts,) = executor.map(partial(_ModelFacts, settings), [None])
    return dict(facts)


class _ModelFacts:
    """Opens a model to tell what the decoder must know. Runs in a worker: the driver stays free of torch."""

    def __init__(self, settings: TrainSettings) -> None:
        from roclip_sanitize.encoder import image_side, load_clip, require_model

        name, fit = settings.model, "crop"
        if settings.pretrained:
            _, name, fit = load_clip(settings.pretrained)
        require_model(name)
        self._facts = {"model": name, "side": image_side(name), "fit": fit}

    def __call__(self, task: None) -> dict[str, Any]:
        return self._facts


def _run_member(settings: TrainSettings, cache: Path, out: Path, fit: Any, rank: int, size: int) -> None:
    from roclip_sanitize.training.loop import Member

    Member(settings=settings, cache=cache, out=out, fit=fit)(rank, size)
