"""Where each number of an audit comes from: which files, which columns, and how anybody counts it again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

RULES: Mapping[str, Mapping[str, str]] = {
    "pairs": {
        "files": "verdicts/*.parquet of the scan; failures/*.parquet of its store",
        "columns": "kept, reasons; reason",
        "rule": "kept: rows whose kept is true. Quarantined: the others, by the first of their reasons. "
        "Failed: rows by their reason. Seen: the sum.",
    },
    "rewritten": {
        "files": "verdicts/*.parquet of rewritten shards and of the scan; failures/*.parquet of the former",
        "columns": "keep, reason; kept; reason",
        "rule": "kept: rows whose keep is true. Quarantined: the others, by reason. Failed: rows by their "
        "reason. Seen: the sum. Beside the scan: rows that it keeps and that are quarantined: a uid that it "
        "flags in one place is set aside in all, and a list may name others.",
    },
    "reasons": {
        "files": "verdicts/*.parquet of the scan",
        "columns": "reasons",
        "rule": "rows that have a reason, joined by ';': a pair counts once for each of its reasons",
    },
    "words": {
        "files": "verdicts/*.parquet of the scan; metadata/*.parquet of its store",
        "columns": "kept; caption",
        "rule": "a caption counts once for each of its words; of words in 20 captions or more, the share "
        "whose pair was set aside",
    },
    "estimate": {
        "files": "complete.json and scores/*.parquet of the scan",
        "columns": "strangers, allowed; trace, captions_of_picture, pictures_of_caption",
        "rule": "share: pairs whose lower rank is below 1/4, as a share of all that have ranks, divided by "
        "the same of strangers, each a picture with another one's caption: an estimate of pairs that do not "
        "belong together, and no bound. Carriers: pairs with a trace of 4 or more that do not collide. "
        "Allowed: pairs that suspicion may set aside: times the same share, with the root of the pairs below "
        "and one added to them, or as many as are carriers, whichever is more; the budget at the most.",
    },
    "guard": {
        "files": "complete.json and scores/*.parquet of the scan",
        "columns": "label_cuts, spared; label, and the scores by name",
        "rule": "of a label that 20 pairs or more have the budget takes no more than so many times the share "
        "that is set aside of all, the most suspicious ones. Spared: pairs that it would have taken; labels: "
        "those with such pairs.",
    },
    "labels": {
        "files": "verdicts/*.parquet of the scan; the shards of its store",
        "columns": "kept; the field of each pair's JSON that the audit was given as label",
        "rule": "of values that 20 pairs or more have, the share set aside",
    },
    "domains": {
        "files": "kept/*.parquet and quarantined/*.parquet of the rewritten shards",
        "columns": "url",
        "rule": "of hosts that 20 URLs or more have, the share of their pairs that is quarantined",
    },
    "clusters": {
        "files": "verdicts/*.parquet of the scan; metadata/*.parquet of its store",
        "columns": "kept; image_hash, caption",
        "rule": "rows set aside, by image_hash and by normalised caption; 4 or more make a cluster",
    },
    "traces": {
        "files": "verdicts/*.parquet and scores/*.parquet of the scan",
        "columns": "kept, reasons; trace_word",
        "rule": "rows set aside with the reason trace_of_mismatched_pairs, by trace_word",
    },
    "canaries": {
        "files": "ledger.parquet of the canaries; verdicts/*.parquet of the scan done again with them",
        "columns": "uid, attack, picture_uid; kept",
        "rule": "found: canaries whose kept is false; the interval, 95 %, is over pictures: Wilson's where "
        "each has one canary, or all or none are found, else bootstrapped",
    },
    "attacks": {
        "files": "ledger.parquet of the poison folder; verdicts/*.parquet and scores/*.parquet of the scan",
        "columns": "uid, attack, cover; kept; the scores by name",
        "rule": "hits: poisons whose kept is false; the interval is Wilson's, 95 %. AUROC: how often a "
        "poison scores above a clean pair, ties half. Cover samples count as neither.",
    },
}


def rules_for(names: Collection[str]) -> dict[str, dict[str, str]]:
    """The rules behind those groups of numbers that an audit has."""
    return {name: dict(rule) for name, rule in RULES.items() if name in names}
