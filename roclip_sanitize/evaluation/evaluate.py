"""The ``evaluate`` stage: trained models → results.json and curves.json.

Each task is one set of weights: a model, or a snapshot taken while it trained. A worker reads
the test shards once and measures one set of weights after the other; snapshots see a part of
the test pictures, since they only draw a curve, which the trained model ends.

    OUT/records/ARM.json                records of the trained model
    OUT/curves/ARM_000000012480.json    attack success and zero-shot after so many training pairs

Dimension key: N test pictures, S side in pixels, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.evaluation.counts import Count
from roclip_sanitize.evaluation.pictures import TestPictures
from roclip_sanitize.evaluation.results import Result, read_results, write_results
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.images import Fit
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.trained import model_folder, snapshots

CURVE_METRICS = ("attack_success", "zero_shot_top1")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsTask:
    """One set of weights to measure.

    Attributes:
        name: of the marker.
        arm: whose it is.
        folder: model.json and weights.
        final: whether it is the trained model, not a snapshot on the way.
        samples: pairs trained on by then.
    """

    name: str
    arm: str
    folder: Path
    final: bool
    samples: int


def evaluate_arms(settings: EvaluateSettings, *, out: Path, executor: Executor) -> list[Result]:
    """Measure every arm.

    Returns:
        All records of the trained models, arm by arm.

    Raises:
        DataError: a folder holds no finished training, or the test shards no labelled pair.
        MismatchError: ``out`` was made with other settings.
    """
    folder = StageFolder.create(out, stage="evaluate", settings=settings.to_json())
    tasks = list(_tasks(settings))
    waiting = [task for task in tasks if folder.marker(task.name) is None]
    for _ in executor.map(partial(EvaluateWorker, settings, out), waiting):
        pass
    results = [result for task in tasks if task.final for result in read_results(_records_file(out, task))]
    write_results(out / "results.json", results)
    write_json(
        out / "curves.json",
        [line for task in tasks if settings.curves for line in read_json(_curve_file(out, task))],
    )
    folder.finish({"arms": sorted(settings.arms)})
    return results


class EvaluateWorker:
    """Measures one set of weights after the other on the same test pictures."""

    def __init__(self, settings: EvaluateSettings, out: Path) -> None:
        self._settings = settings
        self._folder = StageFolder(out)
        self._pictures: dict[tuple[int, Fit], TestPictures] = {}

    def __call__(self, task: WeightsTask) -> str:
        encoder = open_encoder(str(task.folder))
        kind = (encoder.facts.side, encoder.facts.fit)
        if kind not in self._pictures:
            self._pictures[kind] = TestPictures(self._settings, side=kind[0], fit=kind[1])
        counts = list(self._pictures[kind].measure(encoder, curve=not task.final))
        drawn = [count for count in counts if count.metric in CURVE_METRICS and count.trials]
        files = [_curve_file(self._folder.path, task)]
        write_json(files[0], [_curve_line(count, task) for count in drawn])
        if task.final:
            files.append(_records_file(self._folder.path, task))
            seed = self._settings.seed
            write_results(files[1], [Result.of(count, arm=task.arm, seed=seed) for count in counts])
        self._folder.commit(task.name, files=files, facts={"arm": task.arm, "samples": task.samples})
        return task.name


def _tasks(settings: EvaluateSettings) -> Iterator[WeightsTask]:
    for arm, path in settings.arms.items():
        trained = StageFolder.open(path, stage="train")
        for samples, folder in snapshots(path) if settings.curves else ():
            name = f"{arm}_{samples:012d}"
            yield WeightsTask(name=name, arm=arm, folder=folder, final=False, samples=samples)
        yield WeightsTask(
            name=arm, arm=arm, folder=model_folder(path), final=True, samples=trained.facts["samples"]
        )


def _records_file(out: Path, task: WeightsTask) -> Path:
    return out / "records" / f"{task.name}.json"


def _curve_file(out: Path, task: WeightsTask) -> Path:
    return out / "curves" / f"{task.name}.json"


def _curve_line(count: Count, task: WeightsTask) -> dict[str, Any]:
    return {
        "arm": task.arm,
        "attack": count.attack,
        "metric": count.metric,
        "samples": task.samples,
        "value": round(count.hits / count.trials, 6),
    }
