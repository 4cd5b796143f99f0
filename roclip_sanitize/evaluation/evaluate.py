"""The ``evaluate`` stage: trained models → results.json and curves.json.

Test pictures are read part by part on workers, and shown to each set of weights: a trained model,
or a snapshot taken while it trained, which sees a part of the pictures, since it only draws a curve.

    1  look through    which classes there are; no poisoned pair may be among the test pairs
    2  write down      the vectors of the classes, and what the targets are called
    3  encode          what a set of weights makes of each part
    4  measure         all parts of a set of weights together

    OUT/split.json                      what the test set holds, and how much of it was trained on
    OUT/parts/NAME/                     what steps 2 and 3 left of weights not measured yet
    OUT/records/ARM.json                records of the trained model
    OUT/curves/ARM_000000012480.json    attack success and zero-shot after so many training pairs
    OUT/clip_benchmark.json             the trained models' utility as CLIP_benchmark writes it

Dimension key: N test pictures, T target pictures, S side in pixels, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.encoder_facts import MODEL_FILE, Encoder
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation.clip_benchmark import benchmark_lines, write_benchmark
from roclip_sanitize.evaluation.counts import Count, Sample, is_whole
from roclip_sanitize.evaluation.encoding import (
    SEEN_CLASSES,
    Arrays,
    EncodeTask,
    EncodeWorker,
    Weights,
    classes_file,
    part_file,
    part_files,
    read_parts,
    write_arrays,
)
from roclip_sanitize.evaluation.goals import Goals, require_goal_classes
from roclip_sanitize.evaluation.measuring import attacked, clean, probed, utility
from roclip_sanitize.evaluation.public_sets import public_content
from roclip_sanitize.evaluation.results import Result, read_results, write_results
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.split import Split, look_through
from roclip_sanitize.evaluation.test_sets import TestSet, open_test_set
from roclip_sanitize.evaluation.zero_shot import TEMPLATES, class_vectors, image_vectors, top_classes
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.held import shards_content
from roclip_sanitize.images import decode_image, to_square
from roclip_sanitize.runfiles import StageFolder, read_json, read_told, write_json
from roclip_sanitize.storage import exists, here, remove_tree
from roclip_sanitize.trained import model_folder, snapshots, training_folder

CURVE_METRICS = ("attack_success", "zero_shot_top1")
WEIGHTS_AT_ONCE = 4  # that a worker holds, so that a part is decoded once for all of them


def evaluate_arms(settings: EvaluateSettings, *, out: Path, executor: Executor) -> list[Result]:
    """Measure every arm.

    Returns:
        All records of the trained models, arm by arm.

    Raises:
        DataError: a folder holds no finished training, the test set is not where it should be, holds no
            labelled picture, or holds poisoned pairs.
        MismatchError: ``out`` was made with other settings, or of other weights, pairs, pictures or poisons;
            or the store by another encoder than it says.
        ConfigError: there is no such public data set, or the classes lack one that an attack names.
    """
    every = list(_weights(settings))
    test_set = open_test_set(settings)
    inputs = _inputs(settings, every, executor)
    folder = StageFolder.create(out, stage="evaluate", settings=settings.to_json(), inputs=inputs)
    waiting = [weights for weights in every if folder.marker(weights.name) is None]
    if waiting:
        _measure_all(settings, test_set, waiting, out, executor)
    finals = [weights for weights in every if weights.final]
    results = [result for weights in finals for result in read_results(_records_file(out, weights))]
    write_results(out / "results.json", results)
    write_json(
        out / "curves.json",
        [line for weights in every if settings.curves for line in read_json(_curve_file(out, weights))],
    )
    write_benchmark(out, [line for weights in finals for line in read_json(_benchmark_file(out, weights))])
    unusable = [found.facts["failed"] for weights in finals if (found := folder.marker(weights.name))]
    folder.finish({"arms": sorted(settings.arms), "unusable": max(unusable)})
    return results


def _inputs(settings: EvaluateSettings, every: Sequence[Weights], executor: Executor) -> dict[str, str]:
    """What is measured, and on what, by content: all of it may be made anew under its old name.

    Weights that are gone tell nothing: what was measured of them is still there.
    """
    found = {
        f"weights of arm {weights.arm}": str(read_told(weights.folder / MODEL_FILE)["digest"])
        for weights in every
        if weights.final and exists(weights.folder / MODEL_FILE)
    }
    for name, shards in (("test pairs", settings.test_shards), ("probe pairs", settings.probe_shards)):
        if shards:
            found[name] = shards_content(shards, executor=executor, label=settings.label)
    if settings.dataset:
        found["pictures of the data set"] = public_content(settings.dataset, executor=executor)
    if settings.ledger:
        found["poisons"] = Ledger.open(settings.ledger).content
    if settings.store:
        found["training embeddings"] = StageFolder.open(settings.store, stage="embed").content
    return found


def _measure_all(
    settings: EvaluateSettings, test_set: TestSet, waiting: Sequence[Weights], out: Path, executor: Executor
) -> None:
    split = look_through(settings, test_set, out=out, executor=executor)
    classes = split.classes
    require_goal_classes(Ledger.open(settings.ledger) if settings.ledger else None, classes)
    stages: list[tuple[Any, list[Any]]] = [
        (partial(ClassWorker, settings, classes, out), list(waiting)),
        (partial(EncodeWorker, settings, classes, out), list(_encode_tasks(waiting, split, out))),
        (partial(MeasureWorker, settings, split, out), list(waiting)),
    ]
    for make_worker, tasks in stages:
        for _ in executor.map(make_worker, tasks):
            pass
    remove_tree(out / "parts")


class ClassWorker:
    """Writes down a set of weights' class vectors, and what it calls the targets: (C, D), (T, K) each."""

    def __init__(self, settings: EvaluateSettings, classes: Sequence[str], out: Path) -> None:
        self._settings, self._classes, self._out = settings, classes, out
        test_set = open_test_set(settings)
        self._templates = settings.templates or test_set.templates or TEMPLATES
        self._literal = bool(test_set.classes) and not settings.classes
        self._ledger = Ledger.open(settings.ledger) if settings.ledger else None

    def __call__(self, weights: Weights) -> None:
        if exists(classes_file(self._out, weights.name)):
            return
        encoder = open_encoder(str(weights.folder), precision="float32")
        class_CD = class_vectors(encoder, self._classes, self._templates, literal=self._literal)
        written: Arrays = {"class_CD": class_CD}
        for number, (_, targets) in enumerate(Goals.of(self._ledger).targets):
            assert self._ledger is not None
            target_TD = image_vectors(encoder, _squares(map(self._ledger.picture, targets), encoder))
            written[f"target_top_{number}"] = top_classes(target_TD, class_CD, most=SEEN_CLASSES)
        write_arrays(classes_file(self._out, weights.name), written)


class MeasureWorker:
    """Brings together what a set of weights made of all parts."""

    def __init__(self, settings: EvaluateSettings, split: Split, out: Path) -> None:
        self._settings, self._split = settings, split
        self._folder = StageFolder(out)
        self._goals = Goals.of(Ledger.open(settings.ledger) if settings.ledger else None)

    def __call__(self, weights: Weights) -> None:
        out = self._folder.path
        if self._folder.marker(weights.name) is not None:
            return  # a worker was lost right after it had measured them, and the parts are gone
        seen = read_parts(part_files(out, weights.name))
        counted = list(self._counted(weights, seen))
        files = [_curve_file(out, weights)]
        drawn = [one for one in counted if isinstance(one, Count) and _is_drawn(one)]
        write_json(files[0], [_curve_line(one, weights) for one in drawn])
        if weights.final:
            results = [Result.of(one, arm=weights.arm, seed=self._settings.seed) for one in counted]
            files += [_records_file(out, weights), _benchmark_file(out, weights)]
            write_results(files[1], results)
            write_json(files[2], benchmark_lines(results, seen, weights=weights, dataset=self._split.dataset))
        failed = int(seen["failed"])  # of the pictures that it was shown
        facts = {"arm": weights.arm, "samples": weights.samples, "failed": failed}
        self._folder.commit(weights.name, files=files, facts=facts)
        remove_tree(out / "parts" / weights.name)

    def _counted(self, weights: Weights, seen: Arrays) -> Iterator[Count | Sample]:
        classes = self._split.classes
        if not clean(seen).any():
            if weights.final:
                raise DataError(f"no usable test picture shows any of the {len(classes)} classes")
            return  # of the few that a snapshot sees
        yield from utility(seen, classes=len(classes))
        if weights.final and (files := part_files(self._folder.path, weights.name, probe=True)):
            yield from probed(seen, read_parts(files), classes=len(classes), seed=self._settings.seed)
        with np.load(here(classes_file(self._folder.path, weights.name))) as arrays:
            targets_seen = {name: arrays[name] for name in arrays.files}
        yield from attacked(seen, targets_seen, self._goals, classes)


def _weights(settings: EvaluateSettings) -> Iterator[Weights]:
    for arm, path in ((arm, training_folder(told)) for arm, told in settings.arms.items()):
        trained = StageFolder.open(path, stage="train")
        for samples, folder in snapshots(path) if settings.curves else ():
            name = f"{arm}_{samples:012d}"
            yield Weights(name=name, arm=arm, folder=folder, final=False, samples=samples)
        yield Weights(
            name=arm, arm=arm, folder=model_folder(path), final=True, samples=trained.facts["samples"]
        )


def _encode_tasks(waiting: Sequence[Weights], split: Split, out: Path) -> Iterator[EncodeTask]:
    """Every part for every few sets of weights, less what is done: those few first, then the next."""
    finals = [weights for weights in waiting if weights.final]
    on_the_way = [weights for weights in waiting if not weights.final]
    for group in (*_groups(finals), *_groups(on_the_way)):
        quotas = [(part, False, -1 if group[0].final else most) for part, most in split.curve]
        quotas += [(part, True, most) for part, most in split.probe if group[0].final]
        for part, probe, most in quotas:
            left = tuple(one for one in group if not exists(part_file(out, one.name, part, probe=probe)))
            if most and left:
                yield EncodeTask(part=part, probe=probe, weights=left, most=most)


def _groups(weights: Sequence[Weights]) -> list[Sequence[Weights]]:
    starts = range(0, len(weights), WEIGHTS_AT_ONCE)
    return [weights[start : start + WEIGHTS_AT_ONCE] for start in starts]


def _squares(pictures: Iterator[bytes], encoder: Encoder) -> Any:
    facts = encoder.facts
    return np.stack([to_square(decode_image(data), facts.side, fit=facts.fit) for data in pictures])


def _is_drawn(count: Count) -> bool:
    """Whether a curve shows it: attacks as wholes, where there was a trial."""
    whole = count.attack is None or is_whole(count.attack)
    return count.metric in CURVE_METRICS and bool(count.trials) and whole


def _records_file(out: Path, weights: Weights) -> Path:
    return out / "records" / f"{weights.name}.json"


def _benchmark_file(out: Path, weights: Weights) -> Path:
    return out / "records" / f"{weights.name}_clip_benchmark.json"


def _curve_file(out: Path, weights: Weights) -> Path:
    return out / "curves" / f"{weights.name}.json"


def _curve_line(count: Count, weights: Weights) -> dict[str, Any]:
    return {
        "arm": weights.arm,
        "attack": count.attack,
        "metric": count.metric,
        "samples": weights.samples,
        "value": round(count.hits / count.trials, 6),
    }
