"""One run at a time in a folder: OUT/.roclip.lock is held for as long as a command is at work there.

The lock goes with its process, however that ends: a file that a killed run left means nothing by itself.
Whether a host sees the locks of others depends on the disk that they share, so that what another one has
signed is told of, and is no reason to stop. Behind URLs there are no locks, and none where a disk refuses:
what is wrong there is for the stages to say. Of two runs at once all but trainings end with the same bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import LOCK_FILE

MAX_BYTES = 4_096  # of a signature


@contextmanager
def alone(out: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other runs out of a folder while the block lasts, and leave no traces if nothing comes of it.

    Args:
        out: the folder, which is made if need be.
        say: told of a run on another host that may be at work there.

    Raises:
        ConfigError: another run of this host is at work there.
    """
    if is_url(out):
        yield
        return
    made = [folder for folder in (out, *out.parents) if not os.path.lexists(folder)]
    lock = _taken(out, say)
    try:
        yield
    finally:
        if lock is not None:
            with lock, suppress(OSError):
                (out / LOCK_FILE).unlink()  # before anybody else can hold it
        for folder in made:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def _taken(out: Path, say: Callable[[str], None]) -> IO[bytes] | None:
    """The folder's lock, held and signed; None where there cannot be one."""
    path = out / LOCK_FILE
    with suppress(OSError):
        while True:
            out.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                with file:
                    _require_elsewhere(file, out, say, held=isinstance(error, BlockingIOError))
                return None
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
            file.close()  # who held it has removed it meanwhile
        _require_elsewhere(file, out, say, held=False)
        with suppress(OSError):
            file.truncate(0)
            file.write(json.dumps({"host": platform.node(), "pid": os.getpid()}).encode())
        return file
    return None


def _require_elsewhere(file: IO[bytes], out: Path, say: Callable[[str], None], *, held: bool) -> None:
    """Refuse a run of this host that holds the lock; tell of another host's, if it has signed."""
    host, who = _signed(file)
    if host not in {"", platform.node()}:
        say(f"roclip: {who} is at work in {out}, or was killed there: see that not both go on")
    elif held:
        raise ConfigError(f"{who} is at work in {out}: wait for it, or choose another folder")


def _signed(file: IO[bytes]) -> tuple[str, str]:
    """The host of the run that signed a lock, "" for nobody, the run in words. It may be anybody's file."""
    file.seek(0)
    try:
        signed = json.loads(file.read(MAX_BYTES))
        host, pid = str(signed["host"]), int(signed["pid"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", "another run"
    if not host.isprintable():
        return "", "another run"
    return host, f"another run (pid {pid} on {host})"
