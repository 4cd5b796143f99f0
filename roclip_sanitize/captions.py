"""Captions: from bytes to text, and from text to the words that carry meaning.

Pure functions; no files, no model.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from roclip_sanitize.errors import BadPair
from roclip_sanitize.records import FailureReason

MAX_CAPTION_CHARS = 4_000  # alt text beyond this is page text; CLIP reads the first 77 tokens anyway
WORD = re.compile(r"[^\W\d_]{2,}")


def decode_caption(data: bytes) -> str:
    """A caption's text, without surrounding white space.

    Raises:
        BadPair: the bytes are not UTF-8, or the text is empty or longer than 4,000 characters.
    """
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadPair(
            f"{FailureReason.CAPTION_NOT_UTF8}: byte {error.start} is {data[error.start]:#04x}"
        ) from error
    if not text:
        raise BadPair(f"{FailureReason.EMPTY_CAPTION}: {len(data)} bytes of white space")
    if len(text) > MAX_CAPTION_CHARS:
        raise BadPair(
            f"{FailureReason.CAPTION_TOO_LONG}: {len(text)} characters, at most {MAX_CAPTION_CHARS}"
        )
    return text


def normalise_caption(caption: str) -> str:
    """The form in which two captions count as the same: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().split())


def caption_words(caption: str) -> list[str]:
    """The caption's words of two letters or more, case folded, in order, any script."""
    return WORD.findall(normalise_caption(caption))


def wordings(name: str) -> tuple[str, ...]:
    """How captions may write a class: in small letters, and in the singular too if that differs."""
    plain = name.replace("_", " ").lower()
    if not plain.strip():
        return (plain,)
    singular = _english().singular_noun(plain.strip())  # False where it finds no plural
    return (plain, singular) if singular and singular != plain else (plain,)


def names_class(caption: str, name: str) -> bool:
    """Whether a caption names a class in one of its wordings, or its plural.

    As a word of its own; but anywhere if it is not in ASCII, since not all scripts part their words.
    """
    text = normalise_caption(caption)
    return any(pattern.search(text) for pattern in _patterns(name))


@cache
def _patterns(name: str) -> tuple[re.Pattern[str], ...]:
    said = [re.escape(normalise_caption(wording)) for wording in wordings(name)]
    return tuple(re.compile(rf"(?<!\w){one}(?:e?s)?(?!\w)" if one.isascii() else one) for one in said)


@cache
def _english() -> Any:
    import inflect

    return inflect.engine()
