"""A sweep, cell by cell.

A cell is one training and what was measured on it. Its identity is the fingerprint of everything
that decides its result and of nothing else: not of the sweep's name, nor of the method's, nor of
where it runs: shards below $ROCLIP_DATA are named by that, rendered ones by how they are made. So
the same cell of two sweeps in one folder is trained once, a sweep can grow and move to another
machine, and cells on clean shards are shared by all attacks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.sweep.methods import UNDEFENDED, Arm
from benchmarks.sweep.settings import CLEAN, AttackRow, Rendered, Sweep
from roclip_sanitize.attacks.contract import Attack
from roclip_sanitize.attacks.specs import build_attacks
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.runfiles import fingerprint
from roclip_sanitize.sanitize import YOUNG_CLIPS
from roclip_sanitize.scan.settings import BESIDE, ScanSettings
from roclip_sanitize.training.settings import METHOD, TrainSettings
from roclip_sanitize.training.uses import is_read

DATA = "ROCLIP_DATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The shards of a sweep, one by one.

    Attributes:
        shards: to train on.
        test_shards: never trained on.
        label: JSON field that holds a pair's class.
        classes: how many of the commonest labels count as classes.
        rendered: how they were made, if the sweep made them.
    """

    shards: tuple[Path, ...]
    test_shards: tuple[Path, ...]
    label: str
    classes: int
    rendered: Rendered | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values: what is rendered is the same in every folder."""
        where: dict[str, Any] = {
            "shards": [portable(path) for path in self.shards],
            "test_shards": [portable(path) for path in self.test_shards],
        }
        made = where if self.rendered is None else {"rendered": asdict(self.rendered)}
        return {**made, "label": self.label, "classes": self.classes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoning:
    """Shards with attacks planted in them; or the clean ones, where ``specs`` is ().

    Attributes:
        corpus: what is poisoned.
        specs: the attacks.
        seed: decides every draw; 0 for clean shards, which draw nothing.
    """

    corpus: Corpus
    specs: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Its identity: sixteen hex digits."""
        return fingerprint(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Everything that decides it, as plain values: attacks by all parameters, in whatever words."""
        attacks = build_attacks(self.specs) if self.specs else {}
        return {
            "corpus": self.corpus.to_json(),
            "attacks": [{"name": name, **_told(attack)} for name, attack in attacks.items()],
            "seed": self.seed,
        }


# Told in full, so that a cell measured with other defaults is another cell.
SCAN_DEFAULTS = {
    each.name: list(each.default) if isinstance(each.default, tuple) else each.default
    for each in fields(ScanSettings)
    if each.name not in {"store", "index", *BESIDE}
} | {"young_clips": YOUNG_CLIPS}


def cleaning(scan: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's [scan] table as SanitizeSettings has it, where the number of young CLIPs stands apart."""
    told = dict(scan)
    return {"young_clips": told.pop("young_clips", YOUNG_CLIPS), "scan": told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training of a sweep.

    Attributes:
        poisoning: the shards it is trained on.
        attack: name of the sweep's row, "clean" for clean shards.
        rate: of the attack; None where it has none.
        arm: the sweep's column.
        model: open_clip name.
        seed: of poisons and training.
        train: all settings of training but shards, model and seed.
        scan: settings of the scan, if the arm trains on what it keeps.
    """

    poisoning: Poisoning
    attack: str
    rate: float | None
    arm: Arm
    model: str
    seed: int
    train: Mapping[str, Any]
    scan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its identity: sixteen hex digits."""
        return fingerprint(self.to_json())

    @property
    def length(self) -> str:
        """How long it trains: "49,920 pairs", or "4 epochs" of the poisoned shards."""
        samples = self.train["samples"]
        return f"{samples:,} pairs" if samples else f"{self.settings(()).epochs} epochs"

    def to_json(self) -> dict[str, Any]:
        """Everything that decides its result, as plain values."""
        return {
            "poisoning": self.poisoning.to_json(),
            "scan": self._scan_told() if self.arm.scan else None,
            "train": self.settings(self.poisoning.corpus.shards).to_json() | {"shards": []},
        }

    def _scan_told(self) -> dict[str, Any]:
        """Settings of the scan, defaults included."""
        # Poisoned shards tell the seed of their scan. Clean ones do not: cells of several seeds share them.
        seed = {"seed": self.seed} if self.seed != self.poisoning.seed else {}
        return {**SCAN_DEFAULTS, **self.scan, **seed}

    def settings(self, shards: Sequence[Path], **changes: Any) -> TrainSettings:
        """What its training is told.

        Raises:
            ConfigError: a setting is out of range, or of the wrong kind.
        """
        told = {**self.train, **changes}
        try:
            return TrainSettings(shards=tuple(shards), model=self.model, seed=self.seed, **told)
        except TypeError as error:
            raise ConfigError(
                f"settings of training {told} have a value of the wrong kind: {error}"
            ) from error

    def __str__(self) -> str:
        rate = "" if self.rate is None else f" at {self.rate:g}"
        return f"{self.attack}{rate} · {self.arm.name} · {self.model} · seed {self.seed} · {self.length}"


def cells_of(sweep: Sweep, corpus: Corpus, *, rates: Mapping[str, float | None] | None = None) -> list[Cell]:
    """All cells of a sweep: poisonings in the order of its rows, so that each is prepared once.

    Args:
        sweep: what to run.
        corpus: its shards.
        rates: attack → the one of its rates to run; attacks that are not in it are left out.

    Raises:
        ConfigError: an attack, a method or a setting of training is not what it should be.
    """
    clean = [(CLEAN, None, Poisoning(corpus=corpus, specs=(), seed=0), sweep.seeds)] if sweep.clean else []
    poisoned = [
        (row.name, rate, Poisoning(corpus=corpus, specs=row.specs_at(rate), seed=seed), (seed,))
        for row in sweep.attacks
        for rate in _rates_of(row, rates)
        for seed in row.seeds or sweep.seeds
    ]
    return [
        Cell(
            poisoning=poisoning,
            attack=attack,
            rate=rate,
            arm=arm,
            model=model,
            seed=seed,
            train=train,
            scan=sweep.scan,
        )
        for attack, rate, poisoning, seeds in [*clean, *poisoned]
        for seed in seeds
        for model in sweep.models
        for arm in sweep.arms
        for train in _trainings(sweep, model, arm)
    ]


def undefended(cells: Sequence[Cell]) -> list[Cell]:
    """Those that train plain CLIP on everything, without augmentation: the control of all others."""
    return [cell for cell in cells if cell.arm.name == UNDEFENDED]


def _rates_of(row: AttackRow, chosen: Mapping[str, float | None] | None) -> Sequence[float | None]:
    rates = row.rates or (None,)
    if chosen is None:
        return rates
    if row.name not in chosen:
        return ()
    if chosen[row.name] not in rates:
        raise ConfigError(f"rate {chosen[row.name]} of {row.name!r} is none of the sweep's {list(rates)}")
    return (chosen[row.name],)


def _trainings(sweep: Sweep, model: str, arm: Arm) -> Iterator[dict[str, Any]]:
    """Settings of training, one set per length: the sweep's, the model's, then the method's own.

    The first two are for all methods, and each is told those that it reads.
    """
    told = {**sweep.train, **sweep.model_train.get(model, {}), **arm.train}
    given = {"method": METHOD, **told}
    told = {name: value for name, value in told.items() if name in arm.train or is_read(name, given)}
    for samples in sweep.samples or (told.get("samples", 0),):
        yield {**told, "samples": samples}


def portable(path: Path) -> str:
    """A path by the name that it has on every machine: below $ROCLIP_DATA if it lies there."""
    root = os.environ.get(DATA)
    if root and path.is_relative_to(root):
        return f"${DATA}/{path.relative_to(root)}"
    return str(path)


def _told(attack: Attack) -> dict[str, Any]:
    parameters = {each.name: getattr(attack, each.name) for each in fields(attack)}  # type: ignore[arg-type]
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    return {"attack": attack.facts.name, "parameters": lists}
