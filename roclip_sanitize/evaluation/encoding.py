"""Test pictures → what a set of weights makes of them, part by part, on any number of workers.

A worker decodes a part once, a chunk at a time, and shows it to several sets of weights: clean,
and with every trigger of the ledger. What comes back is small: the best classes of each picture,
and, for a trained model, its vectors. Batches are cut within a part, so that the numbers do not
depend on which worker had it.

    OUT/parts/NAME/00000.npz     one part of the test set, by one set of weights
    OUT/parts/NAME/probe_00000.npz   the same of labelled training pairs, for the linear probe

Dimension key: N pictures of a chunk or part, S side in pixels, D width, C classes, K best of them.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.triggers import stamp
from roclip_sanitize.decoding import chunked
from roclip_sanitize.encoder_facts import Encoder
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.evaluation.attack_success import TARGETED_CUTOFFS
from roclip_sanitize.evaluation.goals import Goals
from roclip_sanitize.evaluation.retrieval import caption_codes
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.test_sets import ShardSet, TestPart, TestPicture, TestSet, open_test_set
from roclip_sanitize.evaluation.zero_shot import top_classes
from roclip_sanitize.images import Fit, to_square
from roclip_sanitize.runfiles import write_bytes
from roclip_sanitize.storage import here, names_in

SHOWN_AT_ONCE = 128  # pictures: with all triggers at once, they bound a worker's memory
SEEN_CLASSES = max(TARGETED_CUTOFFS)
NO_CLASS = -1
OF_TEST_PICTURES = 0x7E57  # poisons draw by seed, shard and row, too: none is to be tested with its own noise

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One set of weights to measure.

    Attributes:
        name: of its files and marker.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTask:
    """A part of the test set, or of the probe's training pairs, and who is to look at it.

    Attributes:
        part: which.
        probe: whether it is of the probe's training pairs.
        weights: who is to look at it.
        most: how many labelled pictures are wanted at most; -1 for all.
    """

    part: TestPart
    probe: bool
    weights: tuple[Weights, ...]
    most: int = -1


class EncodeWorker:
    """Shows parts to weights and keeps what they made of them.

    Args:
        settings: the evaluation's.
        classes: names to choose from.
        out: the evaluation's folder, with the class vectors of all weights.
    """

    def __init__(self, settings: EvaluateSettings, classes: Sequence[str], out: Path) -> None:
        self._settings, self._out = settings, out
        self._number = {name: number for number, name in enumerate(classes)}
        self._ledger = Ledger.open(settings.ledger) if settings.ledger else None
        self._goals = Goals.of(self._ledger)
        self._sets: dict[bool, TestSet] = {  # by whether it is the probe's
            False: open_test_set(settings),
            True: ShardSet(settings.probe_shards, settings.label),
        }
        self._encoders: dict[str, Encoder] = {}

    def __call__(self, task: EncodeTask) -> None:
        self._encoders = {
            weights.name: self._encoders.get(weights.name)
            or open_encoder(str(weights.folder), precision="float32")
            for weights in task.weights
        }
        class_CD = {
            weights.name: np.load(here(classes_file(self._out, weights.name)))["class_CD"]
            for weights in task.weights
        }
        made: dict[str, list[Arrays]] = {weights.name: [] for weights in task.weights}
        failed = Counter[str]()
        for chunk in chunked(self._shown(task, failed), SHOWN_AT_ONCE):
            common = self._common(task, chunk)
            pictures = _Squares(chunk)
            for weights in task.weights:
                look = _Look(self._encoders[weights.name], class_CD[weights.name], weights.final, pictures)
                made[weights.name].append(
                    common | (look.image() if task.probe else self._seen(task.part, chunk, common, look))
                )
        for weights in task.weights:
            file = part_file(self._out, weights.name, task.part, probe=task.probe)
            write_arrays(file, _joined(made[weights.name]) | {"failed": np.array(failed.total())})

    def _shown(self, task: EncodeTask, failed: Counter[str]) -> Iterator[TestPicture]:
        """The part's pictures; where only so many are wanted, labelled ones that are no targets."""
        left = task.most
        for picture in self._sets[task.probe].read(task.part, failed):
            if task.most < 0:
                yield picture
            elif picture.label in self._number and picture.uid not in self._goals.target_uids:
                if not left:
                    return
                left -= 1
                yield picture

    def _common(self, task: EncodeTask, chunk: Sequence[TestPicture]) -> Arrays:
        """What does not depend on weights."""
        label_N = np.array([self._number.get(picture.label, NO_CLASS) for picture in chunk])
        if task.probe:
            return {"label": label_N}
        return {
            "label": label_N,
            "target": np.array([picture.uid in self._goals.target_uids for picture in chunk]),
            "code": caption_codes([picture.caption for picture in chunk]),
        }

    def _seen(self, part: TestPart, chunk: Sequence[TestPicture], common: Arrays, look: _Look) -> Arrays:
        """What one set of weights makes of a chunk."""
        seen = look.image() | {"top": look.top_classes()}
        for number, (attack, goal) in enumerate(self._goals.backdoors):
            assert self._ledger is not None
            trigger = self._ledger.trigger(attack, goal.variant)
            wanted_N = (common["label"] >= 0) & (common["label"] != self._number[goal.target])
            obeyed_N = np.full(len(chunk), NO_CLASS)
            if rows := np.flatnonzero(wanted_N & ~common["target"]).tolist():
                key = (attack, goal.variant)
                streams = [self._rng(part, chunk[row].row) for row in rows]
                obeyed_N[rows] = look.top_of_stamped(key, rows, trigger, streams)
            seen[f"triggered_{number}"] = obeyed_N
        if self._sets[False].captioned and look.final:
            seen |= self._captions(part, chunk, look)
        return seen

    def _captions(self, part: TestPart, chunk: Sequence[TestPicture], look: _Look) -> Arrays:
        """Vectors of the chunk's captions, and of the same with text triggers in them."""
        captions = [picture.caption for picture in chunk]
        found = {"caption": look.encoder.encode_captions(captions)}
        for number, (attack, goal) in enumerate(self._goals.text_backdoors):
            assert self._ledger is not None
            trigger = self._ledger.text_trigger(attack, goal.variant)
            spoiled = [trigger.put(each.caption, self._rng(part, each.row)) for each in chunk]
            found[f"spoiled_{number}"] = look.encoder.encode_captions(spoiled)
        return found

    def _rng(self, part: TestPart, row: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, int(part.name), row, OF_TEST_PICTURES])


class _Squares:
    """A chunk's pictures at the sizes that encoders want, clean and stamped, each made once."""

    def __init__(self, chunk: Sequence[TestPicture]) -> None:
        self._chunk = chunk
        self._made: dict[Any, NDArray[np.uint8]] = {}

    def clean(self, side: int, fit: Fit) -> NDArray[np.uint8]:
        """(N, S, S, 3) uint8."""
        return self._once((side, fit), lambda: [to_square(p.image, side, fit=fit) for p in self._chunk])

    def stamped(
        self,
        key: tuple[str, str],
        rows: Sequence[int],
        trigger: Any,
        streams: Sequence[np.random.Generator],
        kind: tuple[int, Fit],
    ) -> NDArray[np.uint8]:
        """Some rows with a trigger on them, stamped before resizing, as poisons are: (len(rows), S, S, 3)."""
        side, fit = kind

        def make() -> list[NDArray[np.uint8]]:
            pixels = (np.asarray(self._chunk[row].image) for row in rows)
            stamped = (stamp(one, trigger, rng) for one, rng in zip(pixels, streams, strict=True))
            return [to_square(one, side, fit=fit) for one in stamped]

        return self._once((key, side, fit), make)

    def _once(self, key: Any, make: Any) -> NDArray[np.uint8]:
        if key not in self._made:
            self._made[key] = np.stack(make())
        return self._made[key]


class _Look:
    """One set of weights, looking at one chunk."""

    def __init__(
        self, encoder: Encoder, class_CD: NDArray[np.float32], final: bool, squares: _Squares
    ) -> None:
        self.encoder, self.final = encoder, final
        self._class_CD, self._squares = class_CD, squares
        self._kind = (encoder.facts.side, encoder.facts.fit)
        self._image_ND = encoder.encode_images(squares.clean(*self._kind))

    def image(self) -> Arrays:
        """The vectors, of a trained model."""
        return {"image": self._image_ND} if self.final else {}

    def top_classes(self) -> NDArray[np.int64]:
        return top_classes(self._image_ND, self._class_CD, most=SEEN_CLASSES)

    def top_of_stamped(
        self,
        key: tuple[str, str],
        rows: Sequence[int],
        trigger: Any,
        streams: Sequence[np.random.Generator],
    ) -> NDArray[np.int64]:
        """What the rows are called with a trigger on them."""
        pixels = self._squares.stamped(key, rows, trigger, streams, self._kind)
        return top_classes(self.encoder.encode_images(pixels), self._class_CD, most=1)[:, 0]


def classes_file(out: Path, name: str) -> Path:
    """Where a set of weights' class vectors lie, and what it calls the targets."""
    return out / "parts" / name / "classes.npz"


def part_file(out: Path, name: str, part: TestPart, *, probe: bool = False) -> Path:
    """Where one part, seen by one set of weights, lies."""
    return out / "parts" / name / f"{'probe_' if probe else ''}{part.name}.npz"


def part_files(out: Path, name: str, *, probe: bool = False) -> list[Path]:
    """The parts that a set of weights has seen, in order."""
    folder = out / "parts" / name
    wanted = re.compile(r"probe_.*\.npz" if probe else r"[0-9].*\.npz")
    files = [each for each in names_in(folder) if wanted.fullmatch(each)]
    return [folder / each for each in sorted(files, key=lambda each: (len(each), each))]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_parts(files: Sequence[Path]) -> Arrays:
    """Named arrays of several parts, one behind the other, and how many pictures failed in all."""
    parts = list[Arrays]()
    for file in files:
        with np.load(here(file)) as arrays:
            parts.append({name: arrays[name] for name in arrays.files})
    failed = sum(int(part.pop("failed")) for part in parts)
    return _joined([part for part in parts if part]) | {"failed": np.array(failed)}


def _joined(chunks: Sequence[Arrays]) -> Arrays:
    by_name = defaultdict[str, list[NDArray[Any]]](list)
    for chunk in chunks:
        for name, array in chunk.items():
            by_name[name].append(array)
    return {name: np.concatenate(arrays) for name, arrays in by_name.items()}
