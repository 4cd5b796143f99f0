"""Inputs as strangers write them: good ones with something wrong, two good ones in one, or plain noise.

Seeded, and a hundred times as quick as drawing them by hypothesis, which tests use for the same parsers.
"""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

CHANGES_AT_ONCE = (1, 1, 1, 2, 3, 6)
VALUES_SHARE, DEEPER_SHARE, DROPPED_SHARE = 0.6, 0.8, 0.2
NOISE_SHARE, NOISE_BYTES = 0.03, 1_500
MAX_BYTES = 200_000
NUMBERS = tuple(  # where lengths and counts break
    number.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for number in (0, 1, 0x7F, 0x80, 0xFF, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, (1 << 8 * width) - 1)
    if number < 1 << 8 * width
    for order in ("little", "big")
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e308, float("nan"), 2**63, 10**30),
    *("", "x", "../../x", "a\nb", "\ud800", "9" * 5_000),
    *([], {}, [[]], [None], ["x"], {"": None}, {"kind": "layers"}, {"kind": "patch"}, [{}], {"x": {"y": []}}),
)
WORDS = (
    *(
        b"\0",
        b"\n",
        b"\r",
        b"\xff",
        b"\xed\xa0\x80",
        "é🎩\u202e".encode(),
        b'"',
        b"'",
        b"\\",
        b"/../",
        b"file://",
    ),
    *(b"{", b"}", b"[", b"]", b":", b",", b"=", b"-", b"[" * 5_000, b"{" * 5_000, b"9" * 5_000, b"1e999"),
    *(
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1.5",
        b'"x"',
        b"[]",
        b"{}",
        b"NaN",
        b"Infinity",
        b"pipe:",
        b"{0..99999999}",
    ),
    *(b"77777777777", b"\x80" + b"\0" * 11, b"\xff" * 12, b"ustar", b"path=", b"O", b"|O", b"shape", b"PAR1"),
)


def mutate(seeds: tuple[bytes, ...], dice: Random) -> bytes:
    """One input, at most 200 kB; the same dice, the same input."""
    if dice.random() < 0.03:
        return dice.randbytes(dice.randrange(NOISE_BYTES))
    seed = dice.choice(seeds)
    if seed[:1] == b"{" and dice.random() < VALUES_SHARE:
        return _other_values(seed, dice)
    data = bytearray(seed)
    for _ in range(dice.choice(CHANGES_AT_ONCE)):
        dice.choice(CHANGES)(data, dice, seeds)
    return bytes(data[:MAX_BYTES])


def _other_values(seed: bytes, dice: Random) -> bytes:
    """Valid JSON, some of whose values are others: bytes that differ hardly ever leave it valid.

    Of JSON lines, the first is changed, and stays one.
    """
    lines = _is_lines(seed)
    first, rest = seed.split(b"\n", 1) if lines else (seed, b"")
    value = json.loads(first)
    for _ in range(dice.choice(CHANGES_AT_ONCE)):
        holder: Any = value
        while True:
            places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not places:
                break
            place = dice.choice(places)
            if isinstance(holder[place], dict | list) and dice.random() < DEEPER_SHARE:
                holder = holder[place]
                continue
            if dice.random() < DROPPED_SHARE:
                del holder[place]
            else:
                holder[place] = deepcopy(dice.choice(VALUES))
            break
    return json.dumps(value).encode() + (b"\n" + rest if lines else b"")


def _is_lines(seed: bytes) -> bool:
    """Whether each line is a value of its own."""
    return seed.split(b"\n", 1)[0].endswith(b"}") and len(seed.splitlines()) > 1


def _flip(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.randrange(256)


def _number(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    start, number = dice.randrange(len(data) + 1), dice.choice(NUMBERS)
    data[start : start + len(number)] = number


def _word(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    start, word = dice.randrange(len(data) + 1), dice.choice(WORDS)
    data[start : start + dice.choice((0, len(word)))] = word


def _delete(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    start, end = _part(data, dice)
    del data[start:end]


def _repeat(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    start, end = _part(data, dice)
    data[end:end] = data[start:end] * dice.randint(1, 3)


def _move(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    start, end = _part(data, dice)
    part = data[start:end]
    del data[start:end]
    place = dice.randrange(len(data) + 1)
    data[place:place] = part


def _graft(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    other = dice.choice(seeds)
    start, end = _part(bytearray(other), dice)
    place = dice.randrange(len(data) + 1)
    data[place : place + dice.choice((0, end - start))] = other[start:end]


def _cut(data: bytearray, dice: Random, seeds: tuple[bytes, ...]) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _part(data: bytearray, dice: Random) -> tuple[int, int]:
    """Mostly a short one."""
    start = dice.randrange(len(data) + 1)
    return start, min(len(data), start + dice.choice((1, 4, 16, 64, 512, len(data))))


CHANGES = (_flip, _flip, _set, _set, _number, _number, _word, _word, _delete, _repeat, _move, _graft, _cut)
