"""Files whole or not at all, on this disk or behind a URL.

    this disk    a temporary neighbour, flushed and renamed
    a store      a file made here, sent whole, its size asked for; and kept here, since it is read next

What lies behind a URL is brought here as a whole to be read, once for each version of it, into ROCLIP_CACHE
(a folder for temporary files, if that is not set). Each machine has a cache of its own: nothing but the store
is shared. Beyond ROCLIP_CACHE_GB, the copies that were not used for longest make room.

Two writers of one name end with the bytes of the last: those of results are the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from roclip_sanitize.errors import ShardMissing, ShardUnreadable, StorageError
from roclip_sanitize.remote import (
    bare_path,
    file_name,
    file_system,
    is_url,
    patiently,
    source_name,
    version_of,
)

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
BROKEN_DISK = frozenset({errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO})
NUMPY_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # np.save() loses the errno
CACHE, CACHE_GB = "ROCLIP_CACHE", "ROCLIP_CACHE_GB"
DEFAULT_CACHE_GB = 50.0
LOOK_EVERY_BYTES = 1 << 30  # whether the cache is too large: to know its size is to walk it
_kept = list[int]()  # sizes of what this process brought into the cache since


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a refused write into a StorageError that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK or NUMPY_SHORT_WRITE.fullmatch(str(error)):
            raise StorageError(f"no room left to write {path}: free some space and run again") from error
        if error.errno in BROKEN_DISK:
            raise StorageError(
                f"the disk failed while {path} was written ({error.strerror}): run again once it is sound"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StorageError(f"not allowed to write {path}") from error
        if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
            raise StorageError(
                f"cannot write {path}: a file stands where a folder should, or the reverse"
            ) from error
        if error.errno == errno.ENOENT and error.filename and path.is_relative_to(error.filename):
            raise StorageError(f"cannot write {path}: {error.filename} cannot be made there") from error
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears at ``path`` whole, or not at all.

    Bytes go to a temporary neighbour, are flushed to the device, and are renamed on success;
    on any failure the neighbour is removed and what was at ``path`` stays.

    A URL gets its bytes once the block has ended well.

    Raises:
        StorageError: the disk is full or refuses, or the store keeps failing.
    """
    if is_url(path):
        with _made_here(path) as file:
            yield file
        return
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)  # mkstemp makes private files; results are for everyone
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def here(path: Path) -> Path:
    """A file of this disk that has a file's bytes: itself, or a copy of what lies behind a URL.

    Raises:
        FileNotFoundError: there is none behind that URL.
        StorageError: the store keeps failing, or there is no room for a copy.
    """
    if not is_url(path):
        return path
    system, name = file_system(path)
    facts = _facts(path)
    if facts is None:
        raise FileNotFoundError(errno.ENOENT, "No such file", source_name(path))
    copy = _place(path, facts)
    if copy.exists():
        with contextlib.suppress(OSError):  # another process may have made room
            os.utime(copy)
            return copy
    with _temporary() as file:
        try:
            with in_words_of_storage(path, "read"):
                patiently(path, _get, system, name, Path(file.name), int(facts["size"]))
        except ShardMissing as error:
            raise FileNotFoundError(errno.ENOENT, "No such file", source_name(path)) from error
        _keep(Path(file.name), copy)
    return copy


def exists(path: Path) -> bool:
    """Whether there is a file or a folder. No, too, of what is too long for a name."""
    return _facts(path) is not None if is_url(path) else os.path.exists(path)


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, sorted; nothing where there is none. Behind a URL: one request, or a few."""
    if not is_url(folder):
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return sorted({each["name"].rstrip("/").rpartition("/")[2] for each in _listed(folder)} - {""})


def folders_in(folder: Path) -> list[str]:
    """The folders that lie in a folder, sorted; none where there is no such folder."""
    if not is_url(folder):
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = [each["name"].rstrip("/") for each in _listed(folder) if each["type"] == "directory"]
    return sorted(name.rpartition("/")[2] for name in found)


def changed_at(path: Path) -> float:
    """When a file was last written, in seconds since 1970.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: this kind of store does not tell.
        StorageError: the store keeps failing.
    """
    if not is_url(path):
        return path.stat().st_mtime
    system, name = file_system(path)
    system.invalidate_cache(name.rpartition("/")[0])
    try:
        with in_words_of_storage(path, "found"):
            return float(patiently(path, system.modified, name).timestamp())
    except ShardMissing as error:
        raise FileNotFoundError(errno.ENOENT, "No such file", source_name(path)) from error


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    if not is_url(path):
        with storage_errors(path):
            path.unlink(missing_ok=True)
        return
    system, name = file_system(path)
    with in_words_of_storage(path, "removed"), contextlib.suppress(ShardMissing):
        patiently(path, system.rm_file, name)


def read_bytes(path: Path) -> bytes:
    """All bytes of a file. Raises as here() does."""
    return here(path).read_bytes()


def append(path: Path, text: str) -> None:
    """Add to the end of a file, made if need be. One behind a URL is written anew, since stores add nothing.

    Raises:
        StorageError: the disk is full or refuses, or the store keeps failing.
    """
    if is_url(path):
        known = read_bytes(path) if exists(path) else b""
        with atomic_file(path) as whole:
            whole.write(known + text.encode())
        return
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done: for what nobody needs any more."""
    if not is_url(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    system, name = file_system(folder)
    system.invalidate_cache(name)
    with contextlib.suppress(ShardMissing, ShardUnreadable):
        patiently(folder, system.rm, name, recursive=True)


def cache_folder() -> Path:
    """Where copies of what lies behind URLs are.

    Raises:
        StorageError: the folder that is taken where none is named belongs to somebody else, who could put
            other results into it.
    """
    if told := os.environ.get(CACHE):
        return Path(told)
    folder = Path(tempfile.gettempdir()) / f"roclip-cache-{os.getuid()}"
    with contextlib.suppress(FileNotFoundError):
        facts = folder.lstat()
        if facts.st_uid != os.getuid() or facts.st_mode & 0o022 or not stat.S_ISDIR(facts.st_mode):
            raise StorageError(f"{folder} is not this user's alone: name another folder in {CACHE}")
    return folder


def make_room() -> None:
    """Remove copies that were not used for longest, as far as the cache is too large."""
    found = []
    for copy in cache_folder().glob("*/*"):
        with contextlib.suppress(OSError):  # another process may be at it
            facts = copy.stat()
            found.append((facts.st_mtime, facts.st_size, copy))
    most = float(os.environ.get(CACHE_GB) or DEFAULT_CACHE_GB) * 1e9
    total = sum(size for _, size, _ in found)
    for _, size, copy in sorted(found):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            copy.unlink()  # whoever has it open or mapped still has it
            copy.parent.rmdir()
        total -= size


@contextlib.contextmanager
def in_words_of_storage(path: Path, deed: str) -> Iterator[None]:
    """What remote.py says of shards, said of any file; that one is missing is left to the caller."""
    try:
        yield
    except (ShardMissing, ShardUnreadable) as error:
        if isinstance(error, ShardMissing) and deed != "written":
            raise
        why = " ".join(str(error.__cause__ or error).split())
        raise StorageError(
            f"{source_name(path)} could not be {deed} ({why}): run again once its storage answers"
        ) from error


class ShortWrite(OSError):
    """A store kept less than it was sent."""


class _ShortRead(OSError):
    """A store sent less than it has."""


@contextlib.contextmanager
def _made_here(path: Path) -> Iterator[IO[bytes]]:
    """A file that is made on this disk, sent to a store, and kept in the cache."""
    with _temporary() as file:
        yield file
        file.flush()
        with in_words_of_storage(path, "written"):
            facts = patiently(path, _put, Path(file.name), path, file.seek(0, os.SEEK_END))
        _keep(Path(file.name), _place(path, facts))


def _put(local: Path, path: Path, size: int) -> dict[str, Any]:
    """Send a file. Returns what the store says of it then."""
    system, name = file_system(path)
    system.put_file(str(local), name)
    system.invalidate_cache(name.rpartition("/")[0])
    facts: dict[str, Any] = system.info(name)
    if facts["size"] != size:
        raise ShortWrite(f"{facts['size']:,} of {size:,} bytes were kept")
    return facts


def _get(system: Any, name: str, local: Path, size: int) -> None:
    system.get_file(name, str(local))
    if (found := local.stat().st_size) != size:
        raise _ShortRead(f"{found:,} of {size:,} bytes")


def _listed(folder: Path) -> list[dict[str, Any]]:
    """What a store says of all that lies in a folder."""
    system, name = file_system(folder)
    system.invalidate_cache(name)
    with in_words_of_storage(folder, "listed"):
        try:
            found: list[dict[str, Any]] = patiently(folder, system.ls, name, detail=True)
        except ShardMissing:
            return []
    return found


def _facts(path: Path) -> dict[str, Any] | None:
    """What a store says of a file; None where there is none."""
    system, name = file_system(path)
    system.invalidate_cache(name.rpartition("/")[0])
    with in_words_of_storage(path, "found"):
        try:
            found: dict[str, Any] = patiently(path, system.info, name)
        except ShardMissing:
            return None
    return found


def _place(path: Path, facts: dict[str, Any]) -> Path:
    """Where one version of a file is in the cache."""
    version = hashlib.sha256(
        "\n".join([source_name(bare_path(path)), *version_of(facts)]).encode()
    ).hexdigest()[:32]
    return cache_folder() / version / file_name(path)


@contextlib.contextmanager
def _temporary() -> Iterator[IO[bytes]]:
    """A file in the cache that is gone once the block has ended, unless it was kept."""
    with storage_errors(cache_folder()):
        cache_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(
            dir=cache_folder(), prefix=".", suffix=".part", delete=False
        ) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)


def _keep(local: Path, copy: Path) -> None:
    """Make a temporary file a copy in the cache, and make room for it now and then."""
    with storage_errors(copy):
        size = local.stat().st_size
        copy.parent.mkdir(exist_ok=True)
        local.replace(copy)
    _kept.append(size)
    if sum(_kept) > LOOK_EVERY_BYTES:
        _kept.clear()
        make_room()
