r"""Score every pair of a store, and decide which to set aside.

    ray job submit --working-dir . -- python jobs/scan.py \
        --store /runs/clean/store --index /runs/clean/index --out /runs/clean/scan

Needs    workers with one core each; they see blocks of a part, never the whole store.
Takes    several rounds over the vectors, in sums; agreement adds a search per pair.
Writes   OUT/verdicts/ and OUT/scores/ in parquet, a sentence for each flagged pair.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip scan``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["scan", *sys.argv[1:]])
