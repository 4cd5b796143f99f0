"""What ran lies beside the results, and runs again; secrets stay out of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.cli import command_tree
from roclip_sanitize.cli.helping import EXAMPLES, SECTIONS, commands_below
from roclip_sanitize.cli.run_file import toml_value, write_run_file
from roclip_sanitize.cli.settings import settings_of
from roclip_sanitize.redaction import is_secret, redacted
from roclip_sanitize.runfiles import write_json
from roclip_sanitize.status.record import RunRecord
from tests.commands import Roclip
from tests.corpora import write_shard

COMMANDS = {" ".join(words): command for words, command in commands_below(command_tree())}
RUNNABLE = [name for name, command in COMMANDS.items() if settings_of(command)]


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


def events(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]


# Beside the results


def test_what_ran_runs_again_from_its_file(roclip: Roclip, tmp_path: Path) -> None:
    shard, out = write_shard(tmp_path / "0.tar", range(8)), tmp_path / "out"
    told = ("--executor", "local", "--batch-size", 3, "--json")
    assert roclip("embed", "--shards", shard, "--out", out, *told).code == 0
    table = tomllib.loads((out / "run.toml").read_text("utf-8"))["embed"]
    assert (table["batch_size"], table["shards"], table["json"]) == (3, str(shard), True)
    again = roclip("embed", "--config", out / "run.toml")
    assert again.code == 0
    assert json.loads(again.out)["seen"] == 8
    assert [(each["event"], each.get("command"), each.get("code")) for each in events(out)] == [
        *[("started", "embed", None), ("ended", None, 0)] * 2
    ]
    assert len({each["run"] for each in events(out)}) == 2


def test_what_was_refused_does_not_take_the_place_of_what_ran(roclip: Roclip, tmp_path: Path) -> None:
    shard, out = write_shard(tmp_path / "0.tar", range(8)), tmp_path / "out"
    told = ("embed", "--shards", shard, "--out", out, "--executor", "local")
    roclip(*told)
    kept = (out / "run.toml").read_bytes()
    assert roclip(*told, "--batch-size", 3).code == 4
    assert (out / "run.toml").read_bytes() == kept
    *_, last = events(out)
    assert (last["event"], last["code"]) == ("ended", 4)
    assert "made with other settings" in str(last["error"])


def test_a_folder_that_is_no_runs_stays_as_it_is(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, command="embed", run_file="[embed]\n", facts={})
    record.write()
    record.end(2, error="no shards named")
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "stage.json", {})
    record.write()
    assert [each["event"] for each in events(tmp_path)] == ["started", "ended"]


# Secrets

SECRETS = {
    "https://me:hunter2@host/0.tar": "https://REDACTED@host/0.tar",
    "s3://KEY:hunter2@bucket/0.tar?x=1": "s3://REDACTED@bucket/0.tar?x=1",
    "https://host/0.tar?X-Amz-Signature=hunter2&part=1": "https://host/0.tar?X-Amz-Signature=REDACTED&part=1",
    "https://host/0.tar?sig=hunter2": "https://host/0.tar?sig=REDACTED",
    "Authorization: Bearer hunter2": "Authorization: Bearer REDACTED",
    "data/{00000..00009}.tar::s3://bucket/a@b.tar": "data/{00000..00009}.tar::s3://bucket/a@b.tar",
}


@pytest.mark.parametrize(("text", "shown"), SECRETS.items(), ids=lambda text: text[:30])
def test_secrets_are_taken_out(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


def test_names_of_secrets_are_known() -> None:
    assert all(
        map(is_secret, ("RAY_AUTH_TOKEN", "api_key", "password", "Authorization", "AWS_SECRET_ACCESS_KEY"))
    )
    assert not any(map(is_secret, ("keep_checkpoints", "tokens", "seed", "monkey", "signal")))


def test_a_run_file_has_no_secrets(roclip: Roclip) -> None:
    command = COMMANDS["embed"]
    text = write_run_file(command, ("embed",), {"shards": "https://me:hunter2@host/0.tar", "out": "out"})
    assert "hunter2" not in text
    assert tomllib.loads(text)["embed"]["shards"] == "https://REDACTED@host/0.tar"


# TOML

VALUES = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False))


@given(st.one_of(VALUES, st.lists(st.text())))
def test_values_come_back_from_toml(value: object) -> None:
    found = tomllib.loads(f"a = {toml_value(value)}")["a"]
    assert (found, type(found)) == (value, type(value))


# Every command


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_command_says_what_each_setting_means(name: str) -> None:
    command = COMMANDS[name]
    settings = settings_of(command)
    parameters = {parameter.name for parameter in command.params} - {"config"}
    assert {setting.parameter for setting in settings.values()} == parameters
    assert all(setting.meaning for setting in settings.values())


@pytest.mark.parametrize("name", [name for name in COMMANDS if not hasattr(COMMANDS[name], "commands")])
def test_every_command_has_an_example(name: str) -> None:
    assert name in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_commands_that_parse(name: str) -> None:
    import shlex

    program, *words = shlex.split(EXAMPLES[name])
    assert program == "roclip"
    command, path = command_tree(), name.split()
    assert words[: len(path)] == path
    for word in path:
        command = command.commands[word]
    command.make_context(name, words[len(path) :])


def test_every_command_is_in_one_section() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(command_tree().commands)
