"""Everything this package raises on purpose.

    RoclipError
    ├── ConfigError        the run cannot start: a setting is unknown, missing or contradicts another
    │   └── ConfigProblems   several of that, a line each
    ├── DataError          a shard, image or caption is not what its format promises
    │   ├── ShardMissing     a named shard does not exist
    │   ├── ShardUnreadable  a shard is empty, or not a tar
    │   └── BadPair          one pair is unusable; the rest of its shard is fine
    ├── MismatchError      two artefacts that must agree do not (model, settings, width)
    ├── StorageError       the disk is full or refuses to be written
    ├── TooManyFailed      done, but more pairs failed than may, or a shard is broken
    ├── VoidResult         a measurement whose control failed, so that it proves nothing
    ├── Stopped            the run was asked to stop, and kept what it had
    │   └── Terminated       the same, by SIGTERM
    └── WorkerLost         a worker died and its task used up its retries

The command line turns a RoclipError into one line on stderr and its ``exit_code``. Anything
else is a bug and keeps its traceback.

Each class takes its message as the only positional argument: Ray pickles exceptions through
``self.args``, and a keyword-only field would not survive.
"""

from roclip_sanitize.redaction import redacted, with_urls


class RoclipError(Exception):
    """Base of every error a caller may want to catch.

    Its text is one line that any terminal and any log may show. File names and captions in it come from
    strangers: what is not printable in them (line ends, escape sequences, half characters) is spelled out.
    URLs in it may hold passwords, keys and signatures: they are left out.
    """

    exit_code = 1

    def __str__(self) -> str:
        return _shown(super().__str__())


def _shown(text: str) -> str:
    return redacted(with_urls(text if text.isprintable() else "".join(map(_printable, text))))


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


class ConfigError(RoclipError):
    """The run cannot start as configured."""

    exit_code = 2


class ConfigProblems(ConfigError):
    """Several things keep the run from starting: a line that says how many, and one for each."""

    def __str__(self) -> str:
        return "\n".join(map(_shown, Exception.__str__(self).split("\n")))


class DataError(RoclipError):
    """A shard, image or caption is not what its format promises."""


class ShardMissing(DataError):
    """A named shard does not exist."""


class ShardUnreadable(DataError):
    """A shard is empty, or not a tar."""


class BadPair(DataError):
    """One pair is unusable. The message starts with its FailureReason and a colon."""


class MismatchError(RoclipError):
    """Two artefacts that must agree do not."""

    exit_code = 4


class StorageError(RoclipError):
    """The disk is full or refuses to be written."""


class TooManyFailed(RoclipError):
    """All is done that can be, but more pairs failed than may, or a shard is broken."""

    exit_code = 3


class VoidResult(RoclipError):
    """A measurement whose control failed, so that it proves nothing."""


class Stopped(RoclipError):
    """The run was asked to stop, and kept what it had: the same again goes on from there."""

    exit_code = 130


class Terminated(Stopped):
    """It was asked by SIGTERM."""

    exit_code = 143


class WorkerLost(RoclipError):
    """A worker died and its task has no retry left."""
