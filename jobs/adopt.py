r"""Turn embeddings that are there already into a store, without embedding again.

    ray job submit --working-dir . -- python jobs/adopt.py \
        --embeddings /laion/emb --shards '/data/{00000..00331}.tar' --model ViT-B-32/openai --out /runs/store

Needs    workers with one core each; the keys of all embeddings in the memory of each.
Takes    reading the shards once.
Writes   OUT, an embedding store as ``roclip embed`` writes it.
Resumes  submit it again: shards with a completion marker are skipped.

Options are those of ``roclip adopt``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["adopt", *sys.argv[1:]])
