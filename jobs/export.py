r"""Write what a scan found as a data set that FiftyOne opens.

    ray job submit --working-dir . -- python jobs/export.py \
        --scan /runs/clean/scan --out /runs/clean/fiftyone

Needs    workers with one core each, that reach the scan, its store and the shards.
Takes    one read of the shards that hold a pair to export.
Writes   OUT/samples.json and OUT/data, for fiftyone.types.FiftyOneDataset.
Resumes  submit it again: parts with a completion marker are skipped.

Options are those of ``roclip export``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["export", *sys.argv[1:]])
