r"""Write kept and quarantined shards by a scan's verdicts.

    ray job submit --working-dir . -- python jobs/rewrite.py \
        --store /runs/clean/store --verdicts /runs/clean/scan --out /runs/clean/rewrite

Needs    workers with one core each; room for a copy of the dataset.
Takes    reading and writing every shard once; nothing is decoded.
Writes   OUT/kept/*.tar, OUT/quarantined/*.tar, OUT/keep.npy, OUT/manifest.json.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip rewrite``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["rewrite", *sys.argv[1:]])
