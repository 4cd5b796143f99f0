r"""Fetch the pictures of URL lists into shards, and list each URL that failed.

    ray job submit --working-dir . -- python jobs/ingest.py \
        --urls '/lists/cc12m.tsv' --out /data/cc12m --executor ray

Needs    workers with one core each, and a way out to the network; a name server that stands thousands of
         look-ups a second.
Takes    as long as the network does: --concurrency requests of each worker at once.
Writes   OUT: shards, pairs/, failures/, domains.parquet.
Resumes  submit it again: shards with a completion marker are skipped. OUT/failures is a list for another
         ingest, into another folder.

Options are those of ``roclip ingest``; jobs/recipes/ has run files for public lists.
"""

from __future__ import annotations

import sys

from roclip_sanitize.cli import run

if __name__ == "__main__":
    run(["ingest", *sys.argv[1:]])
