"""Known attacks, planted on purpose in a copy of the user's own shards.

    triggers.py   draw a trigger on pixels              ─┐
    targeted.py   one picture, many captions             ├─▶ poison.py ─▶ poisoned shards + ledger.py
    patch.py      a patch that stands for a class       ─┘

Each attack is one small pure module that keeps the contract in contract.py and is named here.
"""

from __future__ import annotations

from roclip_sanitize.attacks.contract import Attack
from roclip_sanitize.attacks.patch import Patch
from roclip_sanitize.attacks.targeted import Targeted

ATTACKS: dict[str, type[Attack]] = {attack.name: attack for attack in (Targeted, Patch)}
"""Every attack by the name that settings, ledgers and results give it."""
