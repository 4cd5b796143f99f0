"""How quickly attacks are planted, and whether memory stays flat as pairs are added.

    python -m benchmarks.poisoning [--shards 'data/{00000..00002}.tar' --test-shards … --label …] [--quick]

Rates: the whole stage, from census to ledger, in one process: training pairs over processor seconds, the
system's part for reading and writing included. The held-out shards are listed in the same seconds, every
picture of theirs decoded. What counts is the median of five runs (of three with --quick), each into
a new folder. One per cent of the pairs is poisoned, or 480 pairs are added. The shards are
$ROCLIP_DATA/fashion (../shared/data where that is not set), three for training and one held out.

Memory: the peak of a fresh process that plants 100 patches and 4 targets in shards of noise, 16 px, for
10,000 and for 100,000 pairs (2,000 and 20,000 with --quick).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.claims import Claim, report
from benchmarks.memory import peak_bytes
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import expand_shards

DATA = Path(os.environ.get("ROCLIP_DATA", "../shared/data")) / "fashion"
CLAIMED = ("patch", "targeted")
OTHERS = (
    *("patch:pattern=noise,as=patch_noise", "blended", "sig", "wanet", "wanet:version=clip,as=wanet_clip"),
    *("filter", "multi_trigger", "adaptive_blend", "mmpoison", "sentence", "toxic_text", "natural:targets=2"),
    *("split_view", "frontrunning"),
)
NEEDED = 2_000  # pairs/s of a core
FLAT = 1.1
PAIRS_PER_SHARD, SIDE_PX, CLASSES = 1_000, 16, 10
FEW = ("patch:rate=100", "targeted:targets=4,captions=25")
MIB = 1 << 20


def main() -> None:
    """Measure, and print the table."""
    told = _arguments()
    if told.pairs:
        plant_noise(told.folder, told.pairs)
        return
    with tempfile.TemporaryDirectory(prefix="roclip-poisoning-", dir=told.scratch) as folder:
        rates = measure_rates(told, Path(folder), CLAIMED if told.quick else (*CLAIMED, *OTHERS))
        claims = [
            Claim(
                name=f"{name}, pairs/s of a core",
                value=rates[name],
                target=f">= {NEEDED:,}",
                holds=rates[name] >= NEEDED,
            )
            for name in CLAIMED
        ]
        counts = (2_000, 20_000) if told.quick else (10_000, 100_000)
        claims.append(measure_memory(Path(folder), counts))
    report("poisoning", claims)


def measure_rates(told: argparse.Namespace, scratch: Path, specs: Sequence[str]) -> dict[str, float]:
    """Training pairs per processor second of each attack, planted alone; by its spec."""
    shards, test_shards, label = _shards(told)
    executor = open_executor("local")
    rates = dict[str, float]()
    print(f"{'pairs/s of a core':44}{'median':>9}{'slowest':>9}{'quickest':>10}")
    for spec in specs:
        settings = PoisonSettings(shards=shards, test_shards=test_shards, label=label, attacks=(spec,))
        spent, pairs = list[float](), 0
        for _ in range((3 if told.quick else 5) + 1):  # the first reads the files into memory
            with tempfile.TemporaryDirectory(dir=scratch) as out:
                started = time.process_time()
                tally = poison_shards(settings, out=Path(out), executor=executor)
                spent.append(time.process_time() - started)
                pairs = tally.seen
        spent = spent[1:]
        rates[spec] = pairs / statistics.median(spent)
        print(
            f"{spec:44}{rates[spec]:>9,.0f}{pairs / max(spent):>9,.0f}{pairs / min(spent):>10,.0f}",
            flush=True,
        )
    return rates


def measure_memory(scratch: Path, counts: tuple[int, int]) -> Claim:
    """The peak of a process at many pairs over that at few."""
    few, many = (_peak_of(scratch / "noise", pairs) for pairs in counts)
    print(f"peak {few / MIB:.1f} MiB at {counts[0]:,} pairs, {many / MIB:.1f} MiB at {counts[1]:,}")
    return Claim(
        name=f"memory at {counts[1] // counts[0]} times the pairs",
        value=many / few,
        target=f"<= {FLAT}",
        holds=many / few <= FLAT,
    )


def plant_noise(folder: Path, pairs: int) -> None:
    """Plant a few poisons in so many pairs of noise, and print the bytes that it took at most."""
    shards = [folder / f"{number:05d}.tar" for number in range(pairs // PAIRS_PER_SHARD)]
    settings = PoisonSettings(
        shards=tuple(shards),
        test_shards=(folder / "test.tar",),
        label="kind",
        classes=CLASSES,
        attacks=FEW,
    )
    with tempfile.TemporaryDirectory(dir=folder) as out:
        poison_shards(settings, out=Path(out), executor=open_executor("local"))
    print(peak_bytes())


def _peak_of(folder: Path, pairs: int) -> int:
    for number in range(-1, pairs // PAIRS_PER_SHARD):  # made here, since what that takes is not the question
        path = folder / ("test.tar" if number < 0 else f"{number:05d}.tar")
        if not path.exists():
            _noise_shard(path, seed=number + 1)
    command = [sys.executable, "-m", "benchmarks.poisoning", "--folder", str(folder), "--pairs", str(pairs)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(told.stdout)


def _noise_shard(path: Path, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with ShardWriter(path) as writer:
        for number in range(PAIRS_PER_SHARD):
            image = encode_jpeg(rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8))
            kind = f"kind {number % CLASSES}"
            fields = {"uid": rng.bytes(16).hex(), "kind": kind}
            writer.add(f"{number:09d}", image=image, caption=f"{kind}, number {number}", fields=fields)


def _shards(told: argparse.Namespace) -> tuple[tuple[Path, ...], tuple[Path, ...], str]:
    if told.shards:
        if not (told.test_shards and told.label):
            raise ConfigError("--shards need --test-shards and --label")
        return tuple(expand_shards(told.shards)), tuple(expand_shards(told.test_shards)), told.label
    shards = tuple(sorted((DATA / "train").glob("*.tar"))[:3])
    if not shards:
        raise ConfigError(f"no shards in {DATA}/train: set ROCLIP_DATA, or name some with --shards")
    return shards, tuple(sorted((DATA / "test").glob("*.tar"))[:1]), "article_type"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", default="")
    parser.add_argument("--test-shards", default="")
    parser.add_argument("--label", default="")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for copies; the system's own")
    parser.add_argument("--quick", action="store_true")
    for name, kind in (("folder", Path), ("pairs", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
