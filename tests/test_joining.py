"""Ray clusters that are not there, or lack GPUs, and addresses that are none: a line, and soon."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.executors import joining, open_executor
from roclip_sanitize.executors.joining import cluster_address, require_answer, require_gpus
from roclip_sanitize.executors.submission import connect
from tests.commands import Roclip

EMBED = ("embed", "--shards", "x", "--out", "o")


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roclip:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(joining, "ANSWERS_WITHIN_SECONDS", 0.0)
    return Roclip(capsys)


@pytest.fixture
def port() -> Iterator[int]:
    """One that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# RAY_ADDRESS


@pytest.mark.parametrize(("told", "found"), [("", ""), ("local", ""), (" head:6379", "head:6379")])
def test_what_names_no_cluster_is_this_machines_own(
    monkeypatch: pytest.MonkeyPatch, told: str, found: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", told)
    assert cluster_address() == found


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("http://me:hunter2@127.0.0.1:1", 2, "wanted the cluster's own address, such as head:6379; URLs are"),
        ("127.0.0.1:1", 1, "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:1", 1, "no Ray cluster answers at RAY_ADDRESS=ray://127.0.0.1:1: Connection re"),
        ("127.0.0.1:99999", 1, "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:99999: "),
        ("head..none:6379", 1, "no Ray cluster answers at RAY_ADDRESS=head..none:6379: "),
    ],
)
def test_nobody_there_is_one_line(
    roclip: Roclip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, code: int, says: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    shard = tmp_path / "0.tar"
    shard.touch()
    said = roclip("embed", "--shards", shard, "--out", tmp_path / "out")
    assert (said.code, said.out) == (code, "")
    assert says in said.line
    assert "hunter2" not in said.err
    assert not (tmp_path / "out").exists()


def test_who_listens_is_joined_and_what_is_no_place_is_left_to_ray(port: int) -> None:
    for address in (f"127.0.0.1:{port}", f"ray://localhost:{port}", "auto", "cloud://some/cluster:1"):
        require_answer(address)


def test_a_head_that_is_being_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = ["Connection refused"] * 3 + [""]
    monkeypatch.setattr(joining, "_silent", lambda *_: refusals.pop(0))
    monkeypatch.setattr(joining, "TRY_EVERY_SECONDS", 0.0)
    require_answer("head:6379")
    assert not refusals


def test_what_ray_says_of_an_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from roclip_sanitize.executors.cluster import RayExecutor

    monkeypatch.setenv("RAY_ADDRESS", "cloud://some/cluster")
    with pytest.raises(RoclipError, match=r"^RAY_ADDRESS=cloud://some/cluster cannot be joined: "):
        RayExecutor()


# GPUs


def test_gpus_that_this_machine_lacks_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roclip_sanitize.executors.local.gpus_here", lambda: 1)
    assert open_executor("local", gpus_per_worker=1).size == 1
    with pytest.raises(ConfigError, match=r"^gpus-per-worker is 2, this machine has 1$"):
        open_executor("local", gpus_per_worker=2)


def test_gpus_that_a_cluster_may_get_are_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_gpus(0.0, [], may_grow=False)
        require_gpus(1.0, [0, 1], may_grow=True)
        require_gpus(0.5, [0, 1.0], may_grow=False)
        assert caplog.messages == []
        require_gpus(1.0, [0, 0], may_grow=True)
        require_gpus(2.0, [1, 1.0], may_grow=True)
    assert caplog.messages == [
        "gpus-per-worker is 1: waiting for a node with as many, the cluster has none",
        "gpus-per-worker is 2: waiting for a node with as many, the cluster has nodes with 1 at most",
    ]


# Job servers


class JobServer(BaseHTTPRequestHandler):
    """Answers as a job server does that is asked who it is."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"version": "4", "ray_version": "2.60.0", "ray_commit": "b7f4"}')

    def log_message(self, *_: object) -> None:
        """Nobody wants to know."""


def test_an_address_that_is_no_url_is_refused(roclip: Roclip, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "roclip: the job server's address is 'head:8265', wanted a URL, such as http://head:8265"
    said = roclip("submit", "--address", "head:8265", *EMBED)
    assert (said.code, said.line) == (2, refusal)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "head:8265")
    said = roclip("submit", *EMBED)
    assert (said.code, said.line) == (2, refusal)


def test_the_address_that_is_told_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's client prefers what the environment says."""
    server = HTTPServer(("127.0.0.1", 0), JobServer)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    try:
        connect(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert JobServer.asked
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"
