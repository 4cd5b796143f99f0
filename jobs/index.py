r"""Build a FAISS index over a store, in parts, and measure its recall.

    ray job submit --working-dir . -- python jobs/index.py \
        --store /runs/clean/store --transform pca96 --out /runs/clean/index

Needs    workers with memory for one part each; the store on storage that all nodes see.
Takes    reading the vectors once; approximate kinds learn from a sample first.
Writes   OUT/part_*.faiss, OUT/rows_*.npy; the measured recall in OUT/complete.json.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip index``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["index", *sys.argv[1:]])
