r"""Score the pairs of a CLIP's store by published detectors.

    ray job submit --working-dir . -- python jobs/score.py \
        --store /runs/clip_store --detectors slof,clip_score --out /runs/scores

Needs    workers with one core each, and the reference pairs in the memory of each.
Takes    a matrix product of each part with the reference pairs.
Writes   OUT/scores, and OUT/worst.npy with --worst.
Resumes  submit it again: parts with a completion marker are skipped.

Options are those of ``roclip score``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["score", *sys.argv[1:]])
