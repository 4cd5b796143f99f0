"""What a scan declares as a whole, in complete.json: what its settings, its scores and its verdicts make it.

How many pairs do not belong together is estimated from ranks, of which the tables keep the order alone, and
nothing of strangers'. So these counts are held against the scores, as far as they bound them, and what
follows from them is derived again. How far a trace stands out is not in the tables either: who carries it is.

Scans of earlier versions declare less: what is not there is not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.agreement import NEUTRAL
from roclip_sanitize.scan.columns import word_number
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.looks import told_second
from roclip_sanitize.scan.rejudging import Rejudged
from roclip_sanitize.scan.traces import JOINS
from roclip_sanitize.scan.verdicts import Cut
from roclip_sanitize.told import Told, as_written
from roclip_sanitize.verification.contract import (
    require_at_most,
    require_close,
    require_equal,
    require_equal_counts,
)


def verify_looks(folder: StageFolder) -> Iterator[str]:
    """Compare how often pairs were looked at."""
    if "looks" in folder.facts:
        looks = 1 + len(told_second(folder.settings))
        require_equal(folder.facts["looks"], looks, what="looks at each pair", where=folder.path)
        yield f"each pair was looked at {'once' if looks == 1 else f'{looks} times'}, as its settings say"


def verify_estimate(folder: StageFolder) -> Iterator[str]:
    """Compare what is estimated of pairs that do not belong together. Memory: one part's column."""
    facts, where = folder.facts, folder.path
    told = Told(facts.get("strangers", {}), where=f"strangers in {where / 'complete.json'}")
    with as_written(told.where, "count of strangers"):
        strangers = Strangers.from_json(told)
        share = strangers.share
    if told:
        require_close(told["share"], share, what="share of mismatched pairs", where=where)
        _require_possible(strangers, folder)
    if "mismatched" in facts:
        require_close(facts["mismatched"], share or 0.0, what="share that it was judged by", where=where)
    if told:
        yield (
            f"{strangers.strangers:,} strangers are too few for an estimate of mismatched pairs"
            if share is None
            else f"{share:.2%} of its pairs are estimated to be mismatched, by its counts of strangers"
        )


def verify_ends(folder: StageFolder, rejudged: Rejudged) -> Iterator[str]:
    """Compare where the budget ends."""
    facts, where, cut = folder.facts, folder.path, rejudged.ends.cut
    if "allowed" in facts:
        require_equal(facts["allowed"], rejudged.allowed, what="pairs that the budget allows", where=where)
    if "cut" in facts:
        require_cut(facts["cut"], cut, what="cut", folder=folder)
        ends = "before the first pair" if cut == Cut() else f"at a suspicion of {cut.suspicion:.6f}"
        yield f"its budget ends {ends}, as the scores have it"


def verify_reasons(folder: StageFolder, counted: Mapping[str, int]) -> Iterator[str]:
    """Compare how many pairs have each reason."""
    if "reasons" in folder.facts:
        require_equal_counts(folder.facts["reasons"], counted, what="pairs with reason", where=folder.path)
        yield f"{sum(counted.values()):,} reasons are told of them, as counted"


def verify_traces(folder: StageFolder) -> Iterator[str]:
    """Compare how many pictures carry each trace. Memory: one part's columns."""
    if "traces" not in folder.facts:
        return
    where, path = folder.path, folder.path / "complete.json"
    with as_written(path, "list of traces"):
        told = [(str(each["word"]), int(each["pairs"])) for each in folder.facts["traces"]]
    wanted = _carriers(folder)
    require_equal(len(told), len(wanted), what="words that have a trace", where=where)
    require_equal_counts(dict(told), wanted, what="pictures with the trace of", where=where)
    yield f"{sum(wanted.values()):,} pictures carry the traces of {len(wanted):,} words, as counted"


def require_cut(told: Any, wanted: Cut, *, what: str, folder: StageFolder) -> None:
    """Refuse a cut that is not where the scores have it.

    Raises:
        MismatchError: both, and where.
    """
    with as_written(folder.path / "complete.json", what):
        suspicion, uid = told["suspicion"], told["uid"]
    require_close(suspicion, wanted.suspicion, what=f"suspicion of the {what}", where=folder.path)
    require_equal(uid, wanted.uid, what=f"pair of the {what}", where=folder.path)


def _require_possible(strangers: Strangers, folder: StageFolder) -> None:
    """Refuse counts that such scores do not go with: whoever is below is suspected, see cross_judged.py."""
    known = suspected = rows = 0
    for marker in folder.markers():
        path = table_file(folder.path, "scores", marker.name)
        score_N = read_table(path, columns=["cross_prediction"])["cross_prediction"]
        rows += len(score_N)
        known += len(score_N) - score_N.null_count()
        suspected += int((score_N >= NEUTRAL).sum())
    where = folder.path
    require_equal(strangers.pairs, known, what="pairs that have ranks", where=where)
    require_at_most(strangers.pairs_below, suspected, what="pairs below", where=where)
    require_at_most(strangers.strangers, rows, what="strangers", where=where)
    require_at_most(strangers.strangers_below, strangers.strangers, what="strangers below", where=where)


def _carriers(folder: StageFolder) -> dict[str, int]:
    """Pictures that carry the trace of each word, by the word as the first of them says it."""
    said, carriers = dict[int, str](), Counter[int]()
    for marker in folder.markers():
        path = table_file(folder.path, "scores", marker.name)
        table = read_table(path, columns=["trace", "trace_word"])
        for word in table.filter(table["trace"] >= JOINS)["trace_word"].drop_nulls():
            number = word_number(word)  # which another word may share
            said.setdefault(number, word)
            carriers[number] += 1
    return {said[number]: pairs for number, pairs in carriers.items()}
