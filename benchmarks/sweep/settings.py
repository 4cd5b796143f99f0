"""A checked sweep: what to attack, how hard, how to defend, how often."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.sweep.methods import Arm
from roclip_sanitize.errors import ConfigError

RATE = "{rate}"
SCALED_TRAIN = ("samples", "warmup", "pool_size", "match_every", "match_for")
ATTACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
CLEAN = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRow:
    """One attack of a sweep, or several that share each training.

    Attributes:
        name: what tables call it.
        specs: attack specifications, with {rate} where the rate goes.
        rates: what to put there, from low to high: numbers of pairs, shares below 1; () where no spec asks
            for one.
        seeds: instead of the sweep's; () for those.
    """

    name: str
    specs: tuple[str, ...]
    rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.specs or not ATTACK_NAME.fullmatch(self.name) or self.name == CLEAN:
            raise ConfigError(
                f"attack {self.name!r} wants a spec, and a name of letters, digits, _ . + - but not {CLEAN!r}"
            )
        asks = any(RATE in spec for spec in self.specs)
        if asks != bool(self.rates):
            found = "a spec with {rate} but no rates" if asks else "rates, but no spec with {rate}"
            raise ConfigError(f"attack {self.name!r} has {found}")
        if not all(map(_is_rate, self.rates)) or len(set(self.rates)) < len(self.rates):
            raise ConfigError(
                f"rates of attack {self.name!r} are {list(self.rates)}, "
                "wanted shares or whole numbers above 0"
            )

    def specs_at(self, rate: float | None) -> tuple[str, ...]:
        """The specifications with the rate put in."""
        text = "" if rate is None else repr(rate) if rate < 1 else str(int(rate))
        return tuple(spec.replace(RATE, text) for spec in self.specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A corpus of rendered scenes, made for the sweep.

    Attributes:
        pairs: to train on.
        shards: that they are spread over.
        test_pairs: held out, in a shard of their own.
        seed: of the corpus; the sweep's seeds are of poisons and trainings.
    """

    pairs: int = 7_000
    shards: int = 4
    test_pairs: int = 1_200
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one cell needs.

    Attributes:
        cores: threads of one training. Fixed by the sweep, not by the machine, since sums in another
            order differ in their last bits.
        gpus: GPUs that one cell holds.
        ranks: processes that share each training step; more than one runs cells one after the other.
    """

    cores: int = 2
    gpus: float = 0.0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.cores < 1 or self.gpus < 0 or self.ranks < 1:
            raise ConfigError(f"resources are {self}, wanted cores and ranks of 1 or more, gpus of 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All of a sweep; sweep_file.py reads one.

    Attributes:
        name: the file's, without its ending.
        about: what it is of, in a few words for whoever reads its table.
        label: JSON field that holds a pair's class.
        shards: shards to train on: brace ranges, paths or URLs; () where the corpus is rendered.
        test_shards: shards never trained on.
        rendered: what to render instead.
        classes: how many of the commonest labels count as classes.
        attacks: rows of the sweep.
        arms: its columns, controls included.
        models: open_clip names.
        seeds: of poisons and trainings.
        samples: lengths of training in pairs, one cell each; () for ``train``'s own.
        train: settings of training for all.
        model_train: further ones by model.
        scan: settings of the scan, for methods that train on what it keeps.
        clean: whether every method is trained on the clean shards, too.
        resources: what one cell needs.
    """

    name: str
    about: str = ""
    label: str
    shards: tuple[str, ...] = ()
    test_shards: tuple[str, ...] = ()
    rendered: Rendered | None = None
    classes: int = 30
    attacks: tuple[AttackRow, ...]
    arms: tuple[Arm, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    samples: tuple[int, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    model_train: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scan: Mapping[str, Any] = field(default_factory=dict)
    clean: bool = True
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        if self.rendered is None and not (self.shards and self.test_shards):
            raise ConfigError("a sweep wants shards and test_shards, or a [rendered] corpus")
        if self.rendered is not None and (self.shards or self.test_shards):
            raise ConfigError("a sweep has shards and [rendered]: wanted one of them")
        for what in ("label", "models", "seeds", "attacks"):
            if not getattr(self, what):
                raise ConfigError(f"a sweep wants {what}")
        seeds = [*self.seeds, *(seed for row in self.attacks for seed in row.seeds)]
        if any(type(seed) is not int or seed < 0 for seed in seeds):
            raise ConfigError("seeds are whole numbers of 0 or more")
        names = [row.name for row in self.attacks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two attacks are called {twice[0]!r}: give one of them a name of its own")

    def scaled(self, scale: float) -> Sweep:
        """The same sweep on a share of the shards, with schedules counted in pairs or steps cut alike.

        Poisons given as a share follow the pairs; those given as a count stay, since it is the
        count that makes an attack take. Epochs, batch size and rates of learning stay.

        Raises:
            ConfigError: the scale is not between 0 and 1.
        """
        if not 0 < scale <= 1:
            raise ConfigError(f"scale is {scale}, wanted more than 0 and at most 1")
        if scale == 1:
            return self
        rendered = self.rendered and replace(
            self.rendered, pairs=max(self.rendered.shards, round(scale * self.rendered.pairs))
        )
        tables = [self.train, *self.model_train.values(), *(arm.train for arm in self.arms)]
        batch = max((table["batch_size"] for table in tables if "batch_size" in table), default=1)
        shards = expand_list(self.shards)
        return replace(
            self,
            shards=shards[: math.ceil(scale * len(shards))],
            rendered=rendered,
            samples=tuple(max(1, round(scale * samples)) for samples in self.samples),
            train=_scaled(self.train, scale, batch),
            model_train={model: _scaled(train, scale, batch) for model, train in self.model_train.items()},
            arms=tuple(replace(arm, train=_scaled(arm.train, scale, batch)) for arm in self.arms),
        )


def expand_list(names: Sequence[str]) -> tuple[str, ...]:
    """Shards one by one, without looking whether they are there; "@FILE" holds one to a line.

    Raises:
        ConfigError: a file of names cannot be read, or a brace is left open.
    """
    from braceexpand import braceexpand

    shards = list[str]()
    for name in names:
        if name.startswith("@"):
            try:
                shards += [line for line in Path(name[1:]).read_text("utf-8").splitlines() if line.strip()]
            except OSError as error:
                raise ConfigError(
                    f"the list of shards {name[1:]} cannot be read: {error.strerror}"
                ) from error
            continue
        try:
            shards += [shard for part in name.split("::") for shard in braceexpand(part.strip())]
        except ValueError as error:
            raise ConfigError(f"{name!r} leaves a brace open: wanted something like '{{0..9}}'") from error
    return tuple(shards)


def _scaled(train: Mapping[str, Any], scale: float, batch: int) -> dict[str, Any]:
    """Schedules cut; but a pool holds a batch at least."""
    return {
        key: max(batch if key == "pool_size" else 1, round(scale * value))
        if key in SCALED_TRAIN and value
        else value
        for key, value in train.items()
    }


def _is_rate(value: object) -> bool:
    """Whether an attack can be planted so often: a number of pairs, or a share of them."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value > 0 and (value < 1 or value % 1 == 0)
