"""A million pairs through the scan: how long, in which steps, and how much memory more than a quarter.

    python -m benchmarks.volume [--pairs 1000000] [--run runs/volume] [--executor ray]

The shards are generated: rendered scenes, each of them VARIANTS times, every time cropped, mirrored, lit and
compressed anew and with two words of its caption swapped, in shards far apart. So all pictures
are different and most captions, for much less than rendering them all. They are made first, and not timed.

Then embed, index and scan, as ``roclip sanitize`` does them, over a quarter of the shards and over all, each
in a process of its own. Peak memory is of that process and all that it started, Ray included. Everything lies
in --run, shards and stores too, about 12 kB a pair; shards that are there are not made again, the rest is.
Exits with 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from roclip_sanitize.corpus.render import pair_uid, render_corpus
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.images import decode_image, encode_jpeg
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.machine import Watch
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.scan.results import scan_limits
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard

VARIANTS = 20  # of each scene
PAIRS_PER_SHARD = 10_000
LEAST_KEPT = 0.75  # of a side, when a variant is cropped
QUALITIES = (60, 95)  # of JPEGs
PART = 4  # the smaller run has one shard in so many
MOST_SECONDS_PER_MILLION = 3_600.0
MOST_BYTES_PER_PAIR = 1_000  # that memory grows by, the driver's columns and rankings included
STAGES = ("embed", "index", "scan")
MAKE = "make"


class VariantWriter:
    """Worker: writes one shard of variants."""

    def __init__(self, scenes: Path, out: Path, *, shards: int) -> None:
        self._scenes, self._folder, self._shards = scenes, StageFolder(out), shards

    def __call__(self, ordinal: int) -> str:
        """Write a shard, with one variant of each scene of VARIANTS shards. Returns its name."""
        rng = np.random.default_rng([1, ordinal])
        name, index = f"{ordinal:05d}", 0
        with ShardWriter(self._folder.path / f"{name}.tar") as writer:
            for source in self._sources(ordinal):
                with Shard(self._scenes / f"{source:05d}.tar") as shard:
                    for pair in shard.pairs():
                        uid = pair_uid(seed=1, split="train", ordinal=ordinal, index=index)
                        image, caption = varied(pair, rng)
                        writer.add(f"{name}{index:05d}", image=image, caption=caption, fields={"uid": uid})
                        index += 1
        self._folder.commit(name, files=writer.files, facts={"rows": index})
        return name

    def _sources(self, ordinal: int) -> list[int]:
        """Of a few shards, all of them, and some more than once."""
        apart = max(1, self._shards // VARIANTS)
        return [(ordinal + apart * variant) % self._shards for variant in range(VARIANTS)]


def varied(pair: Pair, rng: Generator) -> tuple[bytes, str]:
    """Another picture and another caption of the same scene: JPEG bytes, text."""
    image = decode_image(pair.image)
    kept = rng.uniform(LEAST_KEPT, 1.0)
    width, height = (max(1, int(side * kept)) for side in image.size)
    left, top = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    lit = _lit(pixels[:, :: rng.choice((-1, 1))], rng)
    return encode_jpeg(lit, quality=int(rng.integers(*QUALITIES))), _swapped(pair.caption, rng)


def make_shards(out: Path, *, pairs: int, executor: Any) -> list[Path]:
    """Those that are missing of the generated shards; all of them are returned."""
    shards = pairs // PAIRS_PER_SHARD
    if shards <= PART:
        raise ConfigError(
            f"pairs is {pairs:,}, wanted more than {PART * PAIRS_PER_SHARD:,}: two runs to compare"
        )
    render_corpus(out / "scenes", pairs=pairs // VARIANTS, shards=shards, seed=0, executor=executor)
    told = {"pairs": pairs, "variants": VARIANTS}
    folder = StageFolder.create(out / "shards", stage="variants", settings=told)
    missing = [ordinal for ordinal in range(shards) if folder.marker(f"{ordinal:05d}") is None]
    making = partial(VariantWriter, out / "scenes", folder.path, shards=shards)
    for _ in executor.map(making, missing):
        pass
    return [folder.path / f"{ordinal:05d}.tar" for ordinal in range(shards)]


def measure(shards: tuple[Path, ...], out: Path, executor: Any) -> dict[str, Any]:
    """Run the stages: seconds and peak bytes of each, what bounded the scan, and what it set aside."""
    store, index = out / "store", out / "index"
    embedding = EmbedSettings(shards=shards, encoder="plain")
    indexing = IndexSettings(store=store, transform="pca96", kind="auto")
    scanning = ScanSettings(store=store, index=index)
    stages: dict[str, Callable[[], Any]] = {
        "embed": lambda: embed_shards(embedding, out=store, executor=executor),
        "index": lambda: build_index(indexing, out=index, executor=executor),
        "scan": lambda: scan_store(scanning, out=out / "scan", executor=executor),
    }
    found: dict[str, Any] = {}
    for name, stage in stages.items():
        with Watch() as watch:
            stage()
        found[name] = {"seconds": watch.seconds, "bytes": watch.peak_memory_bytes}
        print(f"{name}: {watch.seconds:.1f} s", file=sys.stderr, flush=True)
    scanned = Tally.from_json(StageFolder.open(out / "scan", stage="scan").facts["tally"])
    told = {"pairs": scanned.seen, "set_aside": scanned.quarantined.total()}
    return {**found, **told, "limits": scan_limits(out / "scan").lines()}


def main() -> int:
    """Generate, measure twice, print the table, and tell in the exit code whether all claims hold."""
    told = _arguments()
    if told.step:
        try:
            print(json.dumps(_step(told)))
        except RoclipError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        return 0
    print(f"{_apart(told, MAKE)} shards generated", file=sys.stderr, flush=True)
    part, whole = (_apart(told, str(every)) for every in (PART, 1))
    for found in (part, whole):
        _show(found)
    claims = _claims(part, whole)
    report("volume", claims)
    return 0 if all(claim.holds for claim in claims) else 1


def _lit(pixels_HW3: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Brighter or darker, each colour a little otherwise."""
    gain_3 = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)
    lit_HW3: NDArray[np.uint8] = np.clip(pixels_HW3 * gain_3, 0, 255).astype(np.uint8)
    return lit_HW3


def _swapped(caption: str, rng: Generator) -> str:
    words = caption.split()
    if len(words) > 1:
        one, other = rng.choice(len(words), 2, replace=False)
        words[one], words[other] = words[other], words[one]
    return " ".join(words)


def _step(told: argparse.Namespace) -> Any:
    """Make the shards, and tell how many there are; or measure one in so many of them."""
    executor = open_executor(told.executor, workers=told.workers)
    if told.step == MAKE:
        return len(make_shards(told.run, pairs=told.pairs, executor=executor))
    out = told.run / f"every_{told.step}"
    shutil.rmtree(out, ignore_errors=True)
    shards = tuple(sorted((told.run / "shards").glob("*.tar"))[:: int(told.step)])
    return measure(shards, out, executor)


def _apart(told: argparse.Namespace, step: str) -> Any:
    """One step in a process of its own, which leaves no Ray behind: what it tells."""
    command = [sys.executable, "-m", "benchmarks.volume", "--step", step, "--run", str(told.run)]
    command += ["--pairs", str(told.pairs), "--executor", told.executor, "--workers", str(told.workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def _show(found: dict[str, Any]) -> None:
    pairs = found["pairs"]
    print(f"\n{pairs:,} pairs, {found['set_aside']:,} set aside")
    for name in STAGES:
        seconds, peak = found[name]["seconds"], found[name]["bytes"]
        print(f"{name:8}{seconds:>9.1f} s{pairs / seconds:>9,.0f} pairs/s{peak / 2**30:>7.2f} GiB at most")
    print("scan:", *found["limits"], sep="\n  ")


def _claims(part: dict[str, Any], whole: dict[str, Any]) -> list[Claim]:
    more = whole["pairs"] - part["pairs"]
    hour = sum(whole[name]["seconds"] for name in STAGES) / whole["pairs"] * 1e6
    claims = [
        Claim(
            name="seconds for a million pairs, embed to scan",
            value=hour,
            target=f"<= {MOST_SECONDS_PER_MILLION:,.0f}",
            holds=hour <= MOST_SECONDS_PER_MILLION,
        )
    ]
    for name in STAGES:
        grown = (whole[name]["bytes"] - part[name]["bytes"]) / more
        claims.append(
            Claim(
                name=f"{name}: bytes of memory for each pair more",
                value=grown,
                target=f"<= {MOST_BYTES_PER_PAIR:,}",
                holds=grown <= MOST_BYTES_PER_PAIR,
            )
        )
    return claims


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--run", type=Path, default=Path("runs/volume"))
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--step", default="", help="one of them, once; for its own use")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
