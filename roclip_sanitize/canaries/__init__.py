"""Known poisons beside a user's own pairs: how many of them does the scan find?

    some shards ─▶ pairs with a word for a class ─▶ known attacks ─▶ canaries
    the scan's store, canaries instead of the pairs they were made of ─▶ index ─▶ the same scan ─▶ recall

    labelling.py   classes for pairs that have none
    planting.py    which pairs become canaries, and how
    beside.py      a store with canaries in it
    counted.py     how many were found, and the same again for whoever verifies it
    stage.py       the whole, from a scan to canaries.json

The scan that is asked about is never touched: it is done again on a copy of its store, so no canary is in its
scores, its verdicts or its budget.
"""

from roclip_sanitize.canaries.counted import CANARIES_STAGE, Family, read_canaries, require_counted
from roclip_sanitize.canaries.planting import FAMILIES
from roclip_sanitize.canaries.stage import CanarySettings, count_canaries

__all__ = [
    "CANARIES_STAGE",
    "FAMILIES",
    "CanarySettings",
    "Family",
    "count_canaries",
    "read_canaries",
    "require_counted",
]
