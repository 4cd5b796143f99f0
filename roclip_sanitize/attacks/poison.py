"""Plant known attacks in a copy of some shards, and keep a ledger of every poisoned pair.

    shards ─▶ census ─▶ plan ─▶ copies with poisons ─▶ ledger

    census/       who is in the shards, from a first pass         (census.py)
    plan/         what each attack will do, by shard              (contract.py, plan_files.py)
    pictures/     those that pairs borrow from one another        (plan_files.py)
    shards/       the poisoned copies                             (planting.py)
    ledger.*      what was done, and targets/ with the pictures   (ledger.py)

The driver handles labels and a few hundred chosen pairs; everything else is done by workers,
shard by shard. Same settings, same bytes: the plan is drawn from the seed and each attack's
name, a trigger's place from the seed and the pair's place.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize.attacks.census import CENSUS_STAGE, Census, CensusTaker, census_tasks
from roclip_sanitize.attacks.contract import Attack, Plan, Scene
from roclip_sanitize.attacks.ledger import POISON_STAGE, write_ledger
from roclip_sanitize.attacks.plan_files import plan_header_file, write_plan, write_targets
from roclip_sanitize.attacks.planting import Planter, PlantTask
from roclip_sanitize.attacks.specs import build_attacks
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import WORK_KEY, Limits, Work
from roclip_sanitize.records import Tally
from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.shards import shard_tasks
from roclip_sanitize.sources import source_stem
from roclip_sanitize.storage import exists

DEFAULT_ATTACKS = ("targeted", "patch")
STEPS = ("census", "headers", "copy", "write", "hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonSettings:
    """What to plant, and in what.

    Attributes:
        shards: the clean training shards.
        test_shards: shards of pairs that are never trained on; targets come from them.
        label: the field that holds a pair's class.
        attacks: specs of attacks (see specs.py), in the order in which they choose their pairs.
        seed: decides every draw.
        classes: how many of the commonest labels count as classes.
    """

    shards: tuple[Path, ...]
    test_shards: tuple[Path, ...] = ()
    label: str
    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    seed: int = 0
    classes: int = 30

    def __post_init__(self) -> None:
        if not self.shards:
            raise ConfigError("no shards to poison")
        if both := set(self.shards) & set(self.test_shards):
            raise ConfigError(f"{min(both)} is named as a training shard and as a test shard")
        if not self.label:
            raise ConfigError("no label field named: wanted the JSON field that holds a pair's class")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, wanted 0 or more")
        if self.classes < 2:
            raise ConfigError(f"classes is {self.classes}, wanted 2 or more")
        for name, attack in self.build().items():
            if attack.facts.held_out and not self.test_shards:
                raise ConfigError(f"attack {name!r} takes its pictures from test shards, but none are named")

    def build(self) -> dict[str, Attack]:
        """The attacks with their parameters, by the names that the ledger gives them.

        Raises:
            ConfigError: an attack or parameter is unknown, or a parameter is out of range.
        """
        return build_attacks(self.attacks)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        paths = {name: [str(path) for path in getattr(self, name)] for name in ("shards", "test_shards")}
        return asdict(self) | paths | {"attacks": list(self.attacks)}


def poison_shards(settings: PoisonSettings, *, out: Path, executor: Executor) -> Tally:
    """Copy the shards with poisons planted in them.

    Args:
        settings: what to plant, and in what.
        out: folder for the copies, the ledger and how they came about.
        executor: where the workers run.

    Returns:
        What became of the pairs, new ones included: ``kept`` is what later stages can read.

    Raises:
        DataError: the shards have too few pairs of a kind.
        MismatchError: ``out`` was made with other settings, or a shard has changed meanwhile.
    """
    copies = copy_paths(settings.shards, out)
    folder = StageFolder.create(out, stage=POISON_STAGE, settings=settings.to_json())
    if not exists(plan_header_file(out)):
        _plan(settings, out, executor)
    return plant(folder, settings.shards, copies, executor)


def plant(folder: StageFolder, shards: Sequence[Path], copies: Sequence[Path], executor: Executor) -> Tally:
    """Carry out a plan that is in the folder: copy the shards that are missing, and join the ledger.

    Raises:
        MismatchError: a shard does not fit the plan.
    """
    out, tasks = folder.path, shard_tasks(shards)
    header = read_json(plan_header_file(out))
    waiting = [
        PlantTask(name=task.name, path=task.path, out=copy)
        for task, copy in zip(tasks, copies, strict=True)
        if folder.marker(task.name) is None
    ]
    make_worker = partial(Planter, folder=out, label=header["label"], seed=header["seed"])
    for _ in executor.map(make_worker, waiting):
        pass
    facts = [marker.facts for marker in folder.markers()]
    tally = Tally.total(Tally.from_json(fact["tally"]) for fact in facts)
    if waiting or not folder.finished:
        write_ledger(out, [task.name for task in tasks], header)
        folder.finish({"tally": tally.to_json(), "planted": sum(fact["planted"] for fact in facts)})
    return tally


def poison_limits(out: Path) -> Limits:
    """What bounded a poisoning, over all runs that it took; the census is that of held-out shards, too."""
    listed = sum(marker.facts["seconds"] for marker in StageFolder(out / "census").markers())
    census = {WORK_KEY: Work(wall=listed, steps={"census": listed}).to_json()}
    return Limits.noted([census, *(marker.facts for marker in StageFolder(out).markers())], order=STEPS)


def poisoned_shards(out: Path) -> list[Path]:
    """The poisoned copies, in the order of their originals.

    Raises:
        DataError: there is no such folder.
        MismatchError: it was made by another stage, or never finished.
    """
    folder = StageFolder.open(out, stage=POISON_STAGE)
    return [out / "shards" / marker.facts["shard"] for marker in folder.markers()]


def copy_paths(shards: Sequence[Path], out: Path) -> list[Path]:
    """Where the copies go: under their own names, or numbered if two shards share one.

    Raises:
        ConfigError: a copy would replace its original.
    """
    stems = [source_stem(path) for path in shards]
    if len(set(stems)) < len(stems):
        stems = [task.name for task in shard_tasks(shards)]
    copies = [out / "shards" / f"{stem}.tar" for stem in stems]
    if same := set(map(_place, shards)) & set(map(_place, copies)):
        raise ConfigError(
            f"{min(same)} would be overwritten by its poisoned copy: choose another output folder"
        )
    return copies


def _place(path: Path) -> Path:
    return path if is_url(path) else path.resolve()


def _plan(settings: PoisonSettings, out: Path, executor: Executor) -> None:
    scene = _take_census(settings, out / "census", executor)
    counts = [{"label": label, "count": scene.census.counts[label]} for label in scene.classes]
    plans = dict[str, Plan]()
    for name, attack in settings.build().items():
        # Seeded by name, so that no attack shifts another's draws.
        stream = [settings.seed, zlib.crc32(name.encode())]
        plans[name] = attack.plan(scene, np.random.default_rng(stream)).named(name)
        scene = scene.after(plans[name])
    write_targets(out, [target for plan in plans.values() for target in plan.targets], settings.test_shards)
    write_plan(
        out,
        [poison for plan in plans.values() for poison in plan.poisons],
        header={
            "seed": settings.seed,
            "label": settings.label,
            "classes": counts,
            "attacks": [{"name": name, **plan.to_json()} for name, plan in plans.items()],
        },
        shards=shard_tasks(settings.shards),
        executor=executor,
    )


def _take_census(settings: PoisonSettings, path: Path, executor: Executor) -> Scene:
    train = census_tasks("train", settings.shards)
    test = census_tasks("test", settings.test_shards, decode=True)
    inputs = {name: settings.to_json()[name] for name in ("shards", "test_shards", "label")}
    folder = StageFolder.create(path, stage=CENSUS_STAGE, settings=inputs)
    waiting = [task for task in train + test if folder.marker(task.name) is None]
    for _ in executor.map(partial(CensusTaker, folder=path, label=settings.label), waiting):
        pass
    if not folder.finished:
        folder.finish({"shards": len(train) + len(test)})
    census = Census(path, train)
    classes = tuple(islice(census.counts, settings.classes))
    if len(classes) < 2:
        raise DataError(
            f"the field {settings.label!r} has {len(classes)} values in the {census.size:,} usable pairs of "
            f"{len(train)} shards, wanted two or more"
        )
    return Scene(
        census=census,
        held_out=Census(path, test),
        classes=classes,
        taken_N=np.zeros(census.size, dtype=bool),
        seed=settings.seed,
    )
