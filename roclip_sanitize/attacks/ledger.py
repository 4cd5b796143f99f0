"""The ledger: which pairs are poisoned, how, and what for.

    ledger.parquet    one row per poisoned pair, in shard order
    ledger.json       seed, label field, classes, and for each attack its parameters, triggers and goals
    targets/UID.jpg   the pictures that targeted attacks are after, as they were encoded

It is the ground truth of every detection score, tells evaluation what to look for, and with the
clean shards gives the poisoned ones again (rebuilding.py). The shards themselves give no hint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.attacks.contract import Backdoor, Plan, Swap, Target, TextBackdoor
from roclip_sanitize.attacks.text_triggers import TextTrigger
from roclip_sanitize.attacks.triggers import Trigger
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.records import UID_DIGITS, is_uid
from roclip_sanitize.runfiles import StageFolder, fingerprint, read_told, sha256_of, write_json
from roclip_sanitize.storage import exists, read_bytes
from roclip_sanitize.store import write_parquet
from roclip_sanitize.told import as_written

if TYPE_CHECKING:
    import polars

Found = TypeVar("Found", Trigger, TextTrigger)

POISON_STAGE = "poison"
LEDGER_SCHEMA: dict[str, Any] = {
    "uid": str,
    "attack": str,
    "variant": str,
    "shard": str,
    "key": str,
    "row": int,
    "target": str,
    "true_label": str,
    "added": bool,
    "cover": bool,
    "stale_hash": bool,
    "picture_uid": str,
    "picture_shard": str,
    "original_uid": str,
    "original_caption": str,
    "poisoned_caption": str,
    "original_image_hash": str,
    "image_hash": str,
}
"""One row per poison: what Poison says of it, and

    uid                   what the pair is called now; original_uid is what it was called, and differs
                          only where a pair is named by its content
    key                   its key in the poisoned shard
    original_image_hash   of the replaced pair's picture, or for a new pair of the picture it copies
    image_hash            of the picture it has now
"""


class Ledger:
    """A finished ledger, open for reading.

    Attributes:
        path: the poison folder.
        label: the field that holds a pair's class.
        seed: the run's.
        class_counts: the commonest classes of the clean training shards, commonest first, and
            how many pairs each had.
    """

    def __init__(self, path: Path) -> None:
        header = read_told(path / "ledger.json")
        self.path = path
        with as_written(path / "ledger.json", "ledger"):
            self.label = str(header["label"])
            self.seed = int(header["seed"])
            counts = ((entry["label"], entry["count"]) for entry in header["classes"])
            self.class_counts = {str(label): int(count) for label, count in counts}
            self._plans = plans_from_header(header)

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Open the ledger of a poison folder.

        Raises:
            DataError: there is no such folder.
            MismatchError: it was made by another stage, or never finished.
        """
        return cls(StageFolder.open(folder, stage=POISON_STAGE).path)

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks planted, in the order in which they were."""
        return tuple(self._plans)

    @property
    def classes(self) -> tuple[str, ...]:
        """The commonest classes, commonest first."""
        return tuple(self.class_counts)

    @cached_property
    def frame(self) -> polars.DataFrame:
        """One row per poisoned pair: the columns of LEDGER_SCHEMA.

        Raises:
            DataError: the table is missing, or is none of a ledger.
        """
        return read_ledger_table(self.path)

    @property
    def content(self) -> str:
        """Names what it says, wherever a copy of it lies: sixteen hex digits."""
        return fingerprint([sha256_of(self.path / name) for name in ("ledger.parquet", "ledger.json")])

    def planted(self, attack: str | None = None) -> frozenset[str]:
        """All pairs that one attack, or any, has changed or added: poisons and cover samples."""
        frame = self.frame
        if attack is not None:
            self._plan(attack)
            frame = frame.filter(frame["attack"] == attack)
        return frozenset(frame["uid"])

    @property
    def covers(self) -> frozenset[str]:
        """Cover samples: a trigger under the pair's own caption, which a scan need neither find nor keep."""
        return frozenset(self.frame.filter("cover")["uid"])

    @property
    def poisons(self) -> dict[str, str]:
        """Planted pairs that lie, which a scan should find: uid → attack."""
        lying = self.frame.filter(~self.frame["cover"])
        return dict(zip(lying["uid"], lying["attack"], strict=True))

    def target(self, attack: str) -> str:
        """The class that an attack's triggers stand for.

        Raises:
            ConfigError: the attack is not in the ledger, or its triggers stand for no class or several.
        """
        targets = sorted(self._plan(attack).stands_for)
        if len(targets) != 1:
            raise ConfigError(
                f"the triggers of {attack!r} have no class in common: they stand for "
                f"{', '.join(targets) or 'none'}"
            )
        return targets[0]

    def backdoors(self, attack: str) -> tuple[Backdoor, ...]:
        """Which triggers test pictures should get, by trigger(attack, variant), and what for; () for none.

        Raises:
            ConfigError: the attack is not in the ledger.
        """
        return self._plan(attack).backdoors

    def text_backdoors(self, attack: str) -> tuple[TextBackdoor, ...]:
        """Which text triggers captions should get, by text_trigger(attack, variant), and what for.

        Raises:
            ConfigError: the attack is not in the ledger.
        """
        return self._plan(attack).text_backdoors

    def swaps(self, attack: str) -> tuple[Swap, ...]:
        """Which classes' captions should find which classes' pictures; () for an attack without such a goal.

        Raises:
            ConfigError: the attack is not in the ledger.
        """
        return self._plan(attack).swaps

    def goal_classes(self, attack: str) -> frozenset[str]:
        """Every class that the attack's goals name.

        Raises:
            ConfigError: the attack is not in the ledger.
        """
        return self._plan(attack).classes

    def trigger(self, attack: str, variant: str = "") -> Trigger:
        """What an attack stamps.

        Args:
            attack: its name.
            variant: which of its triggers; "" where it has only one.

        Raises:
            ConfigError: the attack is not in the ledger, or has no such trigger.
        """
        return _only(self._plan(attack).triggers, variant, what=f"attack {attack!r} has no trigger")

    def text_trigger(self, attack: str, variant: str = "") -> TextTrigger:
        """What an attack puts into captions.

        Args:
            attack: its name.
            variant: which of its text triggers; "" where it has only one.

        Raises:
            ConfigError: the attack is not in the ledger, or has no such text trigger.
        """
        return _only(self._plan(attack).text_triggers, variant, what=f"attack {attack!r} has no text trigger")

    @property
    def targets(self) -> tuple[Target, ...]:
        """The held-out pictures that targeted attacks are after."""
        return tuple(target for plan in self._plans.values() for target in plan.targets)

    def targets_of(self, attack: str) -> tuple[Target, ...]:
        """The held-out pictures that one attack is after; () for an attack that is after none.

        Raises:
            ConfigError: the attack is not in the ledger.
        """
        return self._plan(attack).targets

    def picture(self, target: Target) -> bytes:
        """A target's encoded picture.

        Raises:
            DataError: its file is gone.
        """
        path = target_file(self.path, target.uid)
        if not exists(path):
            raise DataError(f"{path} does not exist, but the ledger names it as a target")
        return read_bytes(path)

    def _plan(self, attack: str) -> Plan:
        if attack not in self._plans:
            raise ConfigError(f"attack {attack!r} is not in the ledger: it has {', '.join(self._plans)}")
        return self._plans[attack]


def _only(triggers: Mapping[str, Found], variant: str, *, what: str) -> Found:
    """The trigger of a variant, or the only one there is."""
    if not variant and len(triggers) == 1:
        return next(iter(triggers.values()))
    if variant not in triggers:
        known = ", ".join(sorted(triggers)) or "none"
        raise ConfigError(f"{what} {variant!r}: it has {known}")
    return triggers[variant]


def plans_from_header(header: Mapping[str, Any]) -> dict[str, Plan]:
    """What the attacks were to do, by name in the order in which they chose; without the poisons."""
    return {plan["name"]: Plan.from_json(plan) for plan in header["attacks"]}


def read_ledger_table(folder: Path) -> polars.DataFrame:
    """One row per poisoned pair, as anybody's ledger lists them.

    Raises:
        DataError: the table is missing, lacks a column, or has one of another kind.
    """
    return read_table(folder / "ledger.parquet", schema=LEDGER_SCHEMA)


def target_file(folder: Path, uid: str) -> Path:
    """Where a target's picture lies.

    Raises:
        DataError: the name is no uid, and might lead anywhere.
    """
    return folder / "targets" / f"{_required_uid(uid)}.jpg"


def picture_file(folder: Path, uid: str) -> Path:
    """Where a training pair's picture lies that another pair is to show. Raises as target_file() does."""
    return folder / "pictures" / f"{_required_uid(uid)}.jpg"


def _required_uid(uid: str) -> str:
    if not is_uid(uid):
        raise DataError(f"a ledger names a picture {uid!r}, wanted {UID_DIGITS} lower-case hex digits")
    return uid


def planted_file(folder: Path, name: str) -> Path:
    """Where a worker lists what it planted in one shard."""
    return folder / "planted" / f"planted_{name}.parquet"


def write_ledger(folder: Path, shards: Sequence[str], header: object) -> None:
    """Join the lists of all shards to the ledger; the header, written last, holds the rest."""
    import polars

    parts = [read_table(planted_file(folder, name)) for name in shards]
    write_parquet(folder / "ledger.parquet", polars.concat(parts))
    write_json(folder / "ledger.json", header)
