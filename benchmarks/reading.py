"""Passes over shards that do not decode, against the same passes through webdataset; and one that does.

    python -m benchmarks.reading [--shards 'data/{00000..00009}.tar'] [--quick]

    copy     every pair into a new shard          ShardWriter.copy()    TarWriter.write()
    hash     128 bits of every picture            Shard.pairs()         WebDataset
    select   copy the pairs whose uid is listed   both                  both, the uid from the JSON
    decode   every picture to RGB                 decode_image()        WebDataset.decode("pilrgb")

A pass runs in one process on one core, the two readers taking turns. What counts is the median of its
processor seconds, the system's part for reading and writing included. Ours checks more on the way
(captions, fields, uids that repeat) and writes the table beside each shard; webdataset's passes do no
more than they must. Both must come to the same answer. --quick reads one shard three times; otherwise all
are read five times. The shards are $ROCLIP_DATA/fashion/train (../shared/data where that is not set), or
pairs of noise where there are none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims import Claim, report
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.images import decode_image, encode_jpeg
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard, expand_shards

DATA = Path(os.environ.get("ROCLIP_DATA", "../shared/data"))
GENERATED_PAIRS = 4_000
GENERATED_PX = 64
NEEDED = 4.0  # how many times webdataset's rate a pass must reach that does not decode
LISTED = 10  # one pair in so many is selected

Pass = Callable[[Path, Path], Any]  # shard, where a copy goes → what both readers must agree on


def _copy(path: Path, out: Path) -> int:
    with Shard(path) as shard, ShardWriter(out) as writer:
        return _copy_pairs(shard, shard.pairs(), writer)


def _copy_webdataset(path: Path, out: Path) -> int:
    with _tar_writer(out) as writer:
        return sum(1 for sample in _samples(path) if writer.write(sample))


def _hash(path: Path, out: Path) -> list[str]:
    with Shard(path) as shard:
        return [pair.image_hash for pair in shard.pairs()]


def _hash_webdataset(path: Path, out: Path) -> list[str]:
    return [hashlib.blake2b(sample["jpg"], digest_size=16).hexdigest() for sample in _samples(path)]


def _select(path: Path, out: Path) -> int:
    with Shard(path) as shard, ShardWriter(out) as writer:
        listed = (pair for pair in shard.pairs() if _is_listed(pair.uid))
        return _copy_pairs(shard, listed, writer)


def _select_webdataset(path: Path, out: Path) -> int:
    with _tar_writer(out) as writer:
        listed = (sample for sample in _samples(path) if _is_listed(json.loads(sample["json"])["uid"]))
        return sum(1 for sample in listed if writer.write(sample))


def _decode(path: Path, out: Path) -> int:
    with Shard(path) as shard:
        return sum(np.asarray(decode_image(pair.image)).size for pair in shard.pairs())


def _decode_webdataset(path: Path, out: Path) -> int:
    from webdataset import WebDataset

    return sum(
        np.asarray(sample["jpg"]).size
        for sample in WebDataset(str(path), shardshuffle=False).decode("pilrgb")
    )


PASSES: dict[str, tuple[Pass, Pass]] = {
    "copy": (_copy, _copy_webdataset),
    "hash": (_hash, _hash_webdataset),
    "select": (_select, _select_webdataset),
    "decode": (_decode, _decode_webdataset),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One pass over the same shards, by both readers.

    Attributes:
        name: the pass.
        pairs: how many were read.
        ours: median of the processor seconds.
        theirs: the same through webdataset.
    """

    name: str
    pairs: int
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How many times webdataset's rate ours is."""
        return self.theirs / self.ours


def main() -> None:
    """Measure all passes and print the table."""
    told = _arguments()
    with tempfile.TemporaryDirectory(dir=told.scratch) as folder:
        shards = _shards(told.shards, Path(folder))[: 1 if told.quick else None]
        print(f"reading {', '.join(str(path) for path in shards)}")
        repeats = 3 if told.quick else 5
        measured = [measure(name, shards, Path(folder), repeats=repeats) for name in PASSES]
    _show(measured)
    report("reading", [_claim(one) for one in measured])


def measure(name: str, shards: Sequence[Path], scratch: Path, *, repeats: int) -> Measured:
    """Time one pass through both readers, in turns.

    Raises:
        MismatchError: the readers do not agree on what is in a shard.
    """
    pairs = 0
    for path in shards:  # once for agreement, and so that both find the files in memory
        ours, theirs = (run(path, scratch / "out.tar") for run in PASSES[name])
        if ours != theirs:
            raise MismatchError(f"{name} of {path} came to {ours!r:.60}, in webdataset to {theirs!r:.60}")
        with Shard(path) as shard:
            pairs += sum(1 for _ in shard.groups())
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, spent in zip(PASSES[name], seconds, strict=True):
            started = time.process_time()
            for path in shards:
                run(path, scratch / "out.tar")
            spent.append(time.process_time() - started)
    return Measured(
        name=name, pairs=pairs, ours=statistics.median(seconds[0]), theirs=statistics.median(seconds[1])
    )


def noise_shard(path: Path, *, pairs: int, side: int, seed: int = 0) -> Path:
    """Write pairs whose pictures are noise: the same for the same seed."""
    rng = np.random.default_rng([seed, pairs, side])
    with ShardWriter(path) as writer:
        for number in range(pairs):
            image = encode_jpeg(rng.integers(0, 256, (side, side, 3), np.uint8))
            fields = {"uid": rng.bytes(16).hex(), "width": side, "height": side}
            writer.add(f"{number:09d}", image=image, caption=f"picture number {number}", fields=fields)
    return path


def _copy_pairs(shard: Shard, pairs: Iterable[Pair], writer: ShardWriter) -> int:
    copied = 0
    for pair in pairs:
        writer.copy(shard, pair)
        copied += 1
    return copied


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    from webdataset import WebDataset

    yield from WebDataset(str(path), shardshuffle=False)


def _tar_writer(out: Path) -> Any:
    from webdataset import TarWriter

    return TarWriter(str(out), encoder=False)  # values are bytes already


def _is_listed(uid: str) -> bool:
    return int(uid, 16) % LISTED == 0


def _shards(spec: str, scratch: Path) -> list[Path]:
    if spec:
        return expand_shards(spec)
    found = sorted((DATA / "fashion" / "train").glob("*.tar"))
    return found or [noise_shard(scratch / "noise.tar", pairs=GENERATED_PAIRS, side=GENERATED_PX)]


def _show(measured: Sequence[Measured]) -> None:
    print(f"\n{'pairs/s per core':18}{'ours':>12}{'webdataset':>12}")
    for one in measured:
        print(f"{one.name:18}{one.pairs / one.ours:>12,.0f}{one.pairs / one.theirs:>12,.0f}")


def _claim(one: Measured) -> Claim:
    needed = 1.0 if one.name == "decode" else NEEDED  # at less than 1 we should stream through webdataset
    return Claim(
        name=f"{one.name}, times webdataset's rate",
        value=one.ratio,
        target=f">= {needed:g}",
        holds=one.ratio >= needed,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", default="")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for copies; the system's own")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
