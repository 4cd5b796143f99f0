"""Sanitise one dataset on a Ray cluster: shards in, kept and quarantined shards out.

    ray job submit --working-dir . -- python -m jobs.sanitize --shards 's/{00000..00331}.tar' --out runs/cc3m

Needs    workers with one core each; shards and OUT on storage that all nodes see.
Takes    not measured on a cluster yet; decoding sets the pace.
Writes   OUT/rewrite/kept/*.tar, OUT/rewrite/quarantined/*.tar, OUT/rewrite/keep.npy, and the
         stages before it: OUT/store, OUT/index, OUT/scan.
Resumes  submit it again: shards with a completion marker are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors import open_executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.scan.stage import ScanSettings, scan_store
from roclip_sanitize.shards import expand_shards


def main() -> None:
    """Run the four stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=0.06)
    parser.add_argument("--workers", type=int, default=0)
    told = parser.parse_args()
    executor = open_executor("ray", workers=told.workers)
    out: Path = told.out
    embed = EmbedSettings(shards=tuple(expand_shards(told.shards)), encoder="plain")
    embed_shards(embed, out=out / "store", executor=executor)
    index = IndexSettings(store=out / "store", transform="pca96")
    build_index(index, out=out / "index", executor=executor)
    scan = ScanSettings(store=out / "store", index=out / "index", budget=told.budget)
    scan_store(scan, out=out / "scan", executor=executor)
    rewrite = RewriteSettings(store=out / "store", verdicts=out / "scan")
    tally = rewrite_shards(rewrite, out=out / "rewrite", executor=executor)
    print(json.dumps(tally.to_json()))


if __name__ == "__main__":
    main()
