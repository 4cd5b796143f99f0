"""How the cost of each stage grows: ten times the pairs, how many times the seconds?

    python -m benchmarks.growth [--quick] [--pairs N]

Renders N and 10 N captioned scenes, in shards of equal size, and runs every stage that handles
all pairs on both, in this process and on one core's worth of work at a time. Seconds of the small
corpus are the median of three runs in fresh folders; the large one runs once.

Exact search compares every pair with every other, so that scan and pair are expected to miss
the target with it: the table says by how much, and from which size an approximate index pays.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.claims import Claim, report
from roclip_sanitize.corpus.render import render_corpus
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.pairing import PairSettings, pair_store
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.shards import expand_shards

FACTOR = 10
MOST = 10.5
PAIRS_PER_SHARD = 500
SMALL_RUNS = 3


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    pairs = 500 if told.quick else told.pairs
    executor = open_executor("local")
    with tempfile.TemporaryDirectory(prefix="roclip-growth-") as folder:
        small = _render(Path(folder) / "small", pairs, executor)
        large = _render(Path(folder) / "large", FACTOR * pairs, executor)
        runs = [measure(small, Path(folder) / "run", executor) for _ in range(SMALL_RUNS)]
        before = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
        after = measure(large, Path(folder) / "run", executor)
    _show(before, after, pairs)
    report("growth", [_claim(stage, before[stage], after[stage]) for stage in before])


def measure(shards: tuple[Path, ...], run: Path, executor: Executor) -> dict[str, float]:
    """Seconds of each stage on some shards, in a folder that is made anew."""
    shutil.rmtree(run, ignore_errors=True)
    store, image, text = run / "store", run / "index_image", run / "index_text"
    stages: dict[str, Callable[[], object]] = {
        "embed": lambda: embed_shards(
            EmbedSettings(shards=shards, encoder="plain"), out=store, executor=executor
        ),
        "index": lambda: build_index(
            IndexSettings(store=store, transform="pca96"), out=image, executor=executor
        ),
        "scan": lambda: scan_store(
            ScanSettings(store=store, index=image), out=run / "scan", executor=executor
        ),
        "rewrite": lambda: rewrite_shards(
            RewriteSettings(store=store, verdicts=run / "scan"), out=run / "rewrite", executor=executor
        ),
        "pair": lambda: _pair(store, image, text, run / "pairs", executor),
    }
    return {name: _seconds(stage) for name, stage in stages.items()}


def _pair(store: Path, image: Path, text: Path, out: Path, executor: Executor) -> None:
    build_index(IndexSettings(store=store, modality="text"), out=text, executor=executor)
    settings = PairSettings(store=store, index_text=text, index_image=image, method="first")
    pair_store(settings, out=out, executor=executor)


def _render(folder: Path, pairs: int, executor: Executor) -> tuple[Path, ...]:
    count = max(1, pairs // PAIRS_PER_SHARD)
    render_corpus(folder, pairs=pairs, shards=count, seed=0, executor=executor, split="train")
    return tuple(expand_shards(f"{folder}/{{00000..{count - 1:05d}}}.tar"))


def _seconds(stage: Callable[[], object]) -> float:
    started = time.perf_counter()
    stage()
    return time.perf_counter() - started


def _show(before: dict[str, float], after: dict[str, float], pairs: int) -> None:
    print(f"{'stage':10}{f'{pairs:,} pairs, s':>18}{f'{FACTOR * pairs:,} pairs, s':>18}{'times':>8}")
    for stage, seconds in before.items():
        print(f"{stage:10}{seconds:>18.2f}{after[stage]:>18.2f}{after[stage] / seconds:>8.1f}")


def _claim(stage: str, before: float, after: float) -> Claim:
    ratio = after / before
    name = f"{stage}: seconds for {FACTOR} times the pairs"
    return Claim(name=name, value=ratio, target=f"<= {MOST}", holds=ratio <= MOST)


if __name__ == "__main__":
    main()
