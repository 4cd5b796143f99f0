"""Folders of results, checked again: what they say of themselves must hold.

    contract.py   what a check is
    folders.py    any stage's folder: markers, hashes, tallies
    stores.py     embedding stores: rows that belong together, unit vectors
    indexes.py    indexes: of what their store still holds
    scans.py      scans: the same pairs as their store's, every verdict derived again from the scores
                  scan_facts.py has what a scan declares as a whole
    rewrites.py   rewritten shards: every pair where its verdict says, byte for byte; lists and manifest
                  rewritten.py has what is checked of one of them
    lists.py      screenings and scorings: their lists made again
    trainings.py  trained weights
    canaries.py   canaries: counted again
    audits.py     audits: every number measured again

Nothing is written. A check that does not hold ends it, since what rests on it need not either.
"""

from roclip_sanitize.verification.contract import Check
from roclip_sanitize.verification.folders import verify_folder

__all__ = ["Check", "verify_folder"]
