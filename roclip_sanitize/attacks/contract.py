"""What an attack is: a pure function from what is known of the shards to a plan.

    Scene ─▶ Attack.plan() ─▶ Plan, made of Poison

An attack decides which pairs change and how; it draws no pixel, and opens no file but one that a
parameter names. Carrying the plan out is planting.py's business. So a new attack is a dataclass
of its parameters, one method, and a line in the registry; a new trigger is a class in triggers/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.census import UNLABELLED, Census
from roclip_sanitize.attacks.text_triggers import TextTrigger
from roclip_sanitize.attacks.triggers import Trigger, trigger_from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """One planned change of one shard.

    Attributes:
        attack: what the ledger calls the attack; filled in by Plan.named().
        variant: which form of it; names the trigger in Plan.triggers, if there is one.
        shard: ordinal of the shard.
        row: number of a usable pair in that shard: the one replaced, or the one before which
            the new pair goes.
        uid: the replaced pair's uid, or that of the new pair.
        added: whether this is a new pair, not a replaced one.
        true_label: what the picture shows.
        target: the class that the attacker wants the model to say; "" for a cover sample.
        picture_uid: the pair whose picture is used; "" for the replaced pair's own.
        picture_shard: ordinal of the training shard that has that pair; "" for a held-out one.
        cover: whether this is a cover sample: a trigger with a caption that is true.
        stale_hash: whether the hash that the pair's fields record stays that of its old picture.
        original_caption: the replaced pair's own, or that of a new pair's picture.
        caption: what it is replaced by.
    """

    attack: str = ""
    variant: str
    shard: str
    row: int
    uid: str
    added: bool = False
    true_label: str
    target: str
    picture_uid: str = ""
    picture_shard: str = ""
    cover: bool = False
    stale_hash: bool = False
    original_caption: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A goal: a held-out picture that an attacker wants misread.

    Attributes:
        uid: the held-out pair.
        true_label: what it shows.
        adversarial: what the model should say instead.
    """

    uid: str
    true_label: str
    adversarial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdoor:
    """A goal: any test picture of another class with a trigger on it should be called ``target``.

    Attributes:
        variant: the trigger in Plan.triggers that test pictures get; it may differ from those
            that training pictures got.
        target: the class it stands for.
    """

    variant: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBackdoor:
    """A goal: a caption with a text trigger in it should find pictures of ``target``.

    Attributes:
        variant: the trigger in Plan.text_triggers that captions get.
        target: the class it stands for.
    """

    variant: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A goal: captions of one class should find pictures of another.

    Attributes:
        asked: the class that the captions speak of.
        shown: the class of the pictures that they should find.
    """

    asked: str
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that one attack will do, and what it is for: one or more goals of one or more kinds.

    Attributes:
        parameters: the attack's parameters, JSON-able.
        targets: goals: the held-out pictures it is after.
        backdoors: goals: triggers and what they stand for.
        text_backdoors: goals: text triggers and what they stand for.
        swaps: goals: classes to be taken for one another.
        triggers: what it draws on pictures, by variant.
        text_triggers: what it puts into captions, by variant.
        poisons: the changes.
    """

    parameters: Mapping[str, Any]
    targets: tuple[Target, ...] = ()
    backdoors: tuple[Backdoor, ...] = ()
    text_backdoors: tuple[TextBackdoor, ...] = ()
    swaps: tuple[Swap, ...] = ()
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    text_triggers: Mapping[str, TextTrigger] = field(default_factory=dict)
    poisons: tuple[Poison, ...] = ()

    def named(self, name: str) -> Plan:
        """The same plan with this name on every poison."""
        return replace(self, poisons=tuple(replace(poison, attack=name) for poison in self.poisons))

    @property
    def classes(self) -> frozenset[str]:
        """Every class that a goal names: a model that is measured must be able to say them."""
        named = {label for each in self.targets for label in (each.true_label, each.adversarial)}
        named |= self.stands_for
        return frozenset(named | {label for each in self.swaps for label in (each.asked, each.shown)})

    @property
    def stands_for(self) -> frozenset[str]:
        """The classes that triggers, drawn or written, stand for."""
        drawn, written = (
            (each.target for each in self.backdoors),
            (each.target for each in self.text_backdoors),
        )
        return frozenset({*drawn, *written})

    def to_json(self) -> dict[str, Any]:
        """The plan without its poisons, which belong in tables."""
        return {
            "parameters": dict(self.parameters),
            **{name: [asdict(goal) for goal in getattr(self, name)] for name in GOALS},
            "triggers": {variant: trigger.to_json() for variant, trigger in self.triggers.items()},
            "text_triggers": {variant: trigger.to_json() for variant, trigger in self.text_triggers.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of to_json()."""
        goals = {name: tuple(goal(**each) for each in values.get(name, ())) for name, goal in GOALS.items()}
        written = values.get("text_triggers", {})
        return cls(
            parameters=values["parameters"],
            triggers={name: trigger_from_json(trigger) for name, trigger in values["triggers"].items()},
            text_triggers={name: TextTrigger.from_json(trigger) for name, trigger in written.items()},
            **goals,
        )


GOALS: dict[str, Any] = {
    "targets": Target,
    "backdoors": Backdoor,
    "text_backdoors": TextBackdoor,
    "swaps": Swap,
}
"""The kinds of goals, by the field of a Plan that holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an attack may look at.

    Attributes:
        census: the training shards.
        held_out: the test shards; pictures never trained on. Empty if there are none.
        classes: the commonest labels of the training shards, commonest first.
        taken_N: bool, which training pairs an earlier attack has replaced already.
        wanted: uids of the held-out pictures that earlier attacks are after.
        seed: the run's.
    """

    census: Census
    held_out: Census
    classes: tuple[str, ...]
    taken_N: NDArray[np.bool_]
    wanted: frozenset[str] = frozenset()
    seed: int

    def after(self, plan: Plan) -> Scene:
        """The scene for the next attack: pairs that this plan replaces are taken, and so are its targets."""
        taken_N = self.taken_N.copy()
        for poison in plan.poisons:
            if not poison.added:
                taken_N[self.census.row_at(poison.shard, poison.row)] = True
        wanted = self.wanted.union(target.uid for target in plan.targets)
        return replace(self, taken_N=taken_N, wanted=wanted)

    def free_rows(self, *, other_than: Sequence[str]) -> NDArray[np.int64]:
        """Training pairs with a label, but none of these, that no attack has taken."""
        free_N = ~self.census.has_label(UNLABELLED) & ~self.taken_N
        for label in other_than:
            free_N &= ~self.census.has_label(label)
        return np.flatnonzero(free_N)

    def free_rows_of(self, label: str) -> NDArray[np.int64]:
        """Training pairs with this label that no attack has taken."""
        return np.flatnonzero(self.census.has_label(label) & ~self.taken_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to know of an attack before it is configured.

    Attributes:
        name: what specs, and unless they say otherwise ledgers and results, call it.
        family: what attacks of its kind are called.
        changes: what the attacker changes, in a few words.
        source: where it was published.
        held_out: whether it takes pictures from the test shards.
    """

    name: str
    family: str
    changes: str
    source: str
    held_out: bool = False


class Attack(Protocol):
    """An attack: a frozen dataclass of its parameters, each with a default, that checks itself.

    Its docstring is what ``roclip attacks show`` prints.

    Attributes:
        facts: what there is to know of it.
    """

    facts: ClassVar[Facts]

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """Decide what to do. The same scene and stream give the same plan.

        Raises:
            DataError: the shards have too few pairs of a kind.
        """
        ...
