"""Does memory stay flat as pairs are added? And what does a pair cost where it cannot?

    python -m benchmarks.memory [--only NAME,NAME] [--quick]

Flat: the peak at several times the pairs is at most 1.1 times the peak.

    read      walk every shard and hash every picture
    copy      copy every pair into a new shard, as a worker of rewrite or poison does
    rewrite   the whole stage, driver included, a tenth of the pairs set aside
    scan      all of it, pictures of width 96. Up to here its peak is what weighing words takes once, 2**20
              of them; vectors, columns and the driver's 60 bytes a pair grow beneath, unseen

Growing with what must be held, the float32 vectors of one part, all of them here: each pair more costs
at most 1.2 times its vector.

    index     build a flat index of captions, width 512, in one part
    pair      RoCLIP's final pairing by that index

Each pass runs in a process of its own, driver and worker together, whose peak is what the kernel says
(VmHWM: mapped files count as far as they were touched). Shards of 1,000 pairs are generated, their
pictures noise of 16 px; vectors are noise, in parts of 2,000 rows. Stores, scans and indexes that a pass
reads are written beforehand, in processes of their own, since their cost is not the question here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.claims import Claim, report
from benchmarks.reading import noise_shard
from roclip_sanitize.executors import open_executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.pairing import PairSettings, pair_store
from roclip_sanitize.records import Reason, Tally
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import (
    METADATA_COLUMNS,
    MODALITIES,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)

if TYPE_CHECKING:
    import polars

PAIRS_PER_SHARD = 1_000
SIDE_PX = 16
FLAGGED = 10  # one pair in so many is set aside
ROWS_PER_PART = 2_000
CLIP_WIDTH, PLAIN_WIDTH = 512, 96
HOLDS_VECTORS = ("index", "pair")
WORDS = ("the", "old", "red", "house", "car", "dog", "with", "small", "tree", "boat", "shoe", "blue")
FLAT, HELD = 1.1, 1.2
MIB = 1 << 20
LOCAL = open_executor("local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What is measured.

    Attributes:
        prepare: writes what it reads: from the folder of all shards, into its own, for so many pairs.
        run: does it, likewise.
        pairs: few and many.
        quick: the same with --quick.
    """

    prepare: Callable[[Path, Path, int], None]
    run: Callable[[Path, Path, int], None]
    pairs: tuple[int, int]
    quick: tuple[int, int]


def main() -> None:
    """Measure, and print what few and many pairs take."""
    told = _arguments()
    if told.step:
        part = PASSES[told.pass_name]
        getattr(part, told.step)(told.shards, told.folder, told.pairs)
        print(peak_bytes())
        return
    with tempfile.TemporaryDirectory(prefix="roclip-memory-", dir=told.scratch) as scratch:
        claims = []
        for name in told.only:
            pairs = PASSES[name].quick if told.quick else PASSES[name].pairs
            few, many = (_peak_of(name, count, Path(scratch)) for count in pairs)
            print(f"{name:10}{few / MIB:>10,.1f} MiB at {pairs[0]:>9,} pairs", end="")
            print(f"{many / MIB:>10,.1f} MiB at {pairs[1]:>9,} pairs", flush=True)
            claims.append(_claim(name, few, many, pairs))
    report("memory", claims)


# Passes over shards


def shards_of(shards: Path, folder: Path, pairs: int) -> None:
    """Generate the shards that are not there yet."""
    for number, path in enumerate(_paths(shards, pairs)):
        if not path.exists():
            noise_shard(path, pairs=PAIRS_PER_SHARD, side=SIDE_PX, seed=number)


def read(shards: Path, folder: Path, pairs: int) -> None:
    """Walk every shard and hash every picture."""
    for path in _paths(shards, pairs):
        with Shard(path) as shard:
            for pair in shard.pairs():
                assert pair.image_hash


def copy(shards: Path, folder: Path, pairs: int) -> None:
    """Copy every pair, shard by shard."""
    for path in _paths(shards, pairs):
        with Shard(path) as shard, ShardWriter(folder / path.name) as writer:
            for pair in shard.pairs():
                writer.copy(shard, pair)


def tables_of(shards: Path, folder: Path, pairs: int) -> None:
    """A store and a scan of the shards, as far as rewrite reads them."""
    shards_of(shards, folder, pairs)
    paths = _paths(shards, pairs)
    settings = {"encoder": {"digest": "none", "joint": False}, "shards": [str(path) for path in paths]}
    store = StageFolder.create(folder / "store", stage="embed", settings=settings)
    scan = StageFolder.create(folder / "scan", stage="scan", settings={"store": str(folder / "store")})
    for number, path in enumerate(paths):
        _write_tables(store, scan, path, f"{number:05d}")
    store.finish({})
    scan.finish({})


def rewrite(shards: Path, folder: Path, pairs: int) -> None:
    """Split every shard by verdicts, as the command does."""
    settings = RewriteSettings(store=folder / "store", verdicts=folder / "scan")
    tally = rewrite_shards(settings, out=folder / "rewrite", executor=LOCAL)
    assert tally.kept + tally.quarantined.total() == pairs


def _paths(shards: Path, pairs: int) -> list[Path]:
    return [shards / f"{number:05d}.tar" for number in range(pairs // PAIRS_PER_SHARD)]


def _write_tables(store: StageFolder, scan: StageFolder, path: Path, name: str) -> None:
    import polars

    with Shard(path) as shard:
        rows = [(pair.uid, pair.key, path.name, pair.caption, pair.image_hash) for pair in shard.pairs()]
    names = _write_names(store, name, rows)
    kept = [int(uid, 16) % FLAGGED > 0 for uid in names["uid"]]
    verdicts = names.select("uid").with_columns(
        kept=polars.Series(kept),
        reasons=polars.Series(["" if keep else Reason.NEIGHBOURS_DISAGREE.value for keep in kept]),
        sentence=polars.lit(""),
        neighbours=polars.lit(""),
    )
    path = scan.path / "verdicts" / f"verdicts_{name}.parquet"
    write_parquet(path, verdicts)
    scan.commit(name, files=[path], facts={"rows": len(rows), "tally": Tally(seen=len(rows)).to_json()})


# Passes over vectors


def vectors_of(folder: Path, pairs: int, *, width: int) -> Path:
    """A store of unit vectors that point anywhere, with captions of a few words."""
    encoder = {"digest": "none", "joint": True}
    parts = range(pairs // ROWS_PER_PART)
    settings = {"encoder": encoder, "shards": [f"{number:05d}.tar" for number in parts]}
    store = StageFolder.create(folder / "store", stage="embed", settings=settings)
    for number in parts:
        rng, name = np.random.default_rng(number), f"{number:05d}"
        for modality in MODALITIES:
            vectors_ND = rng.normal(size=(ROWS_PER_PART, width))
            vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
            write_vectors(vectors_file(store.path, name, modality), vectors_ND)
        _write_names(store, name, list(_generated_names(rng, name)))
    store.finish({})
    return store.path


def clip_store(shards: Path, folder: Path, pairs: int) -> None:
    """What index reads."""
    vectors_of(folder, pairs, width=CLIP_WIDTH)


def index(shards: Path, folder: Path, pairs: int) -> None:
    """Build a flat index of the captions in one part."""
    settings = IndexSettings(store=folder / "store", modality="text", parts=1)
    assert build_index(settings, out=folder / "index", executor=LOCAL)["rows"] == pairs


def clip_index(shards: Path, folder: Path, pairs: int) -> None:
    """What pair reads."""
    clip_store(shards, folder, pairs)
    index(shards, folder, pairs)


def pair(shards: Path, folder: Path, pairs: int) -> None:
    """Pair every image with the most similar caption."""
    settings = PairSettings(store=folder / "store", index_text=folder / "index", method="final")
    assert pair_store(settings, out=folder / "pairs", executor=LOCAL).seen == pairs


def plain_index(shards: Path, folder: Path, pairs: int) -> None:
    """What scan reads."""
    settings = IndexSettings(store=vectors_of(folder, pairs, width=PLAIN_WIDTH), parts=1)
    build_index(settings, out=folder / "index", executor=LOCAL)


def scan(shards: Path, folder: Path, pairs: int) -> None:
    """Score and judge every pair."""
    settings = ScanSettings(store=folder / "store", index=folder / "index")
    assert scan_store(settings, out=folder / "scan", executor=LOCAL).seen == pairs


def _generated_names(rng: np.random.Generator, name: str) -> Iterator[tuple[str, ...]]:
    for number in range(ROWS_PER_PART):
        caption = " ".join(rng.choice(WORDS, 6))
        yield rng.bytes(16).hex(), f"{number:09d}", f"{name}.tar", caption, rng.bytes(16).hex()


PASSES = {
    "read": Pass(prepare=shards_of, run=read, pairs=(100_000, 1_000_000), quick=(5_000, 50_000)),
    "copy": Pass(prepare=shards_of, run=copy, pairs=(100_000, 1_000_000), quick=(5_000, 50_000)),
    "rewrite": Pass(prepare=tables_of, run=rewrite, pairs=(100_000, 1_000_000), quick=(5_000, 50_000)),
    "index": Pass(prepare=clip_store, run=index, pairs=(20_000, 200_000), quick=(20_000, 200_000)),
    "pair": Pass(prepare=clip_index, run=pair, pairs=(4_000, 40_000), quick=(2_000, 20_000)),
    "scan": Pass(prepare=plain_index, run=scan, pairs=(40_000, 120_000), quick=(20_000, 60_000)),
}


# Measuring


def _peak_of(name: str, pairs: int, scratch: Path) -> int:
    """Bytes that a pass took at most, in a fresh process."""
    folder = scratch / f"{name}_{pairs}"
    for step in ("prepare", "run"):
        command = [sys.executable, "-m", "benchmarks.memory", "--step", step, "--pass-name", name]
        command += ["--shards", str(scratch / "shards"), "--folder", str(folder), "--pairs", str(pairs)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(told.stdout)


def peak_bytes() -> int:
    """Peak of this process alone. getrusage() would count that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, "the kernel tells no VmHWM: this runs on Linux"
    return int(found[1]) << 10


def _write_names(store: StageFolder, name: str, rows: Sequence[tuple[str, ...]]) -> polars.DataFrame:
    """Finish one part of a store: what it needs beside its vectors."""
    import polars

    names = polars.DataFrame(rows, schema=dict.fromkeys(METADATA_COLUMNS, polars.String), orient="row")
    write_parquet(metadata_file(store.path, name), names)
    files = [metadata_file(store.path, name), write_failures(store.path, name, [])]
    store.commit(name, files=files, facts={"rows": len(rows), "tally": Tally(seen=len(rows)).to_json()})
    return names


def _claim(name: str, few: int, many: int, pairs: tuple[int, int]) -> Claim:
    if name in HOLDS_VECTORS:
        share = (many - few) / (pairs[1] - pairs[0]) / (4 * CLIP_WIDTH)
        what = f"{name}: bytes of a pair over those of its vector"
        return Claim(name=what, value=share, target=f"<= {HELD}", holds=share <= HELD)
    ratio, times = many / few, pairs[1] // pairs[0]
    what = f"{name}: memory at {times} times the pairs"
    return Claim(name=what, value=ratio, target=f"<= {FLAT}", holds=ratio <= FLAT)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=_names, default=tuple(PASSES), help="passes, joined by commas")
    parser.add_argument("--scratch", type=Path, help="where the data goes: 9 GB; the system's by default")
    for name, kind in (("step", str), ("pass-name", str), ("shards", Path), ("folder", Path), ("pairs", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def _names(joined: str) -> tuple[str, ...]:
    names = tuple(joined.split(","))
    if unknown := sorted(set(names) - set(PASSES)):
        raise argparse.ArgumentTypeError(f"there is no pass {unknown[0]!r}: known are {', '.join(PASSES)}")
    return names


if __name__ == "__main__":
    main()
