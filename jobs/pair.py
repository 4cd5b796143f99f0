r"""Give every image the most similar caption, as RoCLIP does.

    ray job submit --working-dir . -- python jobs/pair.py \
        --store /runs/clean/store --index-text /runs/text_index --method final --out /runs/pairs

Needs    workers that hold the index's parts in memory.
Takes    one search per pair.
Writes   OUT/pairs/*.parquet, by uid.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip pair``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["pair", *sys.argv[1:]])
