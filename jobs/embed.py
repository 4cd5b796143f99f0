r"""Turn shards into an embedding store.

    ray job submit --working-dir . -- python jobs/embed.py \
        --shards '/data/{00000..00331}.tar' --out /runs/clean/store

Needs    workers with one core each, or --gpus-per-worker 1 for a CLIP.
Takes    decoding every picture: that sets the pace of plain features; of a CLIP its image tower does.
Writes   OUT/img_emb/, OUT/text_emb/, OUT/metadata/ in clip-retrieval's layout; failures/.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip embed``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["embed", *sys.argv[1:]])
