"""``embed`` from shard to store, against what decoding and the model can do by themselves.

    python -m benchmarks.embedding [--shard SHARD.tar] [--quick]

    decode    every pair of the shard decoded by all threads, and let go
    model     the same pictures and captions, already decoded, through both towers
    end       EmbedWorker: read, decode, encode, write, the steps overlapping

For a small ResNet (roclip-rn-64) and for ViT-B-32, with random weights, in one process with as many threads
as it has cores. Runs take turns, there and back; what counts is the median over rounds. Weights, libraries
and pages are warm before the first round.

Which ceiling is right depends on who computes:

    a GPU for the model     decoding and model have nothing in common: min(decode, model)
    the same cores          a pair costs both, whatever overlaps: 1 / (1/decode + 1/model)

Each of the two rates is measured with all cores, so on shared cores min() promises every core twice. There
it is told beside, with how much of it arithmetic allows, and not judged. Judged are the second ceiling, and
processor time: what decoding and model take by themselves, as a share of what they take within ``embed``.
The rest are handing over, reading ahead and writing. On a machine that is busy with other work rates scatter,
and shares of them may come out above one; processor time says the most there.

The shard is $ROCLIP_DATA/fashion/test/00000.tar (../shared/data where that is not set), or pairs of noise
without it; of its pairs as many as the model's speed allows, with --quick few: under a minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
NEEDED = 0.9  # of the ceiling


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
class Cost:
    """What one pass took, in seconds: by the clock, and of all cores together."""

    wall: float = 0.0
    cores: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(wall=self.wall + other.wall, cores=self.cores + other.cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: pairs, and what each way cost."""

    pairs: int
    decode: Cost
    model: Cost
    end: Cost

    def rate(self, cost: Cost) -> float:
        """Pairs per second."""
        return self.pairs / cost.wall

    @property
    def of_lower(self) -> float:
        """Of min(decode, model), what was reached from end to end."""
        return max(self.decode.wall, self.model.wall) / self.end.wall

    @property
    def of_shared(self) -> float:
        """Of what the same cores can do for both, if none ever waits."""
        return (self.decode.wall + self.model.wall) / self.end.wall

    @property
    def allowed(self) -> float:
        """The most that ``of_lower`` can be on shared cores."""
        return max(self.decode.wall, self.model.wall) / (self.decode.wall + self.model.wall)

    @property
    def useful(self) -> float:
        """Processor time of decoding and model alone, as a share of that of both within embed."""
        return (self.decode.cores + self.model.cores) / self.end.cores


def main() -> None:
    """Measure and print."""
    import torch

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
    shared, claims = not torch.cuda.is_available(), list[Claim]()
    for plan in plans:
        with tempfile.TemporaryDirectory() as folder:
            rounds = list(measure(plan, told.shard, Path(folder)))
        _show(plan, rounds, shared=shared)
        claims += _claims(plan, rounds, shared=shared)
    report("embedding", claims)


def measure(plan: Plan, source: Path, folder: Path) -> Iterator[Round]:
    """Let the three take turns, one warm-up round before the first."""
    shard = _shard(source, folder / "0.tar", plan.pairs)
    encoder = open_encoder(plan.encoder)
    worker = EmbedWorker(
        EmbedSettings(shards=(), encoder=plan.encoder, batch_size=plan.batch_size), folder / "store"
    )
    turn = {
        "decode": partial(_decode_cost, shard, encoder),
        "model": partial(_model_cost, shard, encoder, plan.batch_size),
        "end": partial(_end_cost, shard, worker),
    }
    for number in range(plan.rounds + 1):
        costs = dict.fromkeys(turn, Cost())
        for name in (*turn, *reversed(turn)):  # a machine that slows down meanwhile favours none
            # As in embed: in a process's first thread the model was seen to run at two thirds of its speed.
            with ThreadPoolExecutor(1) as thread:
                costs[name] += thread.submit(turn[name]).result()
        if number:
            yield Round(pairs=2 * plan.pairs, **costs)


@contextmanager
def _counted(costs: list[Cost]) -> Iterator[None]:
    """Append what the block costs, in all threads of this process."""
    wall, cores = time.perf_counter(), time.process_time()
    yield
    costs.append(Cost(wall=time.perf_counter() - wall, cores=time.process_time() - cores))


def _decode_cost(shard: Path, encoder: Encoder) -> Cost:
    facts, costs = encoder.facts, list[Cost]()
    with _counted(costs), Shard(shard) as opened:
        for _ in decode_pairs(opened, side=facts.side, fit=facts.fit, failures=[], threads=own_cores()):
            pass
    return costs[0]


def _model_cost(shard: Path, encoder: Encoder, batch_size: int) -> Cost:
    facts, costs = encoder.facts, list[Cost]()
    with Shard(shard) as opened:
        decoded = decode_pairs(opened, side=facts.side, fit=facts.fit, failures=[])
        for batch in chunked(decoded, batch_size):
            pixels = np.stack([picture for _, picture in batch])
            captions = [pair.caption for pair, _ in batch]
            with _counted(costs):
                encoder.encode_images(pixels)
                encoder.encode_captions(captions)
    return sum(costs, Cost())


def _end_cost(shard: Path, worker: EmbedWorker) -> Cost:
    task = ShardTask(name=f"{time.monotonic_ns()}", path=shard)  # a name of its own: it was never done
    costs = list[Cost]()
    with _counted(costs):
        worker(ShardRow((task,)))
    return costs[0]


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


def _show(plan: Plan, rounds: list[Round], *, shared: bool) -> None:
    print(f"\n{plan.encoder}: {plan.pairs:,} pairs, batches of {plan.batch_size}, {own_cores()} threads")
    print(f"{'':>6}{'pairs/s by the clock':^30}{'end, as a share of':^26}{'processor ms a pair':^30}{'':>8}")
    heads = ("decode", "model", "end")
    print(
        f"{'round':>6}"
        + "".join(f"{head:>10}" for head in heads)
        + f"{'min()':>12}{'shared cores':>14}"
        + "".join(f"{head:>10}" for head in heads)
        + f"{'useful':>8}"
    )
    for number, each in enumerate(rounds, start=1):
        costs = (each.decode, each.model, each.end)
        print(
            f"{number:>6}"
            + "".join(f"{each.rate(cost):>10,.1f}" for cost in costs)
            + f"{each.of_lower:>12.0%}{each.of_shared:>14.0%}"
            + "".join(f"{1_000 * cost.cores / each.pairs:>10.3f}" for cost in costs)
            + f"{each.useful:>8.0%}"
        )
    if shared:
        allowed = statistics.median(each.allowed for each in rounds)
        print(f"decoding and model share the cores: of min() arithmetic allows {allowed:.0%} at most")


def _claims(plan: Plan, rounds: list[Round], *, shared: bool) -> list[Claim]:
    shares = {"end / min(decode, model)": [each.of_lower for each in rounds]}
    if shared:
        shares = {
            "end / what shared cores can do": [each.of_shared for each in rounds],
            "processor time, decode and model alone / end": [each.useful for each in rounds],
        }
    return [
        Claim(
            name=f"{plan.encoder.removeprefix('open_clip:')}: {name}",
            value=statistics.median(share),
            target=f">= {NEEDED}",
            holds=statistics.median(share) >= NEEDED,
        )
        for name, share in shares.items()
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shard", type=Path, default=DATA)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
