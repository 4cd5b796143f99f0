r"""List the nearest pairs of every pair.

    ray job submit --working-dir . -- python jobs/match.py \
        --store /runs/clean/store --index /runs/clean/index --out /runs/matches

Needs    workers that hold the index's parts in memory.
Takes    one search per pair.
Writes   OUT/matches/*.parquet, by uid.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip match``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["match", *sys.argv[1:]])
