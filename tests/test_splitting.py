"""Pairs that keep their names and change their halves: whoever takes them by their names finds out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.rewrite import RewriteSettings, kept_shards, rewrite_shards
from roclip_sanitize.runfiles import StageFolder, sha256_of
from roclip_sanitize.shards import Pair, Shard
from roclip_sanitize.splitting import KnownPair
from roclip_sanitize.verification import verify_folder
from tests.test_rewrite import HERE, picture, run, uid, write_shard

SWAPS = [
    (dict(image=picture(9), caption="thing 1"), "picture"),
    (dict(image=picture(1), caption="another thing"), "caption"),
]


def write(path: Path, *, image: bytes = picture(1), caption: str = "thing 1") -> Path:
    others = [(uid(number), picture(number), f"thing {number}") for number in (0, 2)]
    return write_shard(path, [others[0], (uid(1), image, caption), others[1]])


@pytest.fixture
def settings(tmp_path: Path) -> RewriteSettings:
    return run([write(tmp_path / "a.tar")], tmp_path)


@pytest.mark.parametrize(("swapped", "half"), SWAPS)
def test_a_pair_that_was_swapped_since_its_scan_is_refused(
    settings: RewriteSettings, tmp_path: Path, swapped: dict[str, object], half: str
) -> None:
    write(tmp_path / "a.tar", **swapped)  # type: ignore[arg-type]
    told = rf"a\.tar: pair 000001 \({uid(1)}\) has another {half} than when it was embedded: embed"
    with pytest.raises(MismatchError, match=told):
        rewrite_shards(settings, out=tmp_path / "out", executor=HERE)
    assert not (tmp_path / "out/kept/a.tar").exists()


@pytest.mark.parametrize(("swapped", "half"), SWAPS)
def test_a_rewriting_of_swapped_pairs_does_not_verify(
    settings: RewriteSettings, tmp_path: Path, swapped: dict[str, object], half: str
) -> None:
    out, shard = tmp_path / "out", tmp_path / "a.tar"
    rewrite_shards(settings, out=out, executor=HERE)
    list(verify_folder(out))
    write(shard, **swapped)  # type: ignore[arg-type]
    shutil.copy(shard, out / "kept" / "a.tar")
    marker = StageFolder(out).marker("00000")
    assert marker is not None
    files, facts = [out / name for name in marker.files], {**marker.facts, "sha256": sha256_of(shard)}
    StageFolder(out).commit("00000", files=files, facts=facts)
    with pytest.raises(MismatchError, match=f"pair 000001 .* has another {half} than when it was embedded"):
        list(verify_folder(out))


def test_what_a_store_does_not_know_is_not_compared(settings: RewriteSettings, tmp_path: Path) -> None:
    rewrite_shards(settings, out=tmp_path / "out", executor=HERE)
    (kept,) = kept_shards(tmp_path / "out")
    with Shard(kept) as shard:
        pairs = list(shard.pairs())
    for pair in pairs:
        KnownPair(uid=pair.uid, caption=None, image_hash="").require_same(pair, shard=kept)


def test_a_pair_without_a_name_of_its_own_is_named_by_its_halves() -> None:
    pair = Pair(uid=uid(1), key="1", caption="thing", fields={}, image=b"", members=())
    KnownPair(uid=uid(1), caption="other", image_hash="other").require_same(pair, shard=Path("a.tar"))
