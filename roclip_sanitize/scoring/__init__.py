"""Published detectors, each a score of every pair: the ``score`` stage.

    contract.py    what a detector is: a few reference pairs in, one score per pair out
    density.py     kdistance, slof, lid, dao: how alone a picture is among the others
    released.py    the same as the code that came with the paper computes it
    mismatch.py    clip_score, rematch_rank: how little a picture and its caption have in common
    reference.py   which pairs others are held against
    vectors.py     those that look at vectors, over a store
    stage.py       all of them over a store, part by part; the worst as a list of uids

They judge in the vectors of a CLIP. What ``roclip scan`` decides does not rest on them: they are there to be
looked at, to be compared, and for ``roclip rewrite --also-drop``.
"""

from roclip_sanitize.scoring.stage import ScoreSettings, score_limits, score_pairs

__all__ = ["ScoreSettings", "score_limits", "score_pairs"]
