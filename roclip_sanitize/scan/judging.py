"""The scan's last pass over one store part: scores → verdicts, with what people are shown of them.

Dimension key: N pairs of a part, K neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.limits import WORK_KEY, Laps
from roclip_sanitize.records import Reason, Tally, Verdict
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.columns import Columns, word_number, word_of
from roclip_sanitize.scan.explain import CompanyFacts, WordFacts, explain
from roclip_sanitize.scan.long_tail import Ends
from roclip_sanitize.scan.parts import LABEL_COLUMN, Places
from roclip_sanitize.scan.scoring import Scores, shares_of_kin
from roclip_sanitize.scan.traced import Traced
from roclip_sanitize.scan.verdicts import Thresholds, collides, combined, judge, ordering, percentiles
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.storage import here
from roclip_sanitize.store import EmbeddingStore, StorePart, write_parquet

if TYPE_CHECKING:
    import polars

NEIGHBOURS_SHOWN = 4
COPIES_TESTIFY = frozenset(
    {Reason.MANY_CAPTIONS_ONE_PICTURE, Reason.MANY_PICTURES_ONE_CAPTION}
)  # else: neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a flagged pair is shown with.

    Attributes:
        sentence: why it was set aside.
        witnesses: uids of the pairs that speak against it, nearest first.
    """

    sentence: str = ""
    witnesses: tuple[str, ...] = ()


class JudgeWorker:
    """Judges scored parts, and writes their tables."""

    def __init__(
        self,
        places: Places,
        out: Path,
        ends: Ends,
        thresholds: Thresholds,
        reasons: Sequence[Reason],
        *,
        looks: int = 1,
        mismatched: float = 0.0,
    ) -> None:
        self._places, self._folder = places, StageFolder(out)
        self._ends, self._thresholds = ends, thresholds
        self._looks, self._mismatched = looks, mismatched
        self._store = EmbeddingStore.open(places.store)
        self._columns = Columns(places.columns)
        self._words = MismatchedWords.read_if_counted(places.mismatched_words)
        self._carriers = Traced.read(places).carriers()
        self._rankings = {reason: np.load(here(places.ranking(reason)), mmap_mode="r") for reason in reasons}

    def __call__(self, part: StorePart) -> Marker:
        """Judge one part."""
        laps = Laps()
        names = self._store.metadata(part.name, ("uid", "key", "shard"))
        labels = self._places.read_labels(part.name)
        scores, uids = Scores.read(self._places.scores(part.name)), names["uid"].to_list()
        company = scores.company(mismatched=self._mismatched)
        suspicion_N = combined(scores.weighed, self._rankings, looks=self._looks, company=company)
        verdicts = judge(
            uids,
            self._ends.flagged(suspicion_N, uids, labels),
            scores.weighed,
            scores.collisions,
            thresholds=self._thresholds,
            company=company,
        )
        findings = self._findings(part, verdicts, scores)
        files = [table_file(self._folder.path, what, part.name) for what in ("scores", "verdicts")]
        write_parquet(files[0], self._score_table(part, _labelled(names, labels), scores, findings))
        write_parquet(files[1], _verdict_table(verdicts, findings))
        reasons = Counter(reason.value for verdict in verdicts for reason in verdict.reasons)
        tally = self._tally(part, verdicts, seconds=laps.lap("judge"))
        facts = {
            "rows": part.rows,
            "tally": tally.to_json(),
            "reasons": dict(sorted(reasons.items())),
            WORK_KEY: laps.work(part.rows).to_json(),
        }
        return self._folder.commit(part.name, files=files, facts=facts)

    def _findings(self, part: StorePart, verdicts: Sequence[Verdict], scores: Scores) -> dict[int, Finding]:
        """What is shown of each flagged pair, by its place in the part."""
        neighbours_NK = self._places.rows("neighbours", part)
        copies_NK = self._places.rows("copies", part)
        flagged = [place for place, verdict in enumerate(verdicts) if not verdict.kept]
        share_FK, _ = shares_of_kin(self._places, self._places.rows("kin", part)[flagged])
        findings = {}
        for place, share_K in zip(flagged, share_FK, strict=True):
            verdict = verdicts[place]
            neighbours_K, copies_K = _found(neighbours_NK[place]), _found(copies_NK[place])
            sentence = explain(
                verdict,
                caption=self._columns.captions(np.array([part.start + place]))[0],
                neighbour_captions=self._columns.captions(neighbours_K),
                counts=(
                    int(scores.collisions.captions_of_picture_N[place]),
                    int(scores.collisions.pictures_of_caption_N[place]),
                ),
                ranks=(float(scores.rank_N2[place, 0]), float(scores.rank_N2[place, 1])),
                words=WordFacts(frequency=self._columns.frequency, lift=self._lift),
                company=self._company(int(scores.trace_word_N[place]), share_K),
            )
            copies_testify = COPIES_TESTIFY.issuperset(verdict.reasons) and len(copies_K)
            witnesses = self._columns.uids(copies_K if copies_testify else neighbours_K)
            findings[place] = Finding(sentence=sentence, witnesses=tuple(witnesses))
        return findings

    def _company(self, word: int, share_K: NDArray[np.floating]) -> CompanyFacts:
        return CompanyFacts(trace_word=word, carriers=self._carriers.get(word, 1), share_K=share_K)

    def _lift(self, word: str) -> float:
        number = word_number(word)
        return float(self._words.lift(np.array([number]), self._columns.word_counts_W[[number]])[0])

    def _score_table(
        self, part: StorePart, names: polars.DataFrame, scores: Scores, findings: Mapping[int, Finding]
    ) -> polars.DataFrame:
        import polars

        found = [findings.get(place) for place in range(len(names))]
        witnesses = [finding and ";".join(finding.witnesses) for finding in found]
        weighed: dict[str, NDArray[Any]] = {
            "suspicion": self._suspicion(scores),
            "cross_prediction": scores.cross_prediction_N,
            "cross_prediction_percentile": self._percentiles(scores, Reason.PICTURE_AND_CAPTION_DISAGREE),
            "agreement": scores.agreement_N,
            "agreement_percentile": self._percentiles(scores, Reason.NEIGHBOURS_DISAGREE),
            "repetition": scores.repetition_N,
            "word_lift": scores.lift_N,
            "trace": scores.trace_N,
            "kin": scores.kin_N,
        }
        return names.with_columns(
            *(polars.Series(name, values, polars.Float32).fill_nan(None) for name, values in weighed.items()),
            polars.Series("trace_word", self._trace_words(part, scores), polars.String),
            polars.Series("captions_of_picture", scores.collisions.captions_of_picture_N, polars.Int32),
            polars.Series("pictures_of_caption", scores.collisions.pictures_of_caption_N, polars.Int32),
            polars.Series("neighbours", witnesses, polars.String),
        )

    def _trace_words(self, part: StorePart, scores: Scores) -> list[str | None]:
        """Of each pair the word whose trace its picture carries."""
        said: list[str | None] = [None] * part.rows
        for place in np.flatnonzero(scores.trace_word_N >= 0).tolist():
            caption = self._columns.captions(np.array([part.start + place]))[0]
            said[place] = word_of(caption, int(scores.trace_word_N[place]))
        return said

    def _suspicion(self, scores: Scores) -> NDArray[np.float64]:
        company = scores.company(mismatched=self._mismatched)
        collided_N = collides(scores.collisions, self._thresholds)
        return ordering(scores.weighed, self._rankings, collided_N, looks=self._looks, company=company)

    def _percentiles(self, scores: Scores, reason: Reason) -> NDArray[np.float32]:
        return percentiles(scores.weighed[reason], self._rankings.get(reason, np.empty(0, np.float32)))

    def _tally(self, part: StorePart, verdicts: Sequence[Verdict], *, seconds: float) -> Tally:
        failed = Counter[str](self._store.failures(part.name)["reason"].to_list())
        return Tally(
            seen=len(verdicts) + failed.total(),
            quarantined=Counter(verdict.reasons[0].value for verdict in verdicts if not verdict.kept),
            failed=failed,
            seconds=seconds,
        )


def table_file(out: Path, what: str, name: str) -> Path:
    """Where one part's table lies: ``scores`` or ``verdicts``."""
    return out / what / f"{what}_{name}.parquet"


def _labelled(names: polars.DataFrame, labels: Sequence[str | None] | None) -> polars.DataFrame:
    import polars

    return names if labels is None else names.with_columns(polars.Series(LABEL_COLUMN, labels, polars.String))


def _found(row_K: NDArray[np.int64]) -> NDArray[np.int64]:
    return row_K[row_K >= 0]


def _verdict_table(verdicts: Sequence[Verdict], findings: Mapping[int, Finding]) -> polars.DataFrame:
    import polars

    shown = [findings.get(place, Finding()) for place in range(len(verdicts))]
    columns: dict[str, list[Any]] = {
        "uid": [verdict.uid for verdict in verdicts],
        "kept": [verdict.kept for verdict in verdicts],
        "reasons": [";".join(verdict.reasons) for verdict in verdicts],
        "sentence": [finding.sentence for finding in shown],
        "neighbours": [";".join(finding.witnesses[:NEIGHBOURS_SHOWN]) for finding in shown],
    }
    kinds = dict.fromkeys(columns, polars.String) | {"kept": polars.Boolean}
    return polars.DataFrame(columns, schema=kinds)
