r"""Plant known attacks in a copy of a dataset, with a ledger of every poisoned pair: ground truth for tests.

    ray job submit --working-dir . -- python jobs/poison.py \
        --shards '/data/{00000..00331}.tar' --label class --out /runs/poisoned --attacks patch:rate=0.003

Needs    workers with one core each; a label in each pair's JSON; OUT on storage that all nodes see.
Takes    reading every shard twice and writing it once; only chosen pictures are decoded.
Writes   OUT/shards/*.tar, OUT/ledger.parquet, OUT/ledger.json, OUT/targets/.
Resumes  submit it again: what has a completion marker is skipped.

Options are those of ``roclip poison``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["poison", *sys.argv[1:]])
