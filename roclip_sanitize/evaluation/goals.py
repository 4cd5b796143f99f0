"""What the attacks of a ledger want of a model, in the order in which it is measured.

One list, numbered, that whoever encodes and whoever counts both go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roclip_sanitize.attacks.contract import Backdoor, Swap, Target, TextBackdoor
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Goals:
    """All goals of a ledger's attacks, each with its attack's name.

    Attributes:
        targets: the held-out pictures of each attack that is after some.
        backdoors: triggers, each a set of test pictures to stamp.
        text_backdoors: text triggers, each a set of captions to put them into.
        swaps: pairs of classes.
    """

    targets: Sequence[tuple[str, tuple[Target, ...]]] = ()
    backdoors: Sequence[tuple[str, Backdoor]] = ()
    text_backdoors: Sequence[tuple[str, TextBackdoor]] = ()
    swaps: Sequence[tuple[str, Swap]] = ()

    @classmethod
    def of(cls, ledger: Ledger | None) -> Goals:
        """What a ledger's attacks want; nothing without one."""
        if ledger is None:
            return cls()
        attacks = ledger.attacks
        return cls(
            targets=[(attack, found) for attack in attacks if (found := ledger.targets_of(attack))],
            backdoors=[(attack, each) for attack in attacks for each in ledger.backdoors(attack)],
            text_backdoors=[(attack, each) for attack in attacks for each in ledger.text_backdoors(attack)],
            swaps=[(attack, each) for attack in attacks for each in ledger.swaps(attack)],
        )

    @property
    def target_uids(self) -> frozenset[str]:
        """The held-out pictures that attacks are after: trained on under wrong captions, so no clean ones."""
        return frozenset(target.uid for _, targets in self.targets for target in targets)

    @property
    def about_captions(self) -> bool:
        """Whether any goal can be measured only with captions."""
        return bool(self.text_backdoors or self.swaps)


def require_goal_classes(ledger: Ledger | None, classes: Sequence[str]) -> None:
    """Success is to be called by a name, so that the name must be there to choose.

    Raises:
        ConfigError: an attack's goal names another class.
    """
    if ledger is None:
        return
    named = frozenset[str]().union(*map(ledger.goal_classes, ledger.attacks))
    if missing := sorted(named - set(classes)):
        raise ConfigError(f"classes lack {', '.join(missing)}, which the ledger's attacks name")
