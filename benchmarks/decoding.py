"""From JPEG bytes to the model's pixels: ours in both ways, against open_clip's own transform.

    python -m benchmarks.decoding [--shard SHARD.tar] [--encoder open_clip:ViT-B-32/WEIGHTS] [--quick]

    open_clip   Image.open() and the transform that open_clip makes for a 224-px model, as floats
    exact       square_pixels(): the same pixels as uint8, to be normalised where the model is
    fast        the same with decode="fast"

One thread on one core, the three taking turns over the same pictures; what counts is the median, over
rounds, of the ratio of their processor seconds. Exact pixels must be open_clip's, bit for bit. Fast ones
are not: how far they move a vector is told as 1 - cosine, beside how far apart two different pictures
lie, since without trained weights (--encoder names some) all pictures are near to each other.

Pictures are those of SHARD, by default $ROCLIP_DATA/samples/cc12m_32.tar (../shared/data where that is not
set): once brought to 256 px, once as they are. Without it, pictures of noise blown up. --quick measures fewer
rounds, in 40 seconds.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from roclip_sanitize.images import decode_image, encode_jpeg, square_pixels, to_square
from roclip_sanitize.shards import Shard

DATA = Path(os.environ.get("ROCLIP_DATA", "../shared/data")) / "samples" / "cc12m_32.tar"
SIDE = 224
STORED = 256  # pixels a side, as img2dataset stores pictures by default
PICTURES = 32
NEEDED = 1.5  # times open_clip's rate
ROUNDS, QUICK_ROUNDS = 25, 9

Way = Callable[[bytes], Any]


def main() -> None:
    """Measure and print."""
    told = _arguments()
    pictures = _pictures(told.shard)
    small = [encode_jpeg(to_square(decode_image(data), STORED, fit="crop")) for data in pictures]
    print(f"{len(small)} pictures, {np.mean([len(data) for data in small]):,.0f} bytes each at {STORED} px")
    ways = {"open_clip": _open_clips_way(), "exact": _exact, "fast": _fast}
    seconds = _take_turns(ways, small, rounds=told.rounds)
    large = _take_turns({"exact": _exact, "fast": _fast}, pictures, rounds=told.rounds)
    _show(seconds, f"at {STORED} px")
    _show(large, "as they are")
    claims = [
        _ratio(seconds, "exact", "open_clip", target=1.0),
        _ratio(seconds, "fast", "open_clip", target=NEEDED),
        _ratio(large, "fast", "exact", target=1.0, what="exact, pictures as they are"),
        _differing(ways["open_clip"], [*small, *pictures]),
        *_drift(told.encoder, small, f"{STORED} px"),
        *_drift(told.encoder, pictures, "as they are"),
    ]
    report("decoding", claims)


def _exact(data: bytes) -> NDArray[np.uint8]:
    return square_pixels(data, SIDE, fit="crop")


def _fast(data: bytes) -> NDArray[np.uint8]:
    return square_pixels(data, SIDE, fit="crop", decode="fast")


def _open_clips_way() -> Way:
    import torch
    from PIL import Image

    from roclip_sanitize.encoder import own_transform

    torch.set_num_threads(1)
    transform = own_transform(SIDE)
    return lambda data: transform(Image.open(io.BytesIO(data)))


def _take_turns(ways: dict[str, Way], pictures: Sequence[bytes], *, rounds: int) -> dict[str, list[float]]:
    """Processor seconds a picture, by way and round; one round more than asked for warms up.

    The ways change with every picture, so that they share the machine's good and bad moments.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        spent = dict.fromkeys(ways, 0.0)
        for data in pictures:
            for name, way in ways.items():
                started = time.thread_time()
                way(data)
                spent[name] += time.thread_time() - started
        for name in ways:
            seconds[name].append(spent[name] / len(pictures))
    return {name: measured[1:] for name, measured in seconds.items()}


def _show(seconds: dict[str, list[float]], what: str) -> None:
    print(f"\n{'pictures ' + what:<24}{'ms':>8}{'pictures/s and core':>22}")
    for name, measured in seconds.items():
        middle = statistics.median(measured)
        print(f"{name:<24}{1_000 * middle:>8.2f}{1 / middle:>22,.0f}")


def _ratio(seconds: dict[str, list[float]], ours: str, other: str, *, target: float, what: str = "") -> Claim:
    ratios = [slow / quick for slow, quick in zip(seconds[other], seconds[ours], strict=True)]
    value = statistics.median(ratios)
    name = f"{ours}: times {what or other}"
    return Claim(name=name, value=value, target=f">= {target:g}", holds=value >= target)


def _differing(transform: Way, pictures: Sequence[bytes]) -> Claim:
    """Values of exact pixels that are not what open_clip's transform makes floats of."""
    import torch

    from roclip_sanitize.encoder import IMAGE_MEAN, IMAGE_STD

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    count = 0
    for data in pictures:
        ours = torch.from_numpy(_exact(data).copy()).permute(2, 0, 1)
        theirs = ((transform(data) * std + mean) * 255).round().to(torch.uint8)
        count += int((ours != theirs).sum())
    return Claim(name="exact: values that differ", value=count, target="0", holds=count == 0)


def _drift(spec: str, pictures: Sequence[bytes], what: str) -> list[Claim]:
    """How far fast pixels move vectors, as a share of how far apart different pictures are."""
    from roclip_sanitize.encoders import open_encoder

    encoder = open_encoder(spec)
    exact_ND, fast_ND = (
        encoder.encode_images(np.stack([way(data) for data in pictures])) for way in (_exact, _fast)
    )
    cosine_N = np.einsum("nd,nd->n", exact_ND, fast_ND)
    cosine_NN = exact_ND @ exact_ND.T
    apart = 1 - float(np.median(cosine_NN[~np.eye(len(pictures), dtype=bool)]))
    mean, worst = float(cosine_N.mean()), float(cosine_N.min())
    print(f"\n{what}: 1 - cosine of fast and exact is {1 - mean:.1e} in the mean, {1 - worst:.1e} at worst;")
    print(f"of two different pictures {apart:.1e} in the median")
    return [
        Claim(name=f"fast: mean cosine, {what}", value=mean, target=">= 0.999", holds=mean >= 0.999),
        Claim(name=f"fast: worst cosine, {what}", value=worst, target=">= 0.99", holds=worst >= 0.99),
        Claim(
            name=f"fast: mean drift / distance of pictures, {what}",
            value=(1 - mean) / apart,
            target="<= 0.05",
            holds=(1 - mean) / apart <= 0.05,
        ),
    ]


def _pictures(shard: Path) -> list[bytes]:
    if shard.exists():
        with Shard(shard) as opened:
            return [pair.image for pair, _ in zip(opened.pairs(), range(PICTURES), strict=False)]
    print(f"{shard} is not there: measuring on noise blown up")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (PICTURES, 24, 32, 3)).astype(np.uint8)
    return [encode_jpeg(np.kron(pixels, np.ones((20, 20, 1), np.uint8))) for pixels in noise]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shard", type=Path, default=DATA)
    parser.add_argument("--encoder", default="open_clip:ViT-B-32")
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    told.rounds = QUICK_ROUNDS if told.quick else ROUNDS
    return told


if __name__ == "__main__":
    main()
