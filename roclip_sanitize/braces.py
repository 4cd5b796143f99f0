"""Brace ranges, counted before they are expanded: a name of twenty letters may stand for billions.

data/{00000..00331}.tar ─▶ 332 names
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from braceexpand import braceexpand

from roclip_sanitize.errors import ConfigError, DataError, ShardMissing

MAX_NAMES = 1_000_000  # twice what the largest public corpus has
MAX_LETTERS = 4_096  # of one pattern: as long as a path may be
LETTERS = 52  # that a range such as {a..Z} may run through, at most
TOKEN = re.compile(
    r"\\.|\{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\}|\{([a-zA-Z])\.\.[a-zA-Z](?:\.\.-?\d+)?\}|[{},]", re.DOTALL
)


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for, in order.

    Raises:
        ConfigError: a brace is left open, the pattern is longer than a path may be, or it stands for
            more than a million names.
    """
    if len(pattern) > MAX_LETTERS:
        raise ConfigError(f"{pattern[:40]!r}… has {len(pattern):,} letters, at most {MAX_LETTERS:,}")
    try:
        if most_names(pattern) > MAX_NAMES:
            raise ConfigError(f"{pattern!r} stands for too many names, at most {MAX_NAMES:,}")
        return list(braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{pattern!r} leaves a brace open: wanted something like '{{00000..00009}}'"
        ) from error


def not_there(names: Sequence[str], *, of: int) -> ConfigError | DataError:
    """The error that says what is wrong where shards do not exist, by what the first one's name looks like.

    Args:
        names: those that do not exist, one or more.
        of: how many were named.

    Returns:
        ConfigError for what is no shard's name: a folder, a glob, several with commas. Else ShardMissing.
    """
    first, example = names[0], "{00000..00009}.tar"
    if os.path.isdir(first):
        return ConfigError(f"{first} is a folder: name its shards, as in '{os.path.join(first, example)}'")
    if set("*" if "://" in first else "*?[") & set(first):
        ranges = first.rpartition("/")[0]
        return ConfigError(
            f"globs are not read: {first}; wanted a range, as in '{os.path.join(ranges, example)}'"
        )
    if "," in first:
        return ConfigError(f"{first} does not exist; several names are joined by '::', as in 'a.tar::b.tar'")
    if of == 1:
        return ShardMissing(f"shard {first} does not exist")
    if len(names) == 1:
        return ShardMissing(f"shard {first} does not exist, 1 of {of:,} named")
    return ShardMissing(f"shard {first} and {len(names) - 1:,} more do not exist, of {of:,} named")


def most_names(pattern: str) -> int:
    """How many names a pattern stands for, or somewhat more; beyond a million it is not said how many.

    Raises:
        ValueError: a brace is closed that was never opened.
    """
    before, here = [0], [1]  # by depth: names of the alternatives so far, and of the one that is read
    for token in TOKEN.finditer(pattern):
        text, (first, last, step, letter) = token[0], token.groups()
        if first is not None:
            here[-1] *= abs(int(last) - int(first)) // (int(step or 1) or 1) + 1
        elif letter is not None:
            here[-1] *= LETTERS
        elif text == "{":
            before.append(0)
            here.append(1)
        elif text == "," and len(here) > 1:
            before[-1], here[-1] = before[-1] + here[-1], 1
        elif text == "}":
            if len(here) == 1:
                raise ValueError(f"}} at {token.start()} closes nothing")
            names = before.pop() + here.pop()
            here[-1] *= names
        here[-1] = min(here[-1], MAX_NAMES + 1)
    return here[-1]
