"""Where shards lie: path or URL → the tar's bytes, packed or not. Door to fsspec.

    this disk, plain  ─▶ mapped as it lies
    a URL             ─▶ fetched block by block ─┐
    gzip              ─▶ unpacked ───────────────┴▶ an unnamed temporary file, mapped

A walk visits every block of a shard, so that one behind a URL is fetched whole: a worker holds one at a
time, hence the space needed is one shard per worker, in TMPDIR, and nothing is left behind. A file rather
than memory, so that the system may drop its pages. Each block is asked for by its range and, if the store
fails, again. What fsspec needs to know (keys, endpoints) it takes from its own configuration.

A shard behind a URL is a Path as pathlib folds it: ``s3://bucket/0.tar`` is Path("s3:/bucket/0.tar"). It
has a name and a stem, and travels through settings and markers as text like any other; this module alone
takes it for a URL again.
"""

from __future__ import annotations

import gzip
import hashlib
import mmap
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from roclip_sanitize.errors import ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.runfiles import storage_errors

LOCAL = "file://"
PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+:")  # two letters or more, unlike a drive
UNLISTED = ("http://", "https://")  # web servers answer for one file, not for a folder
GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 8 << 20
MAX_UNPACKED_BYTES = 64 << 30  # a shard is a gigabyte; a file of 64 MB can be packed to unpack to this
WINDOW_BYTES = 128 << 10
ATTEMPTS = 6
PAUSE_SECONDS = 0.1  # after the first failure; doubles with each


class Bytes(Protocol):
    """What is read by slices: bytes, a mapped file, or a file behind a URL."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A tar's bytes.

    Attributes:
        data: all of them, or what could be unpacked.
        flaw: why there may be more, or "".
    """

    data: Bytes
    flaw: str = ""


def source_path(name: str) -> Path:
    """The Path that stands for a path or a URL.

    Raises:
        ConfigError: the URL has empty or dotted parts, which a Path cannot keep.
    """
    if name.startswith(LOCAL):
        return Path(name.removeprefix(LOCAL))
    path = Path(name).expanduser()
    if "://" in name and source_name(path) != name:
        raise ConfigError(f"{name!r} has empty or dotted parts: wanted something like {source_name(path)!r}")
    return path


def source_name(path: Path) -> str:
    """What source_path() was given: the URL that a Path stands for, or the path itself."""
    return f"{path.parts[0]}//{'/'.join(path.parts[1:])}" if _is_remote(path) else str(path)


def source_stem(path: Path) -> str:
    """The name without what says how it is packed: "00000" of 00000.tar, .tgz and .tar.gz alike."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def source_version(path: Path) -> list[str | int]:
    """Changes whenever the file does; JSON-able.

    Raises:
        ShardMissing: it does not exist.
    """
    if _is_remote(path):
        system, name = _filesystem(path)
        return [source_name(path), str(_patiently(path, system.ukey, name))]
    with _open_local(path) as file:
        found = os.fstat(file.fileno())
    return [str(path), found.st_size, found.st_mtime_ns]


def source_sha256(path: Path) -> str:
    """Hex sha256 of the file as it lies, packed or not. Raises as open_source() does."""
    digest = hashlib.sha256()
    with _here(path) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _is_remote(path: Path) -> bool:
    return bool(path.parts and PROTOCOL.fullmatch(path.parts[0]))


def missing_sources(paths: Sequence[Path]) -> list[Path]:
    """Those that do not exist. Behind URLs each folder is listed once, however many of its files are meant.

    Raises:
        ConfigError: there is no such protocol here.
        ShardUnreadable: a store does not answer.
    """
    remote = [path for path in paths if _is_remote(path) and not source_name(path).startswith(UNLISTED)]
    listed = {folder: _names_in(folder) for folder in {path.parent for path in remote}}
    there = {path for path in remote if path.name in listed[path.parent]}
    return [path for path in paths if path not in there and (path.parent in listed or not _exists(path))]


@contextmanager
def open_source(path: Path, *, whole: bool = True) -> Iterator[Opened]:
    """The bytes of a tar, unpacked, while the block lasts.

    Args:
        path: where it lies.
        whole: whether most of it will be read. If not, what lies behind a URL stays there and is
            asked for slice by slice; a packed shard is brought here all the same.

    Raises:
        ConfigError: there is no such protocol here.
        ShardMissing: it does not exist.
        ShardUnreadable: it cannot be opened, or its store keeps failing.
        StorageError: no room for a temporary copy.
    """
    if not whole and _is_remote(path):
        remote = _Remote(path)
        if remote[: len(GZIP_MAGIC)] != GZIP_MAGIC:
            yield Opened(data=remote)
            return
    with ExitStack() as resources:
        file, flaw = resources.enter_context(_here(path)), ""
        if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
            packed, file = file, resources.enter_context(tempfile.TemporaryFile())
            flaw = _unpack(packed, file, path)
        yield Opened(data=_mapped(file, resources), flaw=flaw)


@contextmanager
def _here(path: Path) -> Iterator[IO[bytes]]:
    """A file of this disk: the one meant, or a copy of what lies behind a URL."""
    if _is_remote(path):
        with tempfile.TemporaryFile() as copy:
            _fetch(path, copy)
            yield copy
    else:
        with _open_local(path) as file:
            yield file


def _open_local(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise ShardMissing(f"shard {path} does not exist") from error
    except OSError as error:
        raise ShardUnreadable(f"shard {path} cannot be opened: {error.strerror}") from error


def _mapped(file: IO[bytes], resources: ExitStack) -> mmap.mmap | bytes:
    file.flush()
    if file.seek(0, 2) == 0:
        return b""  # which cannot be mapped
    return resources.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _unpack(packed: IO[bytes], file: IO[bytes], path: Path) -> str:
    """Unpack what can be unpacked; returns why not all could be, or ""."""
    packed.seek(0)
    try:
        with gzip.GzipFile(fileobj=packed) as unpacking, _temporary_space():
            while block := unpacking.read1(BLOCK_BYTES):  # read() would lose what lies before a break
                file.write(block)
                if file.tell() > MAX_UNPACKED_BYTES:
                    return f"{path.name} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"{path.name} cannot be unpacked to its end: {error}"
    return ""


def _fetch(path: Path, file: IO[bytes]) -> None:
    remote, start = _Remote(path), 0
    with _temporary_space():
        while start < len(remote):
            block = remote.ask(start, min(start + BLOCK_BYTES, len(remote)))
            start = 0 if len(block) == len(remote) else start
            file.seek(start)
            file.write(block)
            start += len(block)
        file.seek(0)


class _Remote:
    """A file behind a URL, read by slices; the rest of a pair mostly comes with its first member."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._system, self._name = _filesystem(path)
        size = _patiently(path, self._system.size, self._name)
        if size is None:
            raise ShardUnreadable(f"the store of {source_name(path)} does not tell its size")
        self._size, self._start, self._window = int(size), 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self._size)
        if start < end and not self._start <= start < end <= self._start + len(self._window):
            self._window = self.ask(start, min(max(end, start + WINDOW_BYTES), self._size))
            self._start = 0 if len(self._window) == self._size else start
        return self._window[start - self._start : max(start, end) - self._start]

    def ask(self, start: int, end: int) -> bytes:
        """The bytes of a range, or all there are: some web servers know no ranges."""
        found: bytes = _patiently(self._path, self._system.cat_file, self._name, start=start, end=end)
        if len(found) not in {end - start, self._size}:
            raise ShardUnreadable(
                f"shard {source_name(self._path)} gave {len(found):,} of the {end - start:,} bytes "
                f"from byte {start:,}"
            )
        return found


def _names_in(folder: Path) -> set[str]:
    system, name = _filesystem(folder)
    try:
        return {found.rpartition("/")[2] for found in _patiently(folder, system.ls, name, detail=False)}
    except ShardMissing:
        return set()


def _exists(path: Path) -> bool:
    if _is_remote(path):
        system, name = _filesystem(path)
        return bool(_patiently(path, system.exists, name))
    return path.is_file()


def _filesystem(path: Path) -> tuple[Any, str]:
    """The view that fsspec has of a Path that stands for a URL: the file system, and the name in it."""
    from fsspec.core import url_to_fs

    try:
        system, name = url_to_fs(source_name(path))
    except (ImportError, ValueError) as error:  # its words name the package to install
        raise ConfigError(f"{source_name(path)} cannot be read here: {error}") from error
    return system, name


def _patiently(path: Path, ask: Callable[..., Any], *told: Any, **named: Any) -> Any:
    """Ask a store, and again when it fails.

    Raises:
        ShardMissing: it says that there is no such thing.
        ShardUnreadable: it refuses, or failed every time.
    """
    for attempt in range(ATTEMPTS):
        try:
            return ask(*told, **named)
        except FileNotFoundError as error:
            raise ShardMissing(f"shard {source_name(path)} does not exist") from error
        except PermissionError as error:
            raise ShardUnreadable(f"shard {source_name(path)} may not be read: {error}") from error
        except OSError as error:
            failure = error
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise ShardUnreadable(
        f"shard {source_name(path)} could not be read in {ATTEMPTS} attempts: {failure}"
    ) from failure


def _temporary_space() -> AbstractContextManager[None]:
    return storage_errors(Path(tempfile.gettempdir()))
