"""Where commands start: in a folder of their own, alone, and not in one that another command made."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from roclip_sanitize.cli.alone import alone
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.runfiles import LOCK_FILE, StageFolder, write_bytes
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
    said = roclip("retry-failed", out, "--executor", "local")
    assert (said.code, said.out.splitlines()[0]) == (0, "nothing to try again: no part lists failures")
    assert roclip(*embed(shard, out)).code == 0
    assert roclip("verify", out).code == 0


def test_a_run_file_of_several_commands_says_nothing_of_the_folder(
    roclip: Roclip, shard: Path, tmp_path: Path
) -> None:
    write_bytes(tmp_path / "out" / "run.toml", b"[sanitize]\nseed = 0\n[train]\nseed = 0\n")
    assert roclip(*embed(shard, tmp_path / "out")).code == 0


# Alone in it

HOLDER = """
import sys, time
from pathlib import Path
from roclip_sanitize.cli.alone import alone
with alone(Path(sys.argv[1]), say=print):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_over_or_dead(
    roclip: Roclip, shard: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLDER, out], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        said = roclip(*embed(shard, out))
        assert (said.code, said.line) == (
            2,
            f"roclip: another run (pid {holder.pid} on {platform.node()}) is at work in {out}: "
            "wait for it, or choose another folder",
        )
        holder.send_signal(signal.SIGKILL)
    assert (out / LOCK_FILE).exists()
    said = roclip(*embed(shard, out, "--json"))
    assert (said.code, said.lines) == (0, [])
    assert not (out / LOCK_FILE).exists()


def test_what_another_host_has_signed_is_told_of(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    """Its process cannot be asked: a killed one, or a disk that does not share locks."""
    write_bytes(tmp_path / "out" / LOCK_FILE, json.dumps({"host": "node7", "pid": 7}).encode())
    said = roclip(*embed(shard, tmp_path / "out", "--json"))
    assert (said.code, said.line) == (
        0,
        f"roclip: another run (pid 7 on node7) is at work in {tmp_path}/out, or was killed there: "
        "see that not both go on",
    )


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"7", b"[]", b'{"host": 7}', b"[" * 4_096, b'{"host": "\\u001b", "pid": 7}']
)
def test_a_lock_that_says_nothing_is_no_obstacle(
    roclip: Roclip, shard: Path, tmp_path: Path, content: bytes
) -> None:
    write_bytes(tmp_path / "out" / LOCK_FILE, content)
    said = roclip(*embed(shard, tmp_path / "out", "--json"))
    assert (said.code, said.lines) == (0, [])


def test_a_lock_is_given_back_and_so_are_folders_that_nothing_came_of(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "out"
    with alone(out, say=print):
        assert json.loads((out / LOCK_FILE).read_text()) == {"host": platform.node(), "pid": os.getpid()}
        with pytest.raises(ConfigError, match="is at work in"), alone(out, say=print):
            pass
        assert (out / LOCK_FILE).exists()
    assert not list(tmp_path.iterdir())
    with alone(out, say=print):
        (out / "result").touch()
    assert [path.name for path in out.iterdir()] == ["result"]


def test_where_there_cannot_be_a_lock_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out", Path("memory:/bucket/out")):
        with alone(out, say=print), alone(out, say=print):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
