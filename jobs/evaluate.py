r"""Measure trained models on test shards: accuracy, retrieval, attack success.

    ray job submit --working-dir . -- python jobs/evaluate.py \
        --arm plain=/runs/model --test-shards /data/test.tar --label class --out /runs/measured

Needs    workers with a GPU each (--gpus-per-worker 1), or some patience.
Takes    encoding the test pairs once per model and snapshot.
Writes   OUT/results.json, OUT/curves.json, OUT/split.json, OUT/clip_benchmark.json.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip evaluate``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])
