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

    [scan]                          # settings of the scan, for methods that train on what it keeps
    young_clips = 0                 # and how many CLIPs of one epoch look again

    [method.often]                  # a method of one's own
    method = "roclip"
    match_every = 640

Everything is checked before anything runs, and a key that nobody reads is an error.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.sweep.cells import SCAN_DEFAULTS
from benchmarks.sweep.methods import COMMON_KEYS, arms_of, own_methods, require_known
from benchmarks.sweep.settings import AttackRow, Rendered, Resources, Sweep
from roclip_sanitize.errors import ConfigError

PRESETS = Path(__file__).parent
ATTACK_KEYS = ("name", "spec", "together", "rates", "seeds")
RENDERED_KEYS = ("pairs", "shards", "test_pairs", "seed")
RESOURCE_KEYS = ("cores", "gpus", "ranks")
SCAN_KEYS = tuple(SCAN_DEFAULTS)


def load_sweep(name: str, *, changes: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, or the preset of that name.

    Args:
        name: path of a TOML file, or the name of a preset.
        changes: ``KEY=VALUE`` in TOML, put in place of what the file says; of a table, in place of the
            keys that are named.

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
            _put(tomllib.loads(change), into=values)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"sweep {name!r} with {list(changes)} is not TOML: {error}") from error
    if "rendered" in values and any("shards" in tomllib.loads(change) for change in changes):
        del values["rendered"]
    try:
        return sweep_from(values, name=path.stem)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"sweep {name!r} has a value of the wrong kind: {error}") from error


def sweep_from(values: Mapping[str, Any], *, name: str) -> Sweep:
    """A Sweep from the tables of a file. Raises ConfigError as load_sweep() does."""
    own = {each.name for each in fields(Sweep)} - {"name", "arms", "model_train"}
    known = sorted(own | {"methods", "augmentations", "method", "model"})
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
        about=str(values.get("about", "")),
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


def _put(change: Mapping[str, Any], *, into: dict[str, Any]) -> None:
    """Put values in place; tables are gone into, so that "train.epochs=1" leaves the rest of [train]."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _put(value, into=into[key])
        else:
            into[key] = value


def expand_variables(text: str) -> str:
    """Put environment variables in.

    Raises:
        ConfigError: one of them is not set.
    """
    expanded = os.path.expandvars(text)
    if left := re.search(r"\$\{?(\w+)", expanded):
        raise ConfigError(f"{text!r} names the environment variable {left[1]}, which is not set")
    return expanded


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
