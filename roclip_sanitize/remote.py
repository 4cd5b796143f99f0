"""Files behind URLs: asked for patiently, by whoever reads shards or results. Door to fsspec.

A URL is a Path as pathlib folds it: ``s3://bucket/0.tar`` is Path("s3:/bucket/0.tar"). It has a name and a
stem, and travels through settings and markers as text like any other; this module alone takes it for a URL
again. What fsspec needs to know (keys, endpoints) it takes from its own configuration.

Stores fail now and then: a request that fails, or brings less than it should, is made again after a pause
that doubles, and counted.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.redaction import unsigned

PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+:")  # two letters or more, unlike a drive
ATTEMPTS = 6
PAUSE_SECONDS = 0.2  # after the first failure; doubles with each
# What tells one version of a file from the next, in the words of this store or that. Other facts that a
# store tells may change by themselves, such as when the file was last read.
DIGEST_FIELDS = frozenset({"etag", "content-md5", "md5hash", "crc32c", "sha256", "oid"})
TIME_FIELDS = frozenset({"mtime", "created", "updated", "last-modified", "lastmodified", "last_modified"})
VERSION_FIELDS = DIGEST_FIELDS | TIME_FIELDS | {"size", "generation", "versionid", "version_id"}
NOT_FOUND = frozenset({404, 410})  # as web servers say
TRY_AGAIN = frozenset({408, 425, 429})  # timeout, too early, too many
# Nobody's store: a mistake in a program, which is not mended by trying it again.
MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    NotImplementedError,
    TypeError,
)
_signed = dict[Path, Path]()  # by what is written down of them, URLs that this process was told signed


def is_url(path: Path) -> bool:
    """Whether a Path stands for a URL."""
    return bool(path.parts and PROTOCOL.fullmatch(path.parts[0]))


def source_name(path: Path) -> str:
    """What source_path() was given: the URL that a Path stands for, or the path itself."""
    return f"{path.parts[0]}//{'/'.join(path.parts[1:])}" if is_url(path) else str(path)


def file_name(path: Path) -> str:
    """The name of a file, such as "00000.tar". A URL's query is no part of it."""
    return source_name(path).partition("?")[0].rpartition("/")[2] if is_url(path) else path.name


def bare_path(path: Path) -> Path:
    """The same without what only its user may know: what is written down of it."""
    return Path(unsigned(str(path))) if is_url(path) else path


def remember(path: Path) -> None:
    """Keep in mind how a URL was signed, for as long as this process lasts: nothing is written of it."""
    if (bare := bare_path(path)) != path:
        _signed[bare] = path


def signed_again(path: Path) -> Path:
    """A path as whoever was told it last signed it; itself where nobody did."""
    return _signed.get(path, path)


class ShortRead(OSError):
    """A store sent less than it was asked for."""


def version_of(facts: Mapping[str, Any]) -> list[str]:
    """What a store says of a file that changes whenever the file does, as far as it tells."""
    return [f"{name}={value}" for name, value in sorted(facts.items()) if name.lower() in VERSION_FIELDS]


def file_system(path: Path) -> tuple[Any, str]:
    """The view that fsspec has of a Path that stands for a URL: the file system, and the name in it.

    Raises:
        ConfigError: there is no such protocol here.
    """
    from fsspec.core import url_to_fs

    try:
        system, name = url_to_fs(source_name(signed_again(path)))
    except (ImportError, ValueError) as error:  # its words name the package to install
        raise ConfigError(f"{source_name(path)} cannot be read here: {error}") from error
    return system, name


def patiently(
    path: Path, ask: Callable[..., Any], *told: Any, retries: Counter[str] | None = None, **named: Any
) -> Any:
    """Ask a store, and again when it fails. ``retries`` counts by kind of failure.

    Raises:
        ConfigError: it has no such question.
        ShardMissing: it says that there is no such thing.
        ShardUnreadable: it refuses, or failed every time.
    """
    retries = Counter() if retries is None else retries
    for attempt in range(ATTEMPTS):
        try:
            return ask(*told, **named)
        except NotImplementedError as error:
            raise ConfigError(f"{source_name(path)} cannot be read: its protocol has no files") from error
        except MISTAKES:
            raise
        except Exception as error:  # the library of each store has errors of its own
            if _is_missing(error):
                raise ShardMissing(f"shard {source_name(path)} does not exist") from error
            if _is_refused(error):
                raise ShardUnreadable(f"shard {source_name(path)} may not be read: {error}") from error
            failure = error
        retries[type(failure).__name__] += 1
        if attempt + 1 < ATTEMPTS:
            pause(attempt)
    why = " ".join(str(failure).split()) or type(failure).__name__
    raise ShardUnreadable(
        f"shard {source_name(path)} could not be read in {ATTEMPTS} attempts: {why}"
    ) from failure


def pause(attempt: int) -> None:
    """Wait, longer each time; and not all workers equally long, or they would come back together."""
    time.sleep(PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.0))


def _is_missing(error: Exception) -> bool:
    """Whether there is no such file. fsspec's web client says so of any failure; the cause tells."""
    if not isinstance(error, FileNotFoundError):
        return False
    return not type(error.__cause__).__module__.startswith("aiohttp") or _status(error) in NOT_FOUND


def _is_refused(error: Exception) -> bool:
    """Whether asking again is no use: the request is at fault, and not in its haste."""
    status = _status(error)
    return isinstance(error, PermissionError) or (400 <= status < 500 and status not in TRY_AGAIN)


def _status(error: Exception) -> int:
    """The status with which a web server answered, or 0."""
    found = (getattr(each, "status", 0) for each in (error, error.__cause__))
    return next((status for status in found if isinstance(status, int) and status), 0)
