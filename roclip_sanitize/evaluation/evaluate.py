"""The ``evaluate`` stage: trained models → results.json and curves.json.

Each task is one set of weights: a model, or a snapshot taken while it trained. A worker reads
the test shards once and measures one set of weights after the other; snapshots see a part of
the test pictures, since they only draw a curve.

    OUT/records/ARM.json      records of the trained model
    OUT/curves/ARM_003.json   the same for a snapshot, attack success and zero-shot only

Dimension key: N test pictures, S side in pixels, D width, C classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.triggers import stamp
from roclip_sanitize.decoding import decode_pairs
from roclip_sanitize.encoder_facts import Encoder
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.evaluation.attack_success import Count, targeted_success, trigger_success
from roclip_sanitize.evaluation.results import Result, read_results, write_results
from roclip_sanitize.evaluation.retrieval import retrieval_ranks
from roclip_sanitize.evaluation.zero_shot import TEMPLATES, class_vectors, image_vectors, predict
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.images import Fit, decode_image, to_square
from roclip_sanitize.records import Failure
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.shards import Pair, Shard

RETRIEVAL_CUTOFFS = (1, 5, 10)
CURVE_METRICS = ("attack_success", "zero_shot_top1")
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to measure on what.

    Attributes:
        arms: name → folder of a finished training.
        test_shards: pairs that no arm has seen.
        label: field that holds a pair's class.
        ledger: the poison folder, or None where no attack was planted.
        classes: names to choose from; () takes the ledger's, else the commonest test labels.
        class_count: how many of the commonest, where they are taken from the test shards.
        templates: captions with {} for the class name.
        curves: whether to measure snapshots too.
        curve_pictures: how many test pictures a snapshot sees.
        seed: of triggers' places.
    """

    arms: dict[str, Path]
    test_shards: tuple[Path, ...]
    label: str
    ledger: Path | None = None
    classes: tuple[str, ...] = ()
    class_count: int = 30
    templates: tuple[str, ...] = TEMPLATES
    curves: bool = True
    curve_pictures: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("nothing to evaluate: name at least one trained folder")
        for arm in self.arms:
            if not ARM_NAME.fullmatch(arm):
                raise ConfigError(f"arm {arm!r} is no name: wanted letters, digits, _ . + -")
        if not self.label:
            raise ConfigError("label is empty: wanted the JSON field that holds a pair's class")
        if self.class_count < 2 or self.curve_pictures < 1:
            raise ConfigError("class-count must be 2 or more, curve-pictures 1 or more")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self) | {
            "arms": {arm: str(path) for arm, path in self.arms.items()},
            "test_shards": [str(path) for path in self.test_shards],
            "ledger": str(self.ledger) if self.ledger else "",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsTask:
    """One set of weights to measure.

    Attributes:
        name: of the marker.
        arm: whose it is.
        folder: model.json and weights.
        epoch: 0 for the trained model, else which snapshot.
        samples: pairs trained on by then; 0 for the trained model.
    """

    name: str
    arm: str
    folder: Path
    epoch: int
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
    results = [result for task in tasks if not task.epoch for result in read_results(_records_file(out, task))]
    write_results(out / "results.json", results)
    write_json(out / "curves.json", [line for task in tasks if task.epoch for line in read_json(_records_file(out, task))])
    folder.finish({"arms": sorted(settings.arms)})
    return results


class EvaluateWorker:
    """Measures one set of weights after the other on the same test pictures."""

    def __init__(self, settings: EvaluateSettings, out: Path) -> None:
        self._settings = settings
        self._folder = StageFolder(out)
        self._pictures: dict[tuple[int, Fit], TestPictures] = {}

    def __call__(self, task: WeightsTask) -> str:
        from roclip_sanitize.encoder import open_encoder

        encoder = open_encoder(str(task.folder))
        kind = (encoder.facts.side, encoder.facts.fit)
        if kind not in self._pictures:
            self._pictures[kind] = TestPictures(self._settings, side=kind[0], fit=kind[1])
        counts = list(self._pictures[kind].measure(encoder, curve=bool(task.epoch)))
        path = _records_file(self._folder.path, task)
        if task.epoch:
            write_json(path, [_curve_line(count, task) for count in counts if count.metric in CURVE_METRICS])
        else:
            write_results(path, [_result(count, task.arm, self._settings.seed) for count in counts])
        self._folder.commit(task.name, files=[path], facts={"arm": task.arm, "epoch": task.epoch})
        return task.name


class TestPictures:
    """The test shards, decoded for one kind of model."""

    __test__ = False  # no pytest class

    def __init__(self, settings: EvaluateSettings, *, side: int, fit: Fit) -> None:
        self._settings = settings
        self._side, self._fit = side, fit
        self._ledger = Ledger.open(settings.ledger) if settings.ledger else None
        self._pairs, self._image_NSS3 = self._read()
        self._classes = self._choose_classes()
        number = {name: index for index, name in enumerate(self._classes)}
        self._label_N = np.array([number.get(self._label(pair), -1) for pair in self._pairs])
        if not (self._label_N >= 0).any():
            raise DataError(f"no test pair has a label {settings.label!r} among the {len(number)} classes")

    def measure(self, encoder: Encoder, *, curve: bool) -> Iterator[Count]:
        """Everything there is to know of one set of weights; less of it for a curve."""
        labelled = np.flatnonzero(self._label_N >= 0)
        shown = labelled[: self._settings.curve_pictures] if curve else labelled
        class_CD = class_vectors(encoder, self._classes, self._settings.templates)
        image_ND = image_vectors(encoder, self._image_NSS3[shown])
        label_N, clean_N = self._label_N[shown], predict(image_ND, class_CD)
        yield Count(attack=None, metric="zero_shot_top1", hits=int((clean_N == label_N).sum()), trials=len(shown))
        for attack in self._ledger.attacks if self._ledger else ():
            yield from self._attack(attack, encoder, class_CD, shown, clean_N)
        if not curve:
            yield from self._retrieval(encoder)

    def _attack(
        self,
        attack: str,
        encoder: Encoder,
        class_CD: NDArray[np.float32],
        shown: NDArray[np.int64],
        clean_N: NDArray[np.int64],
    ) -> Iterator[Count]:
        assert self._ledger is not None
        label_N = self._label_N[shown]
        targets = self._ledger.targets_of(attack)
        if targets:
            target_class = predict(image_vectors(encoder, self._target_pictures(attack)), class_CD)
            yield from targeted_success(
                attack,
                targets=targets,
                target_class=target_class,
                clean_class_N=clean_N,
                label_N=label_N,
                classes=self._classes,
            )
            return
        triggered_N = predict(image_vectors(encoder, self._triggered(attack)[shown]), class_CD)
        yield from trigger_success(
            attack,
            target=self._classes.index(self._ledger.target(attack)),
            triggered_class_N=triggered_N,
            clean_class_N=clean_N,
            label_N=label_N,
        )

    def _retrieval(self, encoder: Encoder) -> Iterator[Count]:
        captions = [pair.caption for pair in self._pairs]
        parts = [captions[start : start + 512] for start in range(0, len(captions), 512)]
        caption_ND = np.concatenate([encoder.encode_captions(part) for part in parts])
        rank_2N = retrieval_ranks(image_vectors(encoder, self._image_NSS3), caption_ND, captions)
        for cutoff in RETRIEVAL_CUTOFFS:
            hits = int((rank_2N < cutoff).sum())
            yield Count(attack=None, metric=f"retrieval_r{cutoff}", hits=hits, trials=len(rank_2N))

    def _triggered(self, attack: str) -> NDArray[np.uint8]:
        """All test pictures with an attack's trigger, stamped before they are resized, as the poisons were."""
        if attack not in self._triggered_pictures:
            assert self._ledger is not None
            trigger = self._ledger.trigger(attack)
            squares = []
            for number, pair in enumerate(self._pairs):
                rng = np.random.default_rng([self._settings.seed, number])
                stamped = stamp(np.asarray(decode_image(pair.image)), trigger, rng)
                squares.append(to_square(stamped, self._side, fit=self._fit))
            self._triggered_pictures[attack] = np.stack(squares)
        return self._triggered_pictures[attack]

    @cached_property
    def _triggered_pictures(self) -> dict[str, NDArray[np.uint8]]:
        return {}

    def _target_pictures(self, attack: str) -> NDArray[np.uint8]:
        assert self._ledger is not None
        pictures = [self._ledger.picture(target) for target in self._ledger.targets_of(attack)]
        return np.stack([to_square(decode_image(data), self._side, fit=self._fit) for data in pictures])

    def _read(self) -> tuple[list[Pair], NDArray[np.uint8]]:
        failures: list[Failure] = []
        pairs, pictures = list[Pair](), list[NDArray[np.uint8]]()
        for path in self._settings.test_shards:
            with Shard(path) as shard:
                for pair, picture in decode_pairs(shard, side=self._side, fit=self._fit, failures=failures):
                    pairs.append(pair)
                    pictures.append(picture)
        if not pairs:
            raise DataError(f"no usable pair in the {len(self._settings.test_shards)} test shards")
        return pairs, np.stack(pictures)

    def _choose_classes(self) -> Sequence[str]:
        if self._settings.classes:
            return self._settings.classes
        if self._ledger:
            return self._ledger.classes
        counts = Counter(label for pair in self._pairs if (label := self._label(pair)))
        return [label for label, _ in counts.most_common(self._settings.class_count)]

    def _label(self, pair: Pair) -> str:
        return str(pair.fields.get(self._settings.label, ""))


def _tasks(settings: EvaluateSettings) -> Iterator[WeightsTask]:
    for arm, path in settings.arms.items():
        trained = StageFolder.open(path, stage="train")
        yield WeightsTask(name=arm, arm=arm, folder=path / "model", epoch=0, samples=0)
        snapshots = sorted((path / "snapshots").glob("epoch_*")) if settings.curves else []
        for epoch, snapshot in enumerate(snapshots, start=1):
            samples = trained.facts["samples_per_epoch"] * epoch
            yield WeightsTask(name=f"{arm}_{epoch:03d}", arm=arm, folder=snapshot, epoch=epoch, samples=samples)


def _records_file(out: Path, task: WeightsTask) -> Path:
    return out / ("curves" if task.epoch else "records") / f"{task.name}.json"


def _result(count: Count, arm: str, seed: int) -> Result:
    return Result.of_share(
        count.hits, count.trials, arm=arm, attack=count.attack, metric=count.metric, seed=seed
    )


def _curve_line(count: Count, task: WeightsTask) -> dict[str, Any]:
    return {
        "arm": task.arm,
        "attack": count.attack,
        "metric": count.metric,
        "epoch": task.epoch,
        "samples": task.samples,
        "value": round(count.hits / count.trials, 6),
    }
