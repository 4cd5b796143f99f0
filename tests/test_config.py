"""Run files and Python: the same settings as the command line, refused in the same way."""

from __future__ import annotations

import contextlib
import json
import tomllib
from pathlib import Path

import pytest

from roclip_sanitize.cli import call, command_tree
from roclip_sanitize.cli.helping import commands_below
from roclip_sanitize.cli.run_file import file_problems
from roclip_sanitize.cli.settings import settings_of
from roclip_sanitize.errors import ConfigError, MismatchError, RoclipError, TooManyFailed
from tests.commands import Roclip
from tests.corpora import pair_members, write_shard, write_tar

WITH_SETTINGS = {
    " ".join(words): command for words, command in commands_below(command_tree()) if settings_of(command)
}


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


def run_file(folder: Path, *lines: str) -> Path:
    path = folder / "run.toml"
    path.write_text("\n".join(lines))
    return path


# config show


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_a_template_has_every_setting_at_its_default(roclip: Roclip, name: str) -> None:
    said = roclip("config", "show", *name.split())
    assert said.code == 0
    tables = tomllib.loads(said.out)
    assert list(file_problems(tables, command_tree())) == []
    for word in name.split():
        tables = tables[word]
    settings = settings_of(WITH_SETTINGS[name])
    assert tables == {
        setting.name: setting.plain(setting.default)
        for setting in settings.values()
        if setting.default is not None
    }
    left_out = {
        line.split()[1] for line in said.out.splitlines() if line.startswith("# ") and line.endswith(" =")
    }
    assert left_out | set(tables) == set(settings)


def test_an_unknown_command_suggests_its_neighbour(roclip: Roclip) -> None:
    said = roclip("config", "show", "sanitise")
    assert said.code == 2
    assert said.line.startswith(
        "roclip: no command 'sanitise' has settings; did you mean 'sanitize'? known are "
    )


# config check


def test_all_that_is_wrong_is_told_at_once(roclip: Roclip, tmp_path: Path) -> None:
    path = run_file(
        tmp_path,
        "[embed]",
        "batchsize = 3",
        "seed = 'x'",
        "[scan]",
        "store = 's'",
        "index = 'i'",
        "out = 'o'",
        "budget = 1.5",
        "times_mismatched = nan",
        "[evaluate]",
        "out = 'o'",
        "[emebd]",
    )
    said = roclip("config", "check", path)
    assert said.code == 2
    first, *rest = said.lines
    assert first == f"roclip: {path}: 9 to put right"
    told = "\n".join(rest)
    for wrong in (
        "[embed] has no setting 'batchsize'; did you mean 'batch_size'?",
        "[embed] seed is 'x', wanted a whole number of 0 or more",
        "[embed] shards must be given",
        "[embed] out must be given",
        "[scan] budget is 1.5, wanted a number from 0 to 1",
        "[scan] times_mismatched is nan, wanted a number of 0 or more",
        "[evaluate] arm must be given",
        "[evaluate] wanted either test shards or a public data set",
        "[emebd] is no command; did you mean 'embed'?",
    ):
        assert f"  {wrong}" in told


def test_a_range_is_looked_at_though_shards_are_missing(roclip: Roclip, tmp_path: Path) -> None:
    """Those that are not there yet, or not named yet, have nothing to do with it."""
    path = run_file(
        tmp_path,
        *("[train]", f"train_data = '{tmp_path}/{{0..3}}.tar'", "out = 'o'", "lr = -1"),
        *("[embed]", "batch_size = 0"),
    )
    said = roclip("config", "check", path)
    assert [line.strip() for line in said.lines[1:]] == [
        f"[train] shard {tmp_path}/0.tar and 3 more do not exist, of 4 named",
        "[train] lr is -1.0, wanted more than 0",
        "[embed] shards must be given",
        "[embed] out must be given",
        "[embed] batch-size is 0, wanted 1 or more",
    ]


def test_checking_runs_nothing(roclip: Roclip, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", range(3))
    path = run_file(tmp_path, "[embed]", f"shards = '{shard}'", f"out = '{tmp_path / 'out'}'")
    said = roclip("config", "check", path)
    assert (said.code, said.out) == (0, f"{path}: nothing to put right\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", [name for name in WITH_SETTINGS if "executor" in settings_of(WITH_SETTINGS[name])]
)
def test_every_command_with_workers_stops_at_its_start(name: str, tmp_path: Path) -> None:
    """A trial of it gets past its settings, or is refused for them, and makes nothing."""
    shard = write_shard(tmp_path / "0.tar", range(3))
    given = {
        setting.name: str(
            shard if "shard" in setting.name or setting.name == "train_data" else tmp_path / setting.name
        )
        for setting in settings_of(WITH_SETTINGS[name]).values()
        if setting.required or setting.name in {"store", "out", "run"}
    }
    before = sorted(tmp_path.rglob("*"))
    with contextlib.suppress(RoclipError):
        assert call(name, dry=True, **given) == {}
    assert sorted(tmp_path.rglob("*")) == before


# From Python


def test_python_gets_what_json_prints(
    roclip: Roclip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_shard(tmp_path / "0.tar", range(5))
    told = call("embed", shards=shard, out=tmp_path / "here", executor="local")
    assert capsys.readouterr().out == ""
    printed = roclip("embed", "--shards", shard, "--out", tmp_path / "there", "--executor", "local", "--json")
    assert set(told) == set(json.loads(printed.out))
    assert (told["seen"], told["store"]) == (5, str(tmp_path / "here"))


def test_python_takes_run_files_and_its_own_settings_go_first(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", range(5))
    path = run_file(
        tmp_path, "[embed]", f"shards = '{shard}'", "out = 'nowhere'", "executor = 'local'", "batch-size = 2"
    )
    assert call("embed", config=path, out=tmp_path / "out")["seen"] == 5
    with pytest.raises(MismatchError, match="batch_size was 2, now 3"):
        call("embed", config=path, out=tmp_path / "out", batch_size=3)


def test_a_tilde_is_the_home_of_whoever_runs_it(
    roclip: Roclip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    monkeypatch.setenv("HOME", str(home))
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write_shard(home / "0.tar", range(5))
    told = ("[embed]", "shards = '~/0.tar'", "out = '~/store'", "executor = 'local'")
    assert roclip("embed", "--config", run_file(tmp_path, *told)).code == 0
    assert (home / "store" / "complete.json").exists()
    assert tomllib.loads((home / "store" / "run.toml").read_text())["embed"]["out"] == str(home / "store")
    assert roclip("verify", "~/store").code == 0
    assert list(elsewhere.iterdir()) == []
    said = roclip("verify", "~nobody-here/store")
    assert (said.code, said.line) == (2, "roclip: '~nobody-here/store' names the home of nobody known here")


def test_python_is_refused_as_the_command_line_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no setting 'shard'; did you mean 'shards'"):
        call("embed", shard="x")
    with pytest.raises(ConfigError, match="no command 'embd'; did you mean 'embed'"):
        call("embd")
    with pytest.raises(ConfigError, match="Missing option '--shards'"):
        call("embed", out=tmp_path)
    broken = write_tar(tmp_path / "0.tar", [*pair_members("a", 1, image=b"?"), *pair_members("b", 2)])
    with pytest.raises(TooManyFailed, match="1 of 2 failed"):
        call("embed", shards=broken, out=tmp_path / "out", executor="local")
