"""From hostile shards to kept ones, by the commands: nothing good is lost, nothing bad is forgotten."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from PIL import Image

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.cli import run
from roclip_sanitize.rewrite import kept_shards, quarantined_shards, read_keep_list
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.store import read_failures
from tests.corpora import (
    LABELS,
    Members,
    blocks_of,
    forged_jpeg,
    pair_members,
    picture,
    read_shard,
    uid,
    write_shard,
    write_tar,
)

SHARDS = ("0.tar", "1.tar", "2.tar", "3.tar")  # good, odd, cut, none
FAILED_BY_SHARD = {"no_image": 2, "no_caption": 1, "empty_caption": 2, "caption_not_utf8": 1}
FAILED_BY_SHARD |= {"caption_too_long": 1, "bad_json": 5, "duplicate_key": 2}
FAILED_BY_SHARD |= {"truncated_shard": 1, "unreadable_shard": 1}
FAILED_BY_PICTURE = {"image_undecodable": 3, "image_too_large": 1, "image_too_small": 1}
GOOD = 12 + 8 + 4
BAD_PICTURES = {uid(number) for number in range(300, 305)}
LISTED = BAD_PICTURES | {uid(number) for number in (100, *range(200, 206))}  # 100 came twice


def encoded(number: int, mode: str, kind: str, **options: Any) -> bytes:
    """A picture in another colour model or format."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def odd_but_good() -> Members:
    """Eight pairs that look strange, and are not."""
    strange = {"uid": uid(106), "kind": LABELS[0], "width": "wide", "url": {"a": 1}, "height": 10**30}
    return [
        *pair_members("cmyk", 100, image=encoded(100, "CMYK", "JPEG")),
        *pair_members("grey", 101, image=encoded(101, "L", "JPEG")),
        *pair_members("palette", 102, image=encoded(102, "P", "PNG", transparency=bytes(range(256)))),
        *pair_members("emoji", 103, caption="a hat 🎩".encode()),
        *pair_members("n" * 150, 104),
        *pair_members("\udcff", 105),
        *pair_members("fields", 106, fields=strange),
        *[*pair_members("more", 107), ("more.cls", b"1"), ("more.seg.png", b"?")],
    ]


def bad_members() -> Members:
    """Pairs that no reader can use."""
    return [
        *pair_members("no picture", 200)[1:],
        *pair_members("no caption", 201)[::2],
        *pair_members("empty", 202, caption=b""),
        *pair_members("blank", 203, caption=b" \n "),
        *pair_members("latin", 204, caption="caffè".encode("latin-1")),
        *pair_members("long", 205, caption=b"x" * 5_000),
        *pair_members("half", 0, fields=b'{"uid": '),
        *pair_members("list", 0, fields=b"[]"),
        *pair_members("deep", 0, fields=b"[" * 99_999),
        *pair_members("surrogate", 0, fields=b'{"url": "\\ud800"}'),
        *pair_members("uid", 0, fields={"uid": "0"}),
        *pair_members("same uid", 100),
        *pair_members("cmyk", 206),
        ("notes.md", b"What is this doing here?"),
    ]


def bad_pictures() -> Members:
    """Pairs whose picture is none. They have no label, so that no attack chooses them."""
    pictures = {
        300: picture(300)[:-99],
        301: b"<html>404</html>",
        302: encoded(302, "RGB", "EPS"),
        303: forged_jpeg(20_000, 20_000),
        304: tiny(),
    }
    return [
        member
        for number, data in pictures.items()
        for member in pair_members(f"{number}", number, image=data, fields={"uid": uid(number)})
    ]


def tiny() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    good, odd, cut, none = (folder / name for name in SHARDS)
    write_shard(good, range(12))
    write_tar(odd, [*odd_but_good(), *bad_members(), *bad_pictures()])
    write_shard(cut, range(20, 26))
    pairs, _ = read_shard(cut)
    cut.write_bytes(
        cut.read_bytes()[: pairs[4].members[1].start + 700]
    )  # the fifth pair is lost, and all after
    none.write_bytes(b"<html>503</html>" * 64)
    return [good, odd, cut, none]


def roclip(capsys: pytest.CaptureFixture[str], command: str, **options: object) -> tuple[object, Any]:
    """Run one command: its exit code, and its result."""
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with pytest.raises(SystemExit) as caught:
        run([command, *flags, "--executor", "local", "--json"])
    said = capsys.readouterr()
    assert len(said.err.splitlines()) <= 1
    return caught.value.code, json.loads(said.out)


def require_sum(result: dict[str, Any]) -> None:
    quarantined, failed = (sum(result[name].values()) for name in ("quarantined", "failed"))
    assert result["seen"] == result["kept"] + quarantined + failed


@pytest.mark.slow
def test_hostile_shards_cost_nothing_good(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"{shards[0].parent}/{{0..3}}.tar"
    good = {name: blocks for name, blocks in blocks_of(shards).items() if name not in BAD_PICTURES}
    assert len(good) == GOOD
    failed = FAILED_BY_SHARD | FAILED_BY_PICTURE

    code, result = roclip(capsys, "embed", shards=spec, out=tmp_path / "store")
    assert (code, result["failed"], result["kept"]) == (3, failed, GOOD)
    require_sum(result)
    assert result["seen"] == GOOD + sum(failed.values())

    code, result = roclip(capsys, "index", store=tmp_path / "store", out=tmp_path / "index")
    assert (code, result["rows"]) == (0, GOOD)

    index, scan = tmp_path / "index", tmp_path / "scan"
    asked = {"neighbours": 5, "budget": 0.1}  # of so few pairs, forty neighbours would be all
    code, result = roclip(capsys, "scan", store=tmp_path / "store", index=index, out=scan, **asked)
    assert (code, result["failed"], result["quarantined"]) == (3, failed, {"picture_and_caption_disagree": 2})
    require_sum(result)

    out = tmp_path / "rewritten"
    code, rewritten = roclip(capsys, "rewrite", store=tmp_path / "store", verdicts=scan, out=out)
    assert code == 3
    for name in ("seen", "kept", "quarantined", "failed"):
        assert rewritten[name] == result[name]

    kept = blocks_of(kept_shards(out))
    assert kept | blocks_of(quarantined_shards(out)) == good
    assert sorted(kept) == read_keep_list(out / "keep.npy")
    assert len(kept) == GOOD - 2
    for folder in (tmp_path / "store", out):
        listed = polars.concat([read_failures(folder, f"{ordinal:05d}") for ordinal in range(len(SHARDS))])
        assert listed["reason"].value_counts().sort("reason").rows() == sorted(failed.items())
        assert set(listed["uid"]) - {""} == LISTED
        assert all(detail.isprintable() for detail in listed["detail"])
        StageFolder(folder).verify()


def test_poisoning_hostile_shards_costs_nothing_good(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, out = f"{shards[0].parent}/{{0..3}}.tar", tmp_path / "poisoned"
    options = {
        "label": "kind",
        "attacks": f"patch:rate=0.1,target={LABELS[0]}",
        "classes": 2,
    }
    code, result = roclip(capsys, "poison", shards=spec, out=out, **options)
    assert (code, result["failed"]) == (3, FAILED_BY_SHARD)
    require_sum(result)
    assert result["kept"] == GOOD + sum(FAILED_BY_PICTURE.values())

    before, after = blocks_of(shards), blocks_of([out / "shards" / name for name in SHARDS])
    poisons = Ledger.open(out).planted()
    assert len(poisons) == 3  # a tenth of the pairs that can be read
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == poisons

    copies = f"{out}/shards/{{0..3}}.tar"  # a copy ends where its original breaks off, and is whole
    healed = {"truncated_shard": 1, "unreadable_shard": 1}.keys()
    code, result = roclip(capsys, "embed", shards=copies, out=tmp_path / "store")
    failed = {
        reason: n for reason, n in (FAILED_BY_SHARD | FAILED_BY_PICTURE).items() if reason not in healed
    }
    assert (code, result["failed"], result["kept"]) == (3, failed, GOOD)
