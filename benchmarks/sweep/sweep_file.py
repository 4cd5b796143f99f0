"""A sweep file: what to attack, how hard, how to defend, how often.

    label = "article_type"
    shards = "$ROCLIP_DATA/fashion/train/{00000..00002}.tar"
    test_shards = "$ROCLIP_DATA/fashion/test/00000.tar"
    methods = ["roclip_final"]      # clip and clip_augmented come by themselves
    models = ["roclip-rn-64"]
    seeds = [0, 1, 2]

    [[attacks]]
    spec = "patch:rate={rate}"      # one training per rate, method, seed and model
    rates = [0.003, 0.01]

    [[attacks]]
    name = "both"                   # one training carries both: their cells are not independent
    together = ["patch:rate=0.01", "targeted:captions={rate}"]
    rates = [10, 30]

    [train]                         # settings of training, for all
    epochs = 4

    [method.often]                  # a method of one's own
    method = "roclip"
    match_every = 640

Everything is checked before anything runs, and a key that nobody reads is an error.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.sweep.methods import COMMON_KEYS, Arm, arms_of, own_methods, require_known
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.scan.stage import ScanSettings

PRESETS = Path(__file__).parent
RATE = "{rate}"
ATTACK_KEYS = ("name", "spec", "together", "rates", "seeds")
RENDERED_KEYS = ("pairs", "shards", "test_pairs", "seed")
RESOURCE_KEYS = ("cores", "gpus", "ranks")
SCAN_KEYS = tuple(each.name for each in fields(ScanSettings) if each.name not in {"store", "index"})
SCALED_TRAIN = ("samples", "warmup", "pool_size", "match_every", "match_for")
ATTACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
CLEAN = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRow:
    """One attack of a sweep, or several that share each training.

    Attributes:
        name: what tables call it.
        specs: attack specifications, with {rate} where the rate goes.
        rates: what to put there, from low to high; () where no spec asks for one.
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
        if any(not _is_number(rate) or rate <= 0 for rate in self.rates) or len(set(self.rates)) < len(
            self.rates
        ):
            raise ConfigError(f"rates of attack {self.name!r} are {list(self.rates)}, wanted numbers above 0")

    def specs_at(self, rate: float | None) -> tuple[str, ...]:
        """The specifications with the rate put in."""
        text = "" if rate is None else f"{rate:g}" if rate < 1 else str(int(rate))
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
    """A checked sweep file. See the module for what a file looks like.

    Attributes:
        name: the file's, without its ending.
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
        if any(type(seed) is not int or seed < 0 for row in (self, *self.attacks) for seed in row.seeds):
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
        return replace(
            self,
            shards=expand_list(self.shards)[: math.ceil(scale * len(expand_list(self.shards)))],
            rendered=rendered,
            samples=tuple(max(1, round(scale * samples)) for samples in self.samples),
            train=_scaled(self.train, scale),
            model_train={model: _scaled(train, scale) for model, train in self.model_train.items()},
            arms=tuple(replace(arm, train=_scaled(arm.train, scale)) for arm in self.arms),
        )


def load_sweep(name: str, *, changes: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, or the preset of that name.

    Args:
        name: path of a TOML file, or the name of a preset.
        changes: ``KEY=VALUE`` in TOML, put in place of what the file says.

    Raises:
        ConfigError: there is no such file, it is not TOML, or it says something that makes no sense.
    """
    path = PRESETS / f"{name}.toml" if re.fullmatch(r"[a-z0-9_]+", name) else Path(name)
    known = sorted(preset.stem for preset in PRESETS.glob("*.toml") if preset.stem != "published")
    if not path.is_file() or path.stem == "published":
        raise ConfigError(f"there is no sweep {name!r}: wanted a TOML file, or one of {', '.join(known)}")
    text = path.read_text("utf-8")
    try:
        values = tomllib.loads(text)
        for change in changes:
            values |= tomllib.loads(change)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"sweep {name!r} with {list(changes)} is not TOML: {error}") from error
    if "rendered" in values and any("shards" in tomllib.loads(change) for change in changes):
        del values["rendered"]
    return sweep_from(values, name=path.stem)


def sweep_from(values: Mapping[str, Any], *, name: str) -> Sweep:
    """A Sweep from the tables of a file. Raises ConfigError as load_sweep() does."""
    own = {each.name for each in fields(Sweep)} - {"name", "arms", "model_train"}
    known = sorted(own | {"methods", "augmentations", "method", "model", "about"})
    require_known(values, known, where=f"sweep {name!r}")
    arms = arms_of(
        _listed(values, "methods"),
        _listed(values, "augmentations") or ("mild",),
        own_methods(values.get("method", {})),
    )
    train = dict(values.get("train", {}))
    require_known(train, COMMON_KEYS, where="[train]")
    for model, table in values.get("model", {}).items():
        require_known(table, COMMON_KEYS, where=f"[model.{model}]")
    require_known(values.get("scan", {}), SCAN_KEYS, where="[scan]")
    rendered, resources = dict(values.get("rendered", {})), dict(values.get("resources", {}))
    require_known(rendered, RENDERED_KEYS, where="[rendered]")
    require_known(resources, RESOURCE_KEYS, where="[resources]")
    return Sweep(
        name=name,
        label=str(values.get("label", "")),
        shards=tuple(expand_variables(each) for each in _listed(values, "shards")),
        test_shards=tuple(expand_variables(each) for each in _listed(values, "test_shards")),
        rendered=Rendered(**rendered) if "rendered" in values else None,
        classes=int(values.get("classes", 30)),
        attacks=tuple(_attack_row(table) for table in values.get("attacks", [])),
        arms=arms,
        models=_listed(values, "models"),
        seeds=_listed(values, "seeds") or (0,),
        samples=_listed(values, "samples"),
        train=train,
        model_train=values.get("model", {}),
        scan=values.get("scan", {}),
        clean=bool(values.get("clean", True)),
        resources=Resources(**resources),
    )


def expand_variables(text: str) -> str:
    """Put environment variables in.

    Raises:
        ConfigError: one of them is not set.
    """
    expanded = os.path.expandvars(text)
    if left := re.search(r"\$\{?(\w+)", expanded):
        raise ConfigError(f"{text!r} names the environment variable {left[1]}, which is not set")
    return expanded


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


def _attack_row(table: Mapping[str, Any]) -> AttackRow:
    require_known(table, ATTACK_KEYS, where="[[attacks]]")
    if ("spec" in table) == ("together" in table):
        raise ConfigError("[[attacks]] wants one of spec (one attack) and together (a list of them)")
    specs = tuple(table.get("together", ())) or (table["spec"],)
    return AttackRow(
        name=table.get("name") or "+".join(spec.partition(":")[0] for spec in specs),
        specs=specs,
        rates=tuple(sorted(_listed(table, "rates"))),
        seeds=_listed(table, "seeds"),
    )


def _listed(values: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """A list of a file; one value alone counts as a list of one."""
    value = values.get(key, ())
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _scaled(train: Mapping[str, Any], scale: float) -> dict[str, Any]:
    return {
        key: max(1, round(scale * value)) if key in SCALED_TRAIN and value else value
        for key, value in train.items()
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
