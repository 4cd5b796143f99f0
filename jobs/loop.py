r"""The closed loop on a labelled dataset: poison a copy, clean it, train with and without, compare.

    ray job submit --working-dir . -- python jobs/loop.py \
        --shards '/data/{00000..00331}.tar' --test-shards /data/test.tar --label class --run /runs/loop

Needs    a core per worker; GPUs are not asked for, so that small models suit it best.
Takes    all stages after each other, and three trainings.
Writes   RUN/report.html, RUN/results.json, and a folder for each stage.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip demo``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["demo", *sys.argv[1:]])
