"""Known attacks, planted on purpose in a copy of the user's own shards.

    triggers/, text_triggers.py    what is drawn on pictures and put into captions
    targeted.py plausible.py natural.py                one picture, many pairs
    patch.py whole_picture.py optimised_patch.py       backdoors
    clean_label.py multi_trigger.py adaptive.py        backdoors in disguise
    mismatch.py text_backdoor.py                       classes taken for one another; words as triggers
    web.py                                             how poisons get into a data set
    poison.py                                          any of them ─▶ poisoned shards + ledger.py

Each attack is one small pure class that keeps the contract in contract.py and is named here;
backdoor.py and choosing.py hold what several share, specs.py reads them from strings.
"""

from __future__ import annotations

from roclip_sanitize.attacks.adaptive import AdaptiveBlend, AdaptivePatch
from roclip_sanitize.attacks.clean_label import CleanLabel
from roclip_sanitize.attacks.contract import Attack
from roclip_sanitize.attacks.mismatch import MmPoison
from roclip_sanitize.attacks.multi_trigger import MultiTrigger
from roclip_sanitize.attacks.natural import Natural
from roclip_sanitize.attacks.optimised_patch import OptimisedPatch
from roclip_sanitize.attacks.patch import Patch
from roclip_sanitize.attacks.plausible import ToxicText
from roclip_sanitize.attacks.targeted import Targeted
from roclip_sanitize.attacks.text_backdoor import TextSentence, TextWord
from roclip_sanitize.attacks.web import Frontrunning, SplitView
from roclip_sanitize.attacks.whole_picture import Blended, ColourFilter, Sig, WaNet

ATTACKS: dict[str, type[Attack]] = {
    attack.facts.name: attack
    for attack in (
        *(Targeted, Patch, Blended, Sig, WaNet, ColourFilter, CleanLabel, MultiTrigger),
        *(AdaptiveBlend, AdaptivePatch, OptimisedPatch, MmPoison, TextWord, TextSentence, ToxicText),
        *(Natural, SplitView, Frontrunning),
    )
}
"""Every attack by the name that specs, ledgers and results give it."""
