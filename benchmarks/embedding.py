"""``embed`` from shard to store, against what decoding alone and the model alone can do.

    python -m benchmarks.embedding [--shard SHARD.tar] [--quick]

    decode    every pair of the shard decoded by all threads, and let go
    model     the same pictures and captions, already decoded, through both towers
    end       EmbedWorker: read, decode, encode, write, the steps overlapping

For a small ResNet (roclip-rn-64) and for ViT-B-32, with random weights, in one process with as many threads
as it has cores. Runs take turns, there and back; what counts is the median, over rounds, of
end / min(decode, model). Where the model runs on the same cores as decoding, both together can do no more
than 1 / (1/decode + 1/model): that ceiling is printed beside. Weights, libraries and pages are warm before
the first round.

The shard is $ROCLIP_DATA/fashion/test/00000.tar (../shared/data where that is not set), or pairs of noise
without it; of its pairs as many as the model's speed allows, with --quick few: a minute and a half of
processor time. On a machine that is busy with other work shares scatter, and may come out above one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.claims import Claim, report
from roclip_sanitize.decoding import decode_pairs
from roclip_sanitize.embed import EmbedSettings, EmbedWorker, ShardRow, own_cores
from roclip_sanitize.encoder_facts import Encoder
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.pipeline import chunked
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard, ShardTask

DATA = Path(os.environ.get("ROCLIP_DATA", "../shared/data")) / "fashion" / "test" / "00000.tar"
NEEDED = 0.9  # of the lower of the two rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model to measure.

    Attributes:
        encoder: see open_encoder().
        pairs: how many go through it in a round.
        batch_size: pairs encoded at once.
        rounds: how often.
    """

    encoder: str
    pairs: int
    batch_size: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pairs per second of one round."""

    decode: float
    model: float
    end: float

    @property
    def share(self) -> float:
        """Of the lower of the two ceilings, what was reached from end to end."""
        return self.end / min(self.decode, self.model)

    @property
    def together(self) -> float:
        """What decoding and model can do on the same cores, if neither ever waits."""
        return 1 / (1 / self.decode + 1 / self.model)


def main() -> None:
    """Measure and print."""
    told = _arguments()
    plans = (
        Plan(encoder="open_clip:roclip-rn-64", pairs=640 if told.quick else 4_000, batch_size=64, rounds=3),
        Plan(
            encoder="open_clip:ViT-B-32",
            pairs=16 if told.quick else 256,
            batch_size=8,
            rounds=2 if told.quick else 3,
        ),
    )
    claims = []
    for plan in plans:
        with tempfile.TemporaryDirectory() as folder:
            rounds = list(measure(plan, told.shard, Path(folder)))
        _show(plan, rounds)
        share = statistics.median(rates.share for rates in rounds)
        name = f"{plan.encoder}: end / min(decode, model)"
        claims.append(Claim(name=name, value=share, target=f">= {NEEDED}", holds=share >= NEEDED))
    report("embedding", claims)


def measure(plan: Plan, source: Path, folder: Path) -> Iterator[Rates]:
    """Let the three take turns, one warm-up round before the first."""
    shard = _shard(source, folder / "0.tar", plan.pairs)
    settings = EmbedSettings(shards=(), encoder=plan.encoder, batch_size=plan.batch_size)
    encoder = open_encoder(plan.encoder)
    for number in range(plan.rounds + 1):
        worker = EmbedWorker(settings, folder / f"store-{number}")
        turn = {
            "decode": partial(_decode_seconds, shard, encoder),
            "model": partial(_model_seconds, shard, encoder, plan.batch_size),
            "end": partial(_end_seconds, shard, worker),
        }
        seconds = dict.fromkeys(turn, 0.0)
        for name in (*turn, *reversed(turn)):  # a machine that slows down meanwhile favours none
            # As in embed: in a process's first thread the model was seen to run at a third of its speed.
            with ThreadPoolExecutor(1) as thread:
                seconds[name] += thread.submit(turn[name]).result()
        if number:
            yield Rates(**{name: 2 * plan.pairs / spent for name, spent in seconds.items()})


def _decode_seconds(shard: Path, encoder: Encoder) -> float:
    started = time.perf_counter()
    with Shard(shard) as opened:
        facts = encoder.facts
        for _ in decode_pairs(opened, side=facts.side, fit=facts.fit, failures=[], threads=own_cores()):
            pass
    return time.perf_counter() - started


def _model_seconds(shard: Path, encoder: Encoder, batch_size: int) -> float:
    facts, seconds = encoder.facts, 0.0
    with Shard(shard) as opened:
        decoded = decode_pairs(opened, side=facts.side, fit=facts.fit, failures=[])
        for batch in chunked(decoded, batch_size):
            pixels = np.stack([picture for _, picture in batch])
            captions = [pair.caption for pair, _ in batch]
            started = time.perf_counter()
            encoder.encode_images(pixels)
            encoder.encode_captions(captions)
            seconds += time.perf_counter() - started
    return seconds


def _end_seconds(shard: Path, worker: EmbedWorker) -> float:
    task = ShardTask(name=f"{time.monotonic_ns()}", path=shard)  # a name of its own: it was never done
    started = time.perf_counter()
    worker(ShardRow((task,)))
    return time.perf_counter() - started


def _shard(source: Path, path: Path, pairs: int) -> Path:
    """The first pairs of a shard, in one of their own."""
    with ShardWriter(path) as writer:
        if source.exists():
            with Shard(source) as shard:
                for pair in islice(shard.pairs(), pairs):
                    writer.add(pair.key, image=pair.image, caption=pair.caption, fields=dict(pair.fields))
            return path
        print(f"{source} is not there: measuring on noise")
        rng = np.random.default_rng(0)
        for number in range(pairs):
            image = encode_jpeg(rng.integers(0, 256, (80, 60, 3)).astype(np.uint8))
            fields = {"uid": f"{number:032x}"}
            writer.add(f"{number:06d}", image=image, caption=f"picture {number}", fields=fields)
    return path


def _show(plan: Plan, rounds: list[Rates]) -> None:
    print(f"\n{plan.encoder}: {plan.pairs:,} pairs, batches of {plan.batch_size}, {own_cores()} threads")
    print(
        f"{'round':>6}{'decode/s':>10}{'model/s':>10}{'end/s':>10}{'share':>8}{'of both on shared cores':>26}"
    )
    for number, rates in enumerate(rounds, start=1):
        cells = f"{rates.decode:>10,.0f}{rates.model:>10,.1f}{rates.end:>10,.1f}{rates.share:>8.0%}"
        print(f"{number:>6}{cells}{rates.end / rates.together:>26.0%}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shard", type=Path, default=DATA)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
