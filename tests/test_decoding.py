"""Decoding a shard: the number of threads shows nowhere, and what fails is told in its place."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from roclip_sanitize.decoding import DECODED_AT_ONCE, decode_pairs
from roclip_sanitize.images import Decode, decode_image, encode_jpeg, to_square
from roclip_sanitize.pipeline import Seconds
from roclip_sanitize.records import Failure
from roclip_sanitize.shards import Pair, Shard
from tests.corpora import forged_jpeg, pair_members, picture, write_shard, write_tar

PAIRS = 3 * DECODED_AT_ONCE + 5


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every third picture is broken, one way or another; so are a caption and the shard's end."""
    broken = [picture(0)[:-99], b"?", forged_jpeg(20_000, 20_000)]
    members = []
    for number in range(PAIRS):
        image = broken[number % 9 // 3] if number % 3 == 0 else None
        members += pair_members(f"{number:03d}", number, image=image, caption=b" " if number == 4 else None)
    path = write_tar(tmp_path_factory.mktemp("shards") / "0.tar", members)
    path.write_bytes(path.read_bytes()[:-12_000])
    return path


def decoded(
    path: Path, *, threads: int, decode: Decode = "exact"
) -> tuple[list[tuple[Pair, NDArray[np.uint8]]], list[Failure]]:
    failures: list[Failure] = []
    with Shard(path) as shard:
        pairs = decode_pairs(shard, side=8, fit="squash", failures=failures, threads=threads, decode=decode)
        return list(pairs), failures


def test_one_thread_is_a_loop_over_the_pairs(shard: Path) -> None:
    """A slow reference."""
    pairs, failures = decoded(shard, threads=1)
    with Shard(shard) as opened:
        by_key = {pair.key: pair for pair in opened.pairs()}
    failed = {failure.key for failure in failures}
    assert [pair.key for pair, _ in pairs] == [key for key in by_key if key not in failed]
    for pair, pixels in pairs:
        assert np.array_equal(pixels, to_square(decode_image(pair.image), 8))
    reasons = [failure.reason.value for failure in failures]
    assert reasons[:4] == ["image_undecodable", "image_undecodable", "image_too_large", "image_undecodable"]
    assert reasons[-2:] == ["empty_caption", "truncated_shard"]


@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_nothing(shard: Path, threads: int, decode: Decode) -> None:
    alone, failed_alone = decoded(shard, threads=1, decode=decode)
    pairs, failures = decoded(shard, threads=threads, decode=decode)
    assert [pair for pair, _ in pairs] == [pair for pair, _ in alone]
    assert np.array_equal([pixels for _, pixels in pairs], [pixels for _, pixels in alone])
    assert failures == failed_alone


def test_leaving_early_leaves_no_thread(shard: Path) -> None:
    before = threading.active_count()
    with Shard(shard) as opened:
        pairs = decode_pairs(opened, side=8, fit="squash", failures=[], threads=3)
        next(pairs)
        assert threading.active_count() > before
        pairs.close()
    assert threading.active_count() == before


def test_steps_are_timed_over_all_threads(shard: Path) -> None:
    seconds = Seconds(float)
    with Shard(shard) as opened:
        list(decode_pairs(opened, side=8, fit="squash", failures=[], threads=2, seconds=seconds))
    assert set(seconds) == {"read", "decode"}
    assert min(seconds.values()) > 0


def test_threads_leave_the_filters_of_warnings_to_others(tmp_path: Path) -> None:
    """Pillow warns while it decodes; to hush it with catch_warnings() in threads would hush everyone."""
    shard = write_shard(tmp_path / "0.tar", range(40))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded(shard, threads=4)
        warnings.warn("still heard", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["still heard"]


def test_fast_is_near_to_exact(tmp_path: Path) -> None:
    """A picture eight times as large as asked for: the JPEG decoder shrinks it, nothing else does."""
    ramp = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    image = encode_jpeg(np.stack([ramp, 255 - ramp, ramp // 2], axis=2))
    shard = write_tar(tmp_path / "0.tar", pair_members("a", 1, image=image))
    pixels = [decoded(shard, threads=1, decode=decode)[0][0][1] for decode in ("exact", "fast")]
    assert np.abs(pixels[0].astype(int) - pixels[1]).max() <= 12
    assert Image.fromarray(pixels[1]).size == (8, 8)
