"""Commands as jobs of a Ray cluster: what is handed over, what is shown, how it ends."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.cli import command_tree
from roclip_sanitize.cli.submit import arguments_of, environment
from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.executors import submission
from roclip_sanitize.executors.submission import Job, JobFailed, follow, read_environment, submit
from roclip_sanitize.runfiles import read_json
from tests.commands import Roclip
from tests.corpora import write_shard

ROOT = Path(__file__).parent.parent
JOBS = sorted(path for path in (ROOT / "jobs").glob("*.py") if path.name != "__init__.py")


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


# What is handed over


def test_a_command_is_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = ["embed", "--shards", "a/{00000..00001}.tar::s3://b/c.tar", "--out", "o", "--compile", "--json"]
    assert arguments_of(told) == [
        *("embed", "--shards", f"{tmp_path}/a/{{00000..00001}}.tar::s3://b/c.tar", "--out", f"{tmp_path}/o"),
        *("--compile", "--json"),
    ]


def test_run_files_are_read_here(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[evaluate]\narm = ['plain=/m', '/n']\nout = '/o'\ncurves = false\nnear = 0.5\n")
    assert arguments_of(["evaluate", "--config", str(path), "--seed", "3"]) == [
        *("evaluate", "--arm", "plain=/m", "--arm", "/n", "--out", "/o", "--no-curves"),
        *("--near", "0.5", "--seed", "3"),
    ]


def test_what_is_off_is_called_by_its_own_name() -> None:
    told = ["ingest", "--urls", "/l", "--out", "/o", "--also-enlarge", "--ignore-opt-out"]
    assert arguments_of(told) == told
    assert arguments_of([*told[:-2], "--only-if-bigger", "--respect-opt-out"]) == told[:-2]


NEEDED = {
    "train": ("--train-data", "/s"),
    "embed": ("--shards", "/s"),
    "poison": ("--shards", "/s", "--label", "kind"),
    "evaluate": (),
    "ingest": (),
}


@pytest.mark.parametrize(
    ("stage", "option", "value", "wanted"),
    [
        ("train", "--method", "consensus", "consensus"),
        ("train", "--wandb", "photos", "photos"),
        ("train", "--pretrained", "open_clip:ViT-B-32/photos", "open_clip:ViT-B-32/photos"),
        ("train", "--pretrained", "open_clip:ViT-B-32/p.pt", "open_clip:ViT-B-32/HERE/p.pt"),
        ("train", "--pretrained", "photos", "HERE/photos"),
        ("train", "--checkpoints", "not_there_yet", "HERE/not_there_yet"),
        ("train", "--checkpoints", "s3://bucket/photos", "s3://bucket/photos"),
        ("embed", "--encoder", "textures", "textures"),
        ("poison", "--attacks", "patch:target=photos", "patch:target=photos"),
        ("poison", "--attacks", "badclip:file=p.pt,rate=0.1", "badclip:file=HERE/p.pt,rate=0.1"),
        (
            "poison",
            "--attacks",
            "badclip:rate=0.1, file = a,b.json",
            "badclip:rate=0.1, file = HERE/a,b.json",
        ),
        ("evaluate", "--arm", "consensus=runs/a", "consensus=HERE/runs/a"),
        ("evaluate", "--arm", "runs/a", "HERE/runs/a"),
        ("evaluate", "--dataset", "cifar10:photos", "cifar10:HERE/photos"),
        ("evaluate", "--classes", "photos", "photos"),
        ("ingest", "--urls", "a.csv::b.csv", "HERE/a.csv::HERE/b.csv"),
    ],
)
def test_only_what_holds_a_path_becomes_absolute(
    stage: str, option: str, value: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("consensus", "photos", "textures"):
        (tmp_path / name).mkdir()
    (tmp_path / "p.pt").touch()
    needed = [*NEEDED[stage], "--out", "/o"]
    if stage == "evaluate" and option != "--arm":
        needed += ["--arm", "/a"]
    found = arguments_of([stage, option, value, *needed])
    assert found[found.index(option) + 1] == wanted.replace("HERE", str(tmp_path))


def test_arguments_and_groups_keep_their_places() -> None:
    assert arguments_of(["retry-failed", "/store", "--threads", "2"]) == [
        "retry-failed",
        "/store",
        "--threads",
        "2",
    ]
    told = ["attacks", "rebuild", "--ledger", "/l", "--shards", "/s.tar", "--out", "/o"]
    assert arguments_of(told) == told
    assert arguments_of(["index", "--store", "/s", "--out", "/o"]) == [
        "index",
        "--store",
        "/s",
        "--out",
        "/o",
    ]


def test_what_makes_no_sense_never_leaves(roclip: Roclip) -> None:
    nowhere = ("submit", "--address", "http://127.0.0.1:1")
    for stage, line in {
        ("sanitise",): "no command 'sanitise' to submit; did you mean 'sanitize'?",
        ("submit", "embed"): "no command 'submit' to submit",
        ("embed", "--out", "o"): "Missing option '--shards'; see 'roclip embed --help'",
        ("embed", "--shards", "https://me:hunter2@h/0.tar", "--out", "o"): "shards holds a secret",
        (
            "train",
            "--train-data",
            "x",
            "--out",
            "o",
            "--checkpoints",
            "s3://k:hunter2@b",
        ): "checkpoints holds a sec",
    }.items():
        said = roclip(*nowhere, *stage)
        assert (said.code, said.out) == (2, "")
        assert line in said.line
        assert "hunter2" not in said.err


def test_an_environment_is_put_together(tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text("pip: [s3fs]\nenv_vars: {A: '1'}\n")
    found = environment(path, working_dir=".", variables=["B=2=3"])
    assert found == {"pip": ["s3fs"], "working_dir": ".", "env_vars": {"A": "1", "B": "2=3"}}
    assert environment(None, working_dir="", variables=()) == {}
    for variable in ("RAY_AUTH_TOKEN=hunter2", "PROXY=http://me:hunter2@proxy"):
        with pytest.raises(ConfigError, match="holds a secret") as caught:
            environment(None, working_dir="", variables=[variable])
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="wanted NAME=VALUE"):
        environment(None, working_dir="", variables=["B"])
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="no table of settings"):
        read_environment(path)


def test_nobody_there_is_one_line(roclip: Roclip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"Authorization": "Bearer hunter2"}')
    told = ("embed", "--shards", "x", "--out", "o")
    said = roclip("submit", "--address", "http://127.0.0.1:1", *told)
    assert (said.code, said.out) == (1, "")
    assert said.line.startswith("roclip: no job server answers at http://127.0.0.1:1: ")
    assert "hunter2" not in said.err
    monkeypatch.setenv("RAY_JOB_HEADERS", "Bearer hunter2")
    said = roclip("submit", *told)
    assert (said.code, said.line[:38]) == (2, "roclip: RAY_JOB_HEADERS is no JSON obj")


# What is shown, and how it ends


class Status(str):
    """As Ray has it."""

    def is_terminal(self) -> bool:
        return self in {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass
class Info:
    """As Ray has it."""

    status: Status
    message: str = ""
    driver_exit_code: int | None = None


@dataclass
class Server:
    """A job server whose connection breaks: each look gives a log from its beginning, and goes so far."""

    looks: list[tuple[str, ...]]
    infos: list[Info]
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def submit_job(self, **told: Any) -> str:
        self.jobs.append(told)
        return "job_1"

    def get_job_info(self, job_id: str) -> Info:
        return self.infos.pop(0)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for text in self.looks.pop(0):
            if text == "gone":
                raise RuntimeError("the connection closed")
            yield text


class Starting(Server):
    """Has nobody to run jobs yet, the first times that it is asked."""

    def __init__(self, *refusals: str) -> None:
        super().__init__([], [])
        self._refusals = list(refusals)

    def submit_job(self, **told: Any) -> str:
        if self._refusals:
            raise RuntimeError(self._refusals.pop(0))
        return super().submit_job(**told)


def test_a_server_that_has_just_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "ASK_EVERY_SECONDS", 0.0)
    soon = "status code 500: No available agent to submit job, please try again later."
    server = Starting(soon, soon)
    assert submit(Job(command="a"), server) == "job_1"
    assert len(server.jobs) == 1
    with pytest.raises(RoclipError, match="the job server refuses the job: no such working_dir"):
        submit(Job(command="a"), Starting("no such working_dir"))
    monkeypatch.setattr(submission, "READY_WITHIN_SECONDS", 0.0)
    with pytest.raises(RoclipError, match=r"refuses the job: .*No available agent"):
        submit(Job(command="a"), Starting(soon, soon, soon))


def test_each_character_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roclip_sanitize.executors.submission.ASK_EVERY_SECONDS", 0)
    looks = [("one\n", "two", "gone"), ("one\ntwo\nthree\n",), ("one\ntwo\nthree\n", "four\n")]
    server = Server(looks, [Info(Status("RUNNING")), Info(Status("SUCCEEDED"))])
    shown = list[str]()
    follow("job_1", server, shown.append)
    assert "".join(shown) == "one\ntwo\nthree\nfour\n"


class Away(Server):
    """Does not answer, the first times that it is asked what has become of a job."""

    def __init__(self, times: int) -> None:
        super().__init__([("one\n", "gone"), ("one\n", "two\n")], [Info(Status("SUCCEEDED"))])
        self._times = times

    def get_job_info(self, job_id: str) -> Info:
        self._times -= 1
        if self._times >= 0:
            raise ConnectionError("nobody at http://me:hunter2@head")
        return super().get_job_info(job_id)


def test_a_server_that_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "ASK_EVERY_SECONDS", 0.0)
    shown = list[str]()
    follow("job_1", Away(3), shown.append)
    assert "".join(shown) == "one\ntwo\n"
    monkeypatch.setattr(submission, "BACK_WITHIN_SECONDS", 0.0)
    with pytest.raises(
        RoclipError, match=r"may go on: 'ray job status job_1' tells, 'ray job logs --f"
    ) as why:
        follow("job_1", Away(99), shown.append)
    assert "hunter2" not in str(why.value)


@pytest.mark.parametrize(
    ("info", "code", "says"),
    [
        (Info(Status("FAILED"), "a whole log", 3), 3, "job job_1 ended with 3"),
        (Info(Status("FAILED"), "no room", None), 1, "job job_1 failed: no room"),
        (Info(Status("FAILED"), "see s3://k:hunter2@b"), 1, "failed: see s3://REDACTED@b"),
        (Info(Status("STOPPED")), 130, "job job_1 was stopped; the same again goes on from there"),
    ],
)
def test_a_job_that_fails_says_so_with_its_code(info: Info, code: int, says: str) -> None:
    with pytest.raises(JobFailed, match=re.escape(says)) as caught:
        follow("job_1", Server([(), ()], [info]), print)
    assert caught.value.exit_code == code


def test_resources_are_asked_for_only_if_wanted() -> None:
    server = Server([], [])
    submit(Job(command="a"), server)
    submit(Job(command="b", cores=2, gpus=0.5, memory_bytes=10, environment={"pip": []}), server)
    assert server.jobs == [
        {"entrypoint": "a", "runtime_env": {}},
        {
            "entrypoint": "b",
            "runtime_env": {"pip": []},
            "entrypoint_num_cpus": 2,
            "entrypoint_num_gpus": 0.5,
            "entrypoint_memory": 10,
        },
    ]


# jobs/


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_jobs_head_says_what_it_needs_and_its_command_parses(path: Path) -> None:
    head = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    assert [
        word for word in ("Needs", "Takes", "Writes", "Resumes") if re.search(rf"^{word}  +\S", head, re.M)
    ] == [
        "Needs",
        "Takes",
        "Writes",
        "Resumes",
    ]
    shown = re.search(r"^    (ray job submit (?:.*\\\n)*.*)$", head, re.M)
    assert shown
    words = shlex.split(shown[1].replace("\\\n", " "))
    program, name, *rest = words[words.index("--") + 1 :]
    assert (program, name) == ("python", f"jobs/{path.name}")
    calls = re.search(r'run\(\["([\w-]+)", \*sys\.argv\[1:\]\]\)', path.read_text("utf-8"))
    if calls:
        command_tree().commands[calls[1]].make_context(calls[1], rest)
    else:
        assert "argparse" in path.read_text("utf-8")


# A real server

SERVER = """
import ray, sys
told = {"address": "local", "num_cpus": 2, "logging_level": "error"}
context = ray.init(include_dashboard=True, dashboard_port=0, **told)
print(context.dashboard_url, flush=True)
sys.stdin.read()
"""
TOKEN = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node with a job server that wants a token, in a process of its own."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=with_token(TOKEN), **pipes) as process:
        assert process.stdout is not None
        yield f"http://{process.stdout.readline().strip()}"
        process.communicate("")


def with_token(token: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # jobs run the `python` there
    told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONPATH": str(ROOT), "PATH": path}
    return {**os.environ, **told}


def submitted(address: str, *stage: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    told = ("submit", "--address", address, "--working-dir", ROOT, *stage)
    command = [sys.executable, "-m", "roclip_sanitize.cli", *map(str, told)]
    return subprocess.run(command, env=with_token(token), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_job_runs_on_a_cluster_and_ends_as_it_ends(tmp_path: Path, address: str) -> None:
    shard, out = write_shard(tmp_path / "0.tar", range(6)), tmp_path / "out"
    stage = ("embed", "--shards", shard, "--out", out, "--executor", "local")
    done = submitted(address, *stage)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +6  pairs seen$", done.stdout, re.M)
    assert read_json(out / "complete.json")["tally"]["seen"] == 6
    assert (out / "run.toml").exists()
    refused = submitted(address, *stage, "--batch-size", 2)
    assert refused.returncode == 4
    assert "batch_size was 256, now 2" in refused.stdout
    assert TOKEN not in done.stdout + done.stderr + refused.stdout + refused.stderr


@pytest.mark.slow
def test_a_wrong_token_is_one_line(address: str) -> None:
    refused = submitted(address, "verify", "/nowhere", token="f" * 32)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1].startswith(
        f"roclip: the job server at {address} wants another token"
    )
    assert "f" * 32 not in refused.stderr
