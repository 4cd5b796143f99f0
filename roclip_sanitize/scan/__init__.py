"""Which pairs look poisoned, and why: the ``scan`` stage.

    columns.py      what is looked up of any pair, by row
    search.py       each picture's neighbours and near-copies, from the index
    cross_rounds.py detector: can each half of a pair be told from the other? halves.py has its rows,
                    directions.py where these differ most, cross_files.py what it leaves on its way,
                    cross_judged.py what it says in the end
    word_lift.py    what its words say of a pair beforehand
    traces.py       detector: has its picture in common with mismatched ones what others with its word lack?
                    trace_rounds.py finds it over a store, round by round; suspects.py says who is asked about
                    in a round, traced.py judges it
    kin.py          detector: do the pairs with the pictures most like its own fail to match, too?
    agreement.py    detector: does the caption use its neighbours' words?
    repetition.py   detector: do pictures like its own have exactly its caption?
    collisions.py   detector: one picture with many captions, or the reverse
    verdicts.py     scores → verdicts; long_tail.py spares rare classes, where they are known; explain.py puts
                    verdicts in words
    uids.py         uids as numbers, and the list of flagged ones; keep_list.py those that are kept
    parts.py        the work on one store part: columns, evidence; scoring.py scores, judging.py verdicts
    stage.py        scan_store(): all of it, in order; settings.py what it is told, results.py what it says
    quality.py      how good the verdicts are, where the poisons are known

Detectors and verdicts are pure arithmetic; files are columns', search's, parts' and stage's business.
"""

from __future__ import annotations

from roclip_sanitize.scan.quality import Quality, detection_quality
from roclip_sanitize.scan.results import read_scores, read_verdicts
from roclip_sanitize.scan.settings import ScanSettings
from roclip_sanitize.scan.stage import scan_store

__all__ = ["Quality", "ScanSettings", "detection_quality", "read_scores", "read_verdicts", "scan_store"]
