r"""Ask a scan how much it finds of known attacks made of its own pairs.

    ray job submit --working-dir . -- python jobs/canaries.py \
        --scan /runs/clean/scan --out /runs/clean/canaries

Needs    workers with one core each; room for the scan's store once more, and the shards that it names.
Takes    the scan and its index once more, and embedding a few hundred pairs.
Writes   OUT/canaries.json: planted, found and recall of each attack, with its interval.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip canaries``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["canaries", *sys.argv[1:]])
