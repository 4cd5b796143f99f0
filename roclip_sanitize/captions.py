"""Captions: from bytes to text, and from text to the words that carry meaning.

    "Red hats, size 42"  red, hats, size
    "लाल जूते"            लाल, जूते              marks belong to their letters
    "İstanbul, Zürich"   istanbul, zürich     but accents that no letter takes in are left out
    "黒い犬"               黒い, い犬             where words are not parted, pairs of letters stand for them

Pure functions; no files, no model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from roclip_sanitize.errors import BadPair
from roclip_sanitize.records import FailureReason

MAX_CAPTION_CHARS = 4_000  # alt text beyond this is page text; CLIP reads the first 77 tokens anyway
LETTER = r"[^\W\d_]"
WORD = re.compile(rf"{LETTER}{{2,}}")

# Letters of scripts that leave no space between words; there are marks, digits and punctuation among them.
UNPARTED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3021-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
# Where scripts have marks, looked up by their category. A class of characters is quick for those of 16 bits,
# and asks for all others one by one.
MARKS_WITHIN, RARE_MARKS_WITHIN = range(0x300, 0x10000), range(0x10000, 0x1F000)
RARE = "\U00010000-\U0001efff"
HOW_DRAWN = "\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"  # joiners, variation selectors


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
    """The caption's words, case folded, in order, any script.

    A word is two letters or more, vowel signs counted: one alone says nothing. In scripts that do not part
    words, it is two letters that follow each other, each with its marks, as in Lucene's CJKBigramFilter; one
    that stands alone is a word itself. So captions that share words share some of these.
    """
    text = normalise_caption(caption)
    if text.isascii() or not _patterns_of_scripts().unusual.search(text):  # most captions, and much quicker
        return WORD.findall(text)
    return list(_words_with_marks(text))


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


class _Scripts(NamedTuple):
    """What WORD does not know of scripts."""

    unusual: re.Pattern[str]
    left_out: re.Pattern[str]
    run: re.Pattern[str]
    letter: re.Pattern[str]


def _words_with_marks(text: str) -> Iterator[str]:
    scripts = _patterns_of_scripts()
    # Folding takes some letters apart, such as ΐ, and most of them have a letter to come back to.
    text = scripts.left_out.sub("", unicodedata.normalize("NFC", text))
    for run in scripts.run.finditer(text):
        if unparted := run["unparted"]:
            letters = scripts.letter.findall(unparted)
            yield from [one + other for one, other in pairwise(letters)] or letters
        elif len(run[0]) > 1:
            yield run[0]


@cache
def _patterns_of_scripts() -> _Scripts:
    """A look at every mark there is takes some milliseconds, which English captions never need."""
    marks, rare = _marks(MARKS_WITHIN), _marks(RARE_MARKS_WITHIN)
    mark = rf"(?:[{marks}]|(?=[{RARE}])[{rare}])"
    unparted = rf"(?={LETTER})[{UNPARTED}]{mark}*"
    return _Scripts(
        unusual=re.compile(f"[{marks}{RARE}{HOW_DRAWN}{UNPARTED}]"),
        left_out=re.compile(f"[{''.join(filter(_is_light, marks))}{HOW_DRAWN}]"),
        run=re.compile(rf"(?P<unparted>(?:{unparted})+)|(?:(?![{UNPARTED}]){LETTER}{mark}*)+"),
        letter=re.compile(unparted),
    )


def _marks(codes: range) -> str:
    return "".join(mark for mark in map(chr, codes) if unicodedata.category(mark).startswith("M"))


def _is_light(mark: str) -> bool:
    """Whether writers leave a mark out as often as not.

    By its combining class: accents above and below, vowel points of Hebrew, Arabic and Syriac. What encloses
    letters is of their kind. Vowel signs, viramas and tones of Indian and South-East Asian scripts are not.
    """
    place = unicodedata.combining(mark)
    return 10 <= place <= 36 or place >= 200 or unicodedata.category(mark) == "Me"


@cache
def _patterns(name: str) -> tuple[re.Pattern[str], ...]:
    said = [re.escape(normalise_caption(wording)) for wording in wordings(name)]
    return tuple(re.compile(rf"(?<!\w){one}(?:e?s)?(?!\w)" if one.isascii() else one) for one in said)


@cache
def _english() -> Any:
    import inflect

    return inflect.engine()
