r"""Clean one dataset on a Ray cluster: shards in, kept and quarantined shards out.

    ray job submit --working-dir . -- python jobs/sanitize.py \
        --shards '/data/{00000..00331}.tar' --out /runs/clean

Needs    workers with one core each, and a GPU each (--gpus-per-worker 1) where there are any; shards
         and OUT on storage that all nodes see.
Takes    two small CLIPs trained for an epoch, one after the other, which sets the pace; reading every
         shard five times and writing it once. --young-clips 0 trains none: it reads them twice.
Writes   OUT/rewrite/kept/*.tar, OUT/rewrite/quarantined/*.tar, OUT/rewrite/keep.npy, and the
         stages before it: OUT/store, OUT/index, OUT/young_*, OUT/scan.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip sanitize``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["sanitize", *sys.argv[1:]])
