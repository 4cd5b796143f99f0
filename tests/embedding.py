"""What is embedded in tests, and what an embedding leaves behind."""

from __future__ import annotations

from pathlib import Path

from roclip_sanitize.embed import EmbedSettings
from tests.corpora import forged_jpeg, pair_members, picture, write_shard, write_tar


def three_shards(folder: Path) -> EmbedSettings:
    """Three shards: whole, with bad pairs, and no shard at all."""
    bad = [
        *pair_members("good", 20),
        *pair_members("cut", 21, image=picture(21)[:-99]),
        *pair_members("bomb", 22, image=forged_jpeg(20_000, 20_000)),
        *pair_members("mute", 23, caption=b""),
        *pair_members("fine", 24),
    ]
    (folder / "2.tar").write_bytes(b"no tar")
    shards = (write_shard(folder / "0.tar", range(7)), write_tar(folder / "1.tar", bad), folder / "2.tar")
    return EmbedSettings(shards=shards, encoder="plain", batch_size=3)


def data_of(out: Path) -> dict[str, bytes]:
    """Every file's bytes, but for markers, which tell the seconds."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "done" and path.name != "complete.json"
    }
