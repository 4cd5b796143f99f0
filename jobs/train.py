r"""Train CLIP on shards, plainly or robustly.

    ray job submit --working-dir . -- python jobs/train.py \
        --train-data '/runs/clean/rewrite/kept/{00000..00331}.tar' --workers 8 --gpus-per-worker 1 \
        --out /runs/model

Needs    as many GPUs as --workers at the same time; room for a cache of decoded pictures.
Takes    a step for every --batch-size pairs of every epoch; roclip status OUT tells the time left.
Writes   OUT/model/weights.safetensors, which open_clip loads; OUT/log.jsonl, OUT/tensorboard/, checkpoints.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip train``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
