r"""Hold every picture of the shards against lists of known-bad ones.

    ray job submit --working-dir . -- python jobs/screen.py \
        --shards '/data/{00000..00331}.tar' --known-bad /lists/hashes.txt --out /runs/screen

Needs    workers with one core each, and the lists in the memory of each.
Takes    one read of the shards; with pHashes on a list, a decoding of every picture.
Writes   OUT/screened, and OUT/listed.npy for rewrite --also-drop.
Resumes  submit it again: shards with a completion marker are skipped.

Options are those of ``roclip screen``.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["screen", *sys.argv[1:]])
