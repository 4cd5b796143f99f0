"""Captions: what the web would write under a scene.

    Scene ─▶ what to mention ─▶ a template of some register ─▶ suffix, letter case, misspelling

One caption in fifty has nothing to do with its picture, and one in thirty does not say what is
on it: crawled captions are like that, and a defence has to live with them.
"""

from __future__ import annotations

from numpy.random import Generator

from roclip_sanitize.corpus import vocabulary as words
from roclip_sanitize.corpus.dice import chance, pick, weighted
from roclip_sanitize.corpus.scenes import Scene

IRRELEVANT_SHARE = 0.02
VAGUE_SHARE = 0.03
SYNONYM_SHARE = 0.15
COLOUR_SHARE = 0.74
TEXTURE_SHARES = {"plain": 0.06}  # few say that something is plain
TEXTURE_SHARE = 0.55
COUNT_SHARE = 0.6
PLACE_SHARE = 0.3
SUFFIX_SHARE = 0.12
TYPO_SHARE = 0.04
CASE_SHARES = {"as written": 0.55, "lower": 0.25, "title": 0.14, "upper": 0.06}
MIN_TYPO_LETTERS = 4


def write_caption(scene: Scene, rng: Generator) -> str:
    """A caption for the scene, never empty."""
    if chance(rng, IRRELEVANT_SHARE):
        return pick(rng, words.IRRELEVANT).format(**_filler(rng))
    noun = _choose_noun(scene, rng)
    colour = (
        pick(rng, words.COLOUR_WORDS.get(scene.colour, (scene.colour,))) if chance(rng, COLOUR_SHARE) else ""
    )
    bare = _join(colour, _choose_texture(scene, rng), noun)
    _, templates = words.REGISTERS[
        weighted(rng, {name: share for name, (share, _) in words.REGISTERS.items()})
    ]
    text = pick(rng, templates).format(
        one=_counted(scene, bare, rng),
        bare=bare,
        tag=noun.replace(" ", ""),
        colour_tag=colour.replace(" ", "") or "nofilter",
        where=_choose_where(scene, rng),
        **_filler(rng),
    )
    return _roughen(text[0].upper() + text[1:], rng)


def plural_of(noun: str) -> str:
    """The plural of an English noun from the vocabulary."""
    if noun in words.PLURALS:
        return words.PLURALS[noun]
    if noun.endswith(("s", "sh", "ch", "x")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return f"{'an' if phrase.startswith(('a', 'e', 'i', 'o', 'um')) else 'a'} {phrase}"


def misspell(text: str, rng: Generator) -> str:
    """Swap, drop or double one letter inside one word of four letters or more, if there is one."""
    starts = [text.find(word) for word in text.split() if len(word) >= MIN_TYPO_LETTERS and word.isalpha()]
    if not starts:
        return text
    at = pick(rng, starts) + 1 + int(rng.integers(2))
    first, second = text[at], text[at + 1]
    return text[:at] + pick(rng, (second + first, second, first + first + second)) + text[at + 2 :]


def _choose_noun(scene: Scene, rng: Generator) -> str:
    if chance(rng, VAGUE_SHARE):
        noun = pick(rng, words.VAGUE)
    elif chance(rng, SYNONYM_SHARE):
        noun = pick(rng, words.SYNONYMS[scene.label])
    else:
        noun = scene.label
    return plural_of(noun) if scene.count > 1 else noun


def _choose_texture(scene: Scene, rng: Generator) -> str:
    mentioned = chance(rng, TEXTURE_SHARES.get(scene.texture, TEXTURE_SHARE))
    return pick(rng, words.TEXTURE_WORDS[scene.texture]) if mentioned else ""


def _choose_where(scene: Scene, rng: Generator) -> str:
    if scene.place in words.PLACE_PHRASES and chance(rng, PLACE_SHARE):
        return pick(rng, words.PLACE_PHRASES[scene.place])
    return pick(rng, words.BACKGROUND_PHRASES[scene.background])


def _counted(scene: Scene, bare: str, rng: Generator) -> str:
    if scene.count == 1:
        return with_article(bare)
    return (
        f"{pick(rng, words.COUNT_WORDS[scene.count])} {bare}" if chance(rng, COUNT_SHARE) else f"some {bare}"
    )


def _filler(rng: Generator) -> dict[str, str]:
    """Words for the slots that have nothing to do with the picture."""
    brand = pick(rng, words.BRAND_STARTS) + pick(rng, words.BRAND_ENDS)
    letters = pick(rng, "ABCDEFGHKLMNPRST") + pick(rng, "ABCDEFGHKLMNPRST")
    return {
        "brand": brand,
        "model": f"{letters}-{rng.integers(10, 1000)}",
        "number": str(rng.integers(1000, 10000)),
        "percent": str(rng.integers(1, 16) * 5),
        "size": pick(rng, ("S", "M", "L", "XL", "38", "40", "42")),
        "adjective": pick(rng, words.ADJECTIVES),
        "occasion": pick(rng, words.OCCASIONS),
        "hash1": pick(rng, words.HASHTAGS),
        "hash2": pick(rng, words.HASHTAGS),
    }


def _roughen(text: str, rng: Generator) -> str:
    """What becomes of a caption on its way through shop systems and hurried hands."""
    if chance(rng, SUFFIX_SHARE):
        text += pick(rng, words.SUFFIXES).format(**_filler(rng))
    if chance(rng, TYPO_SHARE):
        text = misspell(text, rng)
    case = weighted(rng, CASE_SHARES)
    return {"lower": text.lower(), "title": text.title(), "upper": text.upper()}.get(case, text)


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
