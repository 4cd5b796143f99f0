"""Where commands start: in a folder of their own, alone, and not in one that another command made."""

from __future__ import annotations

from pathlib import Path

import pytest

from roclip_sanitize.runfiles import StageFolder, write_bytes
from tests.commands import Roclip
from tests.corpora import write_shard


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path / "0.tar", range(8))


def embed(shard: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("embed", "--shards", shard, "--out", out, "--executor", "local", *more)


# Whose the folder is


@pytest.mark.parametrize("maker", ["sanitize", "demo", "attacks.rebuild"])
def test_a_folder_of_another_command_is_refused(
    roclip: Roclip, shard: Path, tmp_path: Path, maker: str
) -> None:
    """Else nobody would see its stages any more: a folder with a stage.json is that of one stage."""
    out = tmp_path / "clean"
    StageFolder.create(out / "store", stage="embed", settings={})
    write_bytes(out / "run.toml", f"[{maker}]\nseed = 0\n".encode())
    before = sorted(out.rglob("*"))
    said = roclip(*embed(shard, out))
    made_by = maker.replace(".", " ")
    assert (said.code, said.line) == (
        4,
        f"roclip: {out} was made by 'roclip {made_by}', wanted one of 'roclip embed': choose another folder",
    )
    assert sorted(out.rglob("*")) == before
    assert roclip(*embed(shard, out / "textures")).code == 0


@pytest.mark.parametrize("command", ["sanitize", "demo"])
def test_stages_are_not_put_into_the_folder_of_one(
    roclip: Roclip, shard: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "store"
    assert roclip(*embed(shard, out)).code == 0
    told = {"sanitize": ("--shards", shard, "--out", out), "demo": ("--run", out)}[command]
    said = roclip(command, *told, "--executor", "local")
    assert (said.code, said.line) == (
        4,
        f"roclip: {out} was made by 'roclip embed', wanted one of 'roclip {command}': choose another folder",
    )


def test_an_audit_has_a_folder_of_its_own(roclip: Roclip, tmp_path: Path) -> None:
    write_bytes(tmp_path / "run.toml", b"[sanitize]\nseed = 0\n")
    said = roclip("audit", "--scan", tmp_path / "scan", "--out", tmp_path)
    assert said.code == 4
    assert "was made by 'roclip sanitize', wanted one of 'roclip audit'" in said.line


def test_commands_that_fill_the_same_folder_still_do(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    roclip(*embed(shard, out))
    assert roclip("retry-failed", out, "--executor", "local").code == 0
    assert roclip(*embed(shard, out)).code == 0
    assert roclip("verify", out).code == 0


def test_a_run_file_of_several_commands_says_nothing_of_the_folder(
    roclip: Roclip, shard: Path, tmp_path: Path
) -> None:
    write_bytes(tmp_path / "out" / "run.toml", b"[sanitize]\nseed = 0\n[train]\nseed = 0\n")
    assert roclip(*embed(shard, tmp_path / "out")).code == 0
