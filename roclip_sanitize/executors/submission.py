"""Jobs, handed to a Ray cluster's job server: Ray runs a command there, and we follow what it prints.

Ray's own client takes care of tokens: it sends the one of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH or, with
RAY_AUTH_MODE=token, of ~/.ray/auth_token, which goes nowhere unasked. What a proxy before the cluster wants
besides comes from RAY_JOB_HEADERS, as JSON. Neither is ever part of a job, which anybody who sees the
dashboard can read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.redaction import redacted

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

HEADERS_VARIABLE, ADDRESS_VARIABLE = "RAY_JOB_HEADERS", "RAY_API_SERVER_ADDRESS"
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ASK_EVERY_SECONDS = 1.0
READY_WITHIN_SECONDS = 60.0
BACK_WITHIN_SECONDS = 300.0  # a head node that starts again takes as long
NOT_READY = (
    "No available agent"  # what a server says while its nodes' agents start; the job is not begun then
)
CHATTY_LOGGERS = (  # what is packed, that it is sent, that a connection ended as it should
    "ray._private.runtime_env",
    "ray.dashboard.modules",
    "ray.dashboard.modules.job.sdk",
)
STOPPED, FAILED = 130, 1


class JobFailed(RoclipError):
    """The job ended otherwise than done; ``exit_code`` is the job's own."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run on the cluster.

    Attributes:
        command: a shell command line.
        cores: that its driver holds on its node; 0 lets it run beside what else does.
        gpus: the same of GPUs.
        memory_bytes: the same of memory.
        environment: Ray's runtime environment.
    """

    command: str
    cores: float = 0.0
    gpus: float = 0.0
    memory_bytes: int = 0
    environment: Mapping[str, Any] = field(default_factory=dict)


class Client(Protocol):
    """The part of ray.job_submission.JobSubmissionClient that is used here."""

    def submit_job(self, **told: Any) -> str:
        """Hand a job over; its name."""
        ...

    def get_job_info(self, job_id: str) -> Any:
        """What has become of it."""
        ...

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What it prints, from its beginning on."""
        ...


def read_environment(path: Path) -> dict[str, Any]:
    """A runtime environment from a JSON or YAML file.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"runtime environment {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"runtime environment {path} is neither JSON nor YAML") from error
    if not isinstance(found, dict):
        raise ConfigError(f"runtime environment {path} is no table of settings")
    return found


def connect(address: str) -> Client:
    """Reach a cluster's job server.

    Args:
        address: its URL, such as http://head:8265; "" takes RAY_API_SERVER_ADDRESS, or this machine's.

    Raises:
        ConfigError: that is no URL, or RAY_JOB_HEADERS is no JSON object.
        RoclipError: nobody answers there, or not to us.
    """
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    where = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    if "://" not in where:  # Ray would take it for the address that nodes join
        raise ConfigError(f"the job server's address is {where!r}, wanted a URL, such as http://head:8265")
    try:
        with _address_told(where):
            return JobSubmissionClient(where, headers=_headers())  # type: ignore[no-any-return]
    except AuthenticationError as error:
        raise RoclipError(
            f"the job server at {redacted(where)} wants another token: set RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH, or RAY_AUTH_MODE=token for that in ~/.ray/auth_token"
        ) from error
    except (RuntimeError, ConnectionError, ValueError, RayError) as error:
        why = redacted(" ".join(str(error).split()))[:300]
        raise RoclipError(f"no job server answers at {redacted(where)}: {why}") from error


def submit(job: Job, client: Client) -> str:
    """Hand a job over. A server that has only just started, and has nobody yet to run it, is waited for.

    Returns:
        The name that Ray gives it.

    Raises:
        RoclipError: the server refuses it.
    """
    resources = {
        "entrypoint_num_cpus": job.cores or None,
        "entrypoint_num_gpus": job.gpus or None,
        "entrypoint_memory": job.memory_bytes or None,
    }
    given = {name: value for name, value in resources.items() if value is not None}
    until = time.monotonic() + READY_WITHIN_SECONDS
    while True:
        try:
            return client.submit_job(entrypoint=job.command, runtime_env=dict(job.environment), **given)
        except (RuntimeError, ConnectionError, ValueError) as error:
            if NOT_READY not in str(error) or time.monotonic() > until:
                why = redacted(" ".join(str(error).split()))[:300]
                raise RoclipError(f"the job server refuses the job: {why}") from error
        time.sleep(ASK_EVERY_SECONDS)


def follow(name: str, client: Client, show: Callable[[str], None]) -> None:
    """Show what a job prints until it ends. A server that does not answer is waited for.

    Args:
        name: the job's.
        client: the server.
        show: takes pieces of text as they come, each once.

    Raises:
        JobFailed: it ended otherwise than done.
        RoclipError: the server does not come back.
    """
    shown = 0
    while True:
        shown = asyncio.run(_show_new(name, client, show, shown))
        info = _info(name, client)
        if info.status.is_terminal():
            break
        time.sleep(ASK_EVERY_SECONDS)  # the connection went, the job did not
    shown = asyncio.run(_show_new(name, client, show, shown))
    if info.status == "SUCCEEDED":
        return
    if info.status == "STOPPED":
        raise JobFailed(f"job {name} was stopped; the same again goes on from there", STOPPED)
    if info.driver_exit_code:
        raise JobFailed(f"job {name} ended with {info.driver_exit_code}", info.driver_exit_code)
    why = redacted(" ".join(str(info.message or "").split()))[:300]  # its command was never run, or killed
    raise JobFailed(f"job {name} failed: {why}")


def _info(name: str, client: Client) -> Any:
    """What has become of a job, as soon as the server tells."""
    from ray.exceptions import AuthenticationError

    until = time.monotonic() + BACK_WITHIN_SECONDS
    while True:
        try:
            return client.get_job_info(name)
        except (RuntimeError, OSError, AuthenticationError) as error:
            if time.monotonic() > until:
                why = redacted(" ".join(str(error).split()))[:200]
                raise RoclipError(
                    f"the job server no longer answers ({why}), but job {name} may go on: "
                    f"'ray job status {name}' tells, 'ray job logs --follow {name}' follows it again"
                ) from error
        time.sleep(ASK_EVERY_SECONDS)


async def _show_new(name: str, client: Client, show: Callable[[str], None], shown: int) -> int:
    """Show a job's log from a character on; how many there are now."""
    seen, pieces = 0, client.tail_job_logs(name)
    while True:
        try:
            text = await anext(pieces)
        except Exception:  # noqa: BLE001  # its end, or the connection went: aiohttp's errors have no other kind
            return max(shown, seen)
        new = text[max(0, shown - seen) :]
        seen += len(text)
        if new:
            show(new)


@contextmanager
def _address_told(where: str) -> Iterator[None]:
    """Have Ray's client heed what it is told: RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, mean more to it."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = where
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before


def _headers() -> dict[str, str]:
    text = os.environ.get(HEADERS_VARIABLE, "{}")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'{HEADERS_VARIABLE} is no JSON object, such as {{"Authorization": "Bearer …"}}')
    return found
