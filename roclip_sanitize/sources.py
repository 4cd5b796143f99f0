"""Where shards lie: path or URL → the tar's bytes, packed or not.

    this disk, plain  ─▶ mapped as it lies
    a URL             ─▶ fetched block by block ─┐
    gzip              ─▶ unpacked ───────────────┴▶ an unnamed temporary file, mapped

A walk visits every block of a shard, so that one behind a URL is fetched whole: a worker holds one at a
time, hence the space needed is one shard per worker, in TMPDIR, and nothing is left behind. A file rather
than memory, so that the system may drop its pages. Each block is asked for by its range. What fsspec needs to
know (keys, endpoints) it takes from its own configuration.

Stores fail now and then: a request that fails, or brings less than it should, is made again after a pause
that doubles, and counted. A file that is replaced while it is fetched is fetched from its start. One that
was cut when it was stored is a cut tar like any other, and shards.py says what is missing.

A shard behind a URL is a Path as pathlib folds it: ``s3://bucket/0.tar`` is Path("s3:/bucket/0.tar"). It
has a name and a stem, and travels through settings and markers as text like any other; remote.py alone
takes it for a URL again.
"""

from __future__ import annotations

import gzip
import hashlib
import mmap
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from roclip_sanitize.errors import ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.remote import (
    ATTEMPTS,
    ShortRead,
    bare_path,
    file_name,
    file_system,
    is_url,
    patiently,
    pause,
    remember,
    source_name,
    version_of,
)
from roclip_sanitize.storage import storage_errors

LOCAL = "file://"
UNLISTED = ("http://", "https://")  # web servers answer for one file, not for a folder
GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 8 << 20
MAX_UNPACKED_BYTES = 64 << 30  # a shard is a gigabyte; a file of 64 MB can be packed to unpack to this
WINDOW_BYTES = 128 << 10


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
        retries: what a store was asked again for, counted by the kind of failure.
    """

    data: Bytes
    flaw: str = ""
    retries: Counter[str] = field(default_factory=Counter)


def source_path(name: str) -> Path:
    """The Path that stands for a path or a URL.

    Raises:
        ConfigError: the URL has empty or dotted parts, which a Path cannot keep; or nobody here is called so.
    """
    if name.startswith(LOCAL):
        return Path(name.removeprefix(LOCAL))
    try:
        path = Path(name).expanduser()
    except (RuntimeError, ValueError) as error:  # the latter of a name with a zero byte
        raise ConfigError(f"{name!r} names the home of nobody known here") from error
    if "://" in name and source_name(path) != name:
        raise ConfigError(f"{name!r} has empty or dotted parts: wanted something like {source_name(path)!r}")
    remember(path)
    return path


def source_stem(path: Path) -> str:
    """The name without what says how it is packed: "00000" of 00000.tar, .tgz and .tar.gz alike."""
    name = file_name(path)
    return name.removesuffix(".gz").rpartition(".")[0] or name


def source_version(path: Path) -> list[str | int]:
    """Changes whenever the file does; JSON-able.

    Raises:
        ShardMissing: it does not exist.
    """
    if is_url(path):
        return [source_name(bare_path(path)), *_Remote(path, Counter()).version]
    with _open_local(path) as file:
        found = os.fstat(file.fileno())
    return [str(path), found.st_size, found.st_mtime_ns]


def source_sha256(path: Path) -> str:
    """Hex sha256 of the file as it lies, packed or not. Raises as open_source() does."""
    digest = hashlib.sha256()
    with _here(path, Counter()) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def missing_sources(paths: Sequence[Path]) -> list[Path]:
    """Those that do not exist. Behind URLs each folder is listed once, however many of its files are meant.

    Raises:
        ConfigError: there is no such protocol here.
        ShardUnreadable: a store does not answer.
    """
    remote = [path for path in paths if is_url(path) and not source_name(path).startswith(UNLISTED)]
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
    if not whole and is_url(path):
        remote = _Remote(path, retries := Counter[str]())
        if remote[: len(GZIP_MAGIC)] != GZIP_MAGIC:
            yield Opened(data=remote, retries=retries)
            return
    with ExitStack() as resources:
        file, flaw = resources.enter_context(_here(path, retries := Counter[str]())), ""
        if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
            packed, file = file, resources.enter_context(tempfile.TemporaryFile())
            flaw = _unpack(packed, file, path)
        yield Opened(data=_mapped(file, resources), flaw=flaw, retries=retries)


@contextmanager
def _here(path: Path, retries: Counter[str]) -> Iterator[IO[bytes]]:
    """A file of this disk: the one meant, or a copy of what lies behind a URL."""
    if is_url(path):
        with tempfile.TemporaryFile() as copy:
            _fetch(path, copy, retries)
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
                    return f"{file_name(path)} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"{file_name(path)} cannot be unpacked to its end: {error}"
    return ""


def _fetch(path: Path, file: IO[bytes], retries: Counter[str]) -> None:
    """Copy a remote file, all of it from one version."""
    for attempt in range(ATTEMPTS):
        remote = _Remote(path, retries)
        _copy(remote, file)
        if _Remote(path, retries).version == remote.version:
            return
        retries["replaced"] += 1
        pause(attempt)
    raise ShardUnreadable(f"shard {source_name(path)} was replaced {ATTEMPTS} times while it was read")


def _copy(remote: _Remote, file: IO[bytes]) -> None:
    start = 0
    with _temporary_space():
        file.truncate(0)
        while start < len(remote):
            block = remote.ask(start, min(start + BLOCK_BYTES, len(remote)))
            start = 0 if len(block) == len(remote) else start
            file.seek(start)
            file.write(block)
            start += len(block)
        file.seek(0)


class _Remote:
    """A file behind a URL, read by slices; the rest of a pair mostly comes with its first member.

    Attributes:
        version: text that changes whenever the file does, as far as its store tells.
    """

    def __init__(self, path: Path, retries: Counter[str]) -> None:
        self._path, self._retries = path, retries
        self._system, self._name = file_system(path)
        self._system.invalidate_cache(self._name.rpartition("/")[0])  # what it was is not what it is
        facts = self._patiently(self._system.info, self._name)
        if facts.get("size") is None:
            raise ShardUnreadable(f"the store of {source_name(path)} does not tell its size")
        self.version = version_of(facts)
        self._size, self._start, self._window = int(facts["size"]), 0, b""

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
        found: bytes = self._patiently(self._block, start, end)
        return found

    def _block(self, start: int, end: int) -> bytes:
        found: bytes = self._system.cat_file(self._name, start=start, end=end)
        if len(found) not in {end - start, self._size}:
            raise ShortRead(f"{len(found):,} of the {end - start:,} bytes from byte {start:,}")
        return found

    def _patiently(self, ask: Callable[..., Any], *told: Any) -> Any:
        return patiently(self._path, ask, *told, retries=self._retries)


def _names_in(folder: Path) -> set[str]:
    system, name = file_system(folder)
    try:
        return {found.rpartition("/")[2] for found in patiently(folder, system.ls, name, detail=False)}
    except ShardMissing:
        return set()


def _exists(path: Path) -> bool:
    if not is_url(path):
        return os.path.isfile(path)  # which says no, too, of what is too long for a name
    system, name = file_system(path)
    try:
        patiently(path, system.info, name)  # exists() takes a server that is out of order for a no
    except ShardMissing:
        return False
    return True


def _temporary_space() -> AbstractContextManager[None]:
    return storage_errors(Path(tempfile.gettempdir()))
