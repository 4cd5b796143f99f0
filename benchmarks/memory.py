"""Does memory stay flat as shards are added? Peak resident memory at N pairs and at 10 N.

    python -m benchmarks.memory [--pairs N] [--quick]

    read      walk every shard and hash every picture
    copy      copy every pair into a new shard, as a worker of rewrite or poison does
    rewrite   the whole stage in one process, driver included, a tenth of the pairs set aside

Shards of 1,000 pairs are generated, their pictures noise of 16 px; N pairs are the first tenth of the
shards. The store and the scan that rewrite needs are written as tables, since what embedding and scanning
cost is not the question here. Each pass runs in a process of its own, whose peak is what the kernel says
(VmHWM: mapped files count as far as they were touched). --quick takes N = 5,000 instead of 100,000.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.claims import Claim, report
from benchmarks.reading import noise_shard
from roclip_sanitize.executors import open_executor
from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard, expand_shards
from roclip_sanitize.store import METADATA_COLUMNS, metadata_file, write_failures, write_parquet

PAIRS = 100_000
QUICK_PAIRS = 5_000
FACTOR = 10
PAIRS_PER_SHARD = 1_000
SIDE_PX = 16
FLAGGED = 10  # one pair in so many is set aside
SLACK = 0.1
MIB = 1 << 20


def main() -> None:
    """Measure, and print how many times the memory ten times the pairs take."""
    told = _arguments()
    if told.measure:
        PASSES[told.measure](told.shards, told.run)
        print(_peak_bytes())
        return
    pairs = QUICK_PAIRS if told.quick else told.pairs
    with tempfile.TemporaryDirectory(prefix="roclip-memory-") as folder:
        shards = _generate(Path(folder) / "shards", FACTOR * pairs)
        few = shards[: len(shards) // FACTOR]
        peaks = {
            name: [_peak_of(name, some, Path(folder) / f"{name}_{len(some)}") for some in (few, shards)]
            for name in PASSES
        }
    _show(peaks, pairs)
    report("memory", [_claim(name, *peak) for name, peak in peaks.items()])


def read(shards: Sequence[Path], run: Path) -> None:
    """Walk every shard and hash every picture."""
    for path in shards:
        with Shard(path) as shard:
            for pair in shard.pairs():
                assert pair.image_hash


def copy(shards: Sequence[Path], run: Path) -> None:
    """Copy every pair, shard by shard."""
    for path in shards:
        with Shard(path) as shard, ShardWriter(run / path.name) as writer:
            for pair in shard.pairs():
                writer.copy(shard, pair)


def rewrite(shards: Sequence[Path], run: Path) -> None:
    """Split every shard by verdicts, as the command does."""
    settings = RewriteSettings(store=run / "store", verdicts=run / "scan")
    tally = rewrite_shards(settings, out=run / "rewrite", executor=open_executor("local"))
    assert tally.kept + tally.quarantined.total() == len(shards) * PAIRS_PER_SHARD


PASSES: dict[str, Callable[[Sequence[Path], Path], None]] = {"read": read, "copy": copy, "rewrite": rewrite}


def _generate(folder: Path, pairs: int) -> list[Path]:
    shards = max(FACTOR, pairs // PAIRS_PER_SHARD)
    return [
        noise_shard(folder / f"{number:05d}.tar", pairs=PAIRS_PER_SHARD, side=SIDE_PX, seed=number)
        for number in range(shards)
    ]


def _peak_of(name: str, shards: Sequence[Path], run: Path) -> int:
    """Bytes that a pass took at most, in a fresh process."""
    if name == "rewrite":
        _write_tables(shards, run)
    span = f"{shards[0].parent}/{{{shards[0].stem}..{shards[-1].stem}}}.tar"
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", name, "--shards", span]
    told = subprocess.run([*command, "--run", str(run)], check=True, capture_output=True, text=True)
    return int(told.stdout)


def _peak_bytes() -> int:
    """Peak of this process alone. getrusage() would count that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, "the kernel tells no VmHWM: this runs on Linux"
    return int(found[1]) << 10


def _write_tables(shards: Sequence[Path], run: Path) -> None:
    """A store and a scan of the shards, as far as rewrite reads them."""
    encoder = {"digest": "none", "joint": False}
    settings = {"encoder": encoder, "shards": [str(path) for path in shards]}
    store = StageFolder.create(run / "store", stage="embed", settings=settings)
    scan = StageFolder.create(run / "scan", stage="scan", settings={"store": str(run / "store")})
    for number, path in enumerate(shards):
        _write_part(store, scan, path, f"{number:05d}")
    store.finish({})
    scan.finish({})


def _write_part(store: StageFolder, scan: StageFolder, path: Path, name: str) -> None:
    import polars

    with Shard(path) as shard:
        rows = [(pair.uid, pair.key, path.name, pair.caption, pair.image_hash) for pair in shard.pairs()]
    names = polars.DataFrame(rows, schema=dict.fromkeys(METADATA_COLUMNS, polars.String), orient="row")
    kept = [int(uid, 16) % FLAGGED > 0 for uid in names["uid"]]
    verdicts = names.select("uid").with_columns(
        kept=polars.Series(kept),
        reasons=polars.Series(["" if keep else Reason.NEIGHBOURS_DISAGREE.value for keep in kept]),
        sentence=polars.lit(""),
        neighbours=polars.lit(""),
    )
    verdict_file = scan.path / "verdicts" / f"verdicts_{name}.parquet"
    write_parquet(metadata_file(store.path, name), names)
    write_parquet(verdict_file, verdicts)
    facts = {"rows": len(rows), "tally": Tally(seen=len(rows)).to_json()}
    files = [metadata_file(store.path, name), write_failures(store.path, name, [])]
    store.commit(name, files=files, facts=facts)
    scan.commit(name, files=[verdict_file], facts=facts)


def _show(peaks: dict[str, list[int]], pairs: int) -> None:
    print(f"\n{'peak memory, MiB':18}{f'{pairs:,} pairs':>18}{f'{FACTOR * pairs:,} pairs':>18}")
    for name, (few, many) in peaks.items():
        print(f"{name:18}{few / MIB:>18,.1f}{many / MIB:>18,.1f}")


def _claim(name: str, few: int, many: int) -> Claim:
    ratio = many / few
    return Claim(
        name=f"{name}, memory at {FACTOR} times the pairs",
        value=ratio,
        target=f"<= {1 + SLACK}",
        holds=ratio <= 1 + SLACK,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure", choices=sorted(PASSES), help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=expand_shards, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
