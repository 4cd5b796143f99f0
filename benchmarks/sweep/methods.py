"""The ways to train that a sweep can name.

A method says what it is trained on (everything, or what a scan kept) and which training settings
it fixes. What it leaves open comes from the sweep: above all the augmentation, so that plain CLIP
and RoCLIP are always compared under the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.settings import AUGMENTATIONS, UNDECIDING, TrainSettings

OF_THE_CELL = frozenset(
    {"shards", "model", "pairs", "synonyms", "seed", "val_shards", "publish", *UNDECIDING}
)
TRAIN_KEYS = tuple(each.name for each in fields(TrainSettings) if each.name not in OF_THE_CELL)
COMMON_KEYS = tuple(key for key in TRAIN_KEYS if key not in {"method", "pairing", "augmentation"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One column of a sweep: a method under one augmentation.

    Attributes:
        name: what tables call it.
        scan: whether it trains only on the pairs that a scan kept.
        train: settings of training that it fixes, by the names of TrainSettings.
    """

    name: str
    scan: bool = False
    train: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    arm.name: arm
    for arm in (
        Arm(name="clip", train={"method": "clip", "augmentation": "none"}),
        Arm(name="clip_augmented", train={"method": "clip"}),
        Arm(name="roclip_first", train={"method": "roclip", "pairing": "first"}),
        Arm(name="roclip_final", train={"method": "roclip", "pairing": "final"}),
        Arm(name="roclip_both", train={"method": "roclip", "pairing": "both"}),
        Arm(name="roclip_released", train={"method": "roclip_released"}),
        Arm(name="safeclip", train={"method": "safeclip"}),
        Arm(name="consensus", train={"method": "consensus"}),
        Arm(name="scan_clip", scan=True, train={"method": "clip", "augmentation": "none"}),
        Arm(name="scan_clip_augmented", scan=True, train={"method": "clip"}),
        Arm(name="scan_roclip_final", scan=True, train={"method": "roclip", "pairing": "final"}),
        Arm(name="scan_consensus", scan=True, train={"method": "consensus"}),
    )
}
UNDEFENDED = "clip"
SAME_AUGMENTATION = "clip_augmented"


def own_methods(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Arm]:
    """The known methods and those that a sweep file adds in ``[method.NAME]`` tables.

    Raises:
        ConfigError: a table has the name of a known method, or a key that training does not know.
    """
    methods = dict(METHODS)
    for name, table in tables.items():
        if name in METHODS:
            raise ConfigError(f"method {name!r} is known already: give [method.{name}] another name")
        train = {key: value for key, value in table.items() if key != "scan"}
        require_known(train, TRAIN_KEYS, where=f"[method.{name}]", also=("scan",))
        methods[name] = Arm(name=name, scan=bool(table.get("scan", False)), train=train)
    return methods


def arms_of(
    names: Sequence[str], augmentations: Sequence[str], methods: Mapping[str, Arm]
) -> tuple[Arm, ...]:
    """The columns of a sweep: controls first, then each method under each augmentation.

    Plain CLIP without and with every augmentation in use is always among them.

    Raises:
        ConfigError: a method or an augmentation is unknown.
    """
    for name in names:
        if name not in methods:
            raise ConfigError(f"there is no method {name!r}: known are {', '.join(methods)}")
    for augmentation in augmentations:
        if augmentation not in AUGMENTATIONS:
            raise ConfigError(f"augmentation is {augmentation!r}, wanted one of {', '.join(AUGMENTATIONS)}")
    wanted = list(dict.fromkeys([UNDEFENDED, SAME_AUGMENTATION, *names]))
    arms = [
        arm
        for name in wanted
        for arm in _under_each(methods[name], augmentations)
        if name != SAME_AUGMENTATION or arm.train["augmentation"] != "none"  # that is the first control
    ]
    return tuple(arms)


def require_known(
    table: Mapping[str, Any], known: Sequence[str], *, where: str, also: Sequence[str] = ()
) -> None:
    """Refuse a key that nobody reads.

    Raises:
        ConfigError: with the known ones.
    """
    if unknown := sorted(set(table) - set(known) - set(also)):
        raise ConfigError(
            f"{where} has an unknown key {unknown[0]!r}: known are {', '.join([*also, *known])}"
        )


def _under_each(method: Arm, augmentations: Sequence[str]) -> list[Arm]:
    if "augmentation" in method.train:
        return [method]
    several = len(augmentations) > 1
    return [
        Arm(
            name=f"{method.name}+{augmentation}" if several else method.name,
            scan=method.scan,
            train={**method.train, "augmentation": augmentation},
        )
        for augmentation in augmentations
    ]
