"""EDA on token ids, against the same on lists of words in plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.encoder import tokenizer_for, word_ends
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.caption_augment import (
    DELETE,
    INSERT,
    REPLACE,
    SWAP,
    CaptionDraws,
    augment_captions,
    draw_captions,
)
from roclip_sanitize.training.synonyms import LONGEST, SynonymTable, read_synonyms
from roclip_sanitize.training.words import hash_words, split_words

# a small language: tokens of 10 and more end a word, those below do not, and 0 may be within one
START, END, LENGTH = 30, 31, 24
ENDS_WORD = torch.tensor([10 <= token < START for token in range(END + 1)])
Word = tuple[int, ...]
SYNONYMS: dict[Word, list[Word]] = {
    (10,): [(11,), (1, 2, 12)],
    (3, 13): [(14,)],
    (15,): [(0, 15), (16,), (17, 18)],
}

word_lists = st.lists(
    st.one_of(
        st.sampled_from(list(SYNONYMS)),
        st.builds(
            lambda head, last: (*head, last), st.lists(st.integers(0, 9), max_size=2), st.integers(10, 29)
        ),
    ),
    max_size=12,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def told(words: list[Word], length: int = LENGTH) -> list[int]:
    """A caption's tokens, as the tokenizer cuts them: the end token is always there."""
    inner = [token for word in words for token in word][: length - 2]
    return [START, *inner, END] + [0] * (length - 2 - len(inner))


def spelled(row: list[int]) -> tuple[list[Word], list[int]]:
    """The words of a caption, and what the context left of one more."""
    end = max(place for place, token in enumerate(row) if token)
    words: list[Word] = []
    part: list[int] = []
    for token in row[1:end]:
        part.append(token)
        if ENDS_WORD[token]:
            words.append(tuple(part))
            part = []
    return words, part


def toy_table() -> SynonymTable:
    texts = {" ".join(map(str, word)): word for several in SYNONYMS.values() for word in several}
    texts |= {" ".join(map(str, word)): word for word in SYNONYMS}
    mapping = {
        " ".join(map(str, word)): [" ".join(map(str, other)) for other in several]
        for word, several in SYNONYMS.items()
    }
    return SynonymTable.build(
        mapping,
        tokenize=lambda several: torch.tensor([told([texts[text]]) for text in several]),
        ends_word_V=ENDS_WORD,
    )


def one_of(draw: float, count: int) -> int:
    return min(int(torch.tensor(draw) * count), count - 1)


def one_by_one(row: list[int], draws: CaptionDraws, caption: int, *, table: SynonymTable | None) -> list[int]:
    """What augment_captions() does to one caption."""
    words, tail = spelled(row)
    draw: list[list[float]] = draws.draw_BW3[caption].tolist()
    operation = int(draws.operation_B[caption])
    if operation == REPLACE and table is None:
        operation = SWAP
    many = max(1, len(words) // 10)
    known = [w for w, word in enumerate(words) if (word in SYNONYMS if table else len(word) <= LONGEST)]
    steps = {REPLACE: replaced, INSERT: inserted, SWAP: swapped, DELETE: deleted}
    changed = steps[operation](words, known, many, draw, table is not None) if words else words
    inner = [token for word in changed for token in word] + tail
    if len(inner) > len(row) - 2:
        return row
    return [START, *inner, END] + [0] * (len(row) - 2 - len(inner))


def synonym(word: Word, draw: float) -> Word:
    return SYNONYMS[word][one_of(draw, len(SYNONYMS[word]))]


def replaced(words: list[Word], known: list[int], many: int, draw: list[list[float]], _: bool) -> list[Word]:
    chosen = sorted(known, key=lambda w: draw[w][0])[:many]
    return [synonym(word, draw[chosen.index(w)][2]) if w in chosen else word for w, word in enumerate(words)]


def inserted(
    words: list[Word], known: list[int], many: int, draw: list[list[float]], from_table: bool
) -> list[Word]:
    before: list[list[Word]] = [[] for _ in words]
    for first, second, third in draw[:many] if known else []:
        word = words[known[one_of(first, len(known))]]
        before[one_of(second, len(words))].append(synonym(word, third) if from_table else word)
    return [new for w, word in enumerate(words) for new in (*before[w], word)]


def swapped(words: list[Word], known: list[int], many: int, draw: list[list[float]], _: bool) -> list[Word]:
    words = list(words)
    if len(words) > 1:
        for first, second, _third in draw[:many]:
            one = one_of(first, len(words))
            other = (one + 1 + one_of(second, len(words) - 1)) % len(words)
            words[one], words[other] = words[other], words[one]
    return words


def deleted(words: list[Word], known: list[int], many: int, draw: list[list[float]], _: bool) -> list[Word]:
    highest = max(draw[w][0] for w in range(len(words)))
    return [word for w, word in enumerate(words) if draw[w][0] >= 0.1 or draw[w][0] == highest]


@pytest.mark.parametrize("with_table", [False, True])
@given(captions=st.lists(word_lists, min_size=1, max_size=8), seed=st.integers(0, 999), low=st.booleans())
def test_captions_come_out_as_word_lists_do(
    with_table: bool, captions: list[list[Word]], seed: int, low: bool
) -> None:
    tokens = torch.tensor([told(words) for words in captions])
    draws = draw_captions(len(tokens), LENGTH, generator=seeded(seed))
    if low:  # deletions of nearly everything
        draws = CaptionDraws(draws.operation_B, draws.draw_BW3 * 0.11)
    table = toy_table() if with_table else None
    found = augment_captions(tokens, draws, ends_word_V=ENDS_WORD, synonyms=table)
    wanted = [one_by_one(row, draws, number, table=table) for number, row in enumerate(tokens.tolist())]
    assert found.tolist() == wanted


@given(captions=st.lists(word_lists, min_size=1, max_size=6), seed=st.integers(0, 99))
def test_what_always_holds(captions: list[list[Word]], seed: int) -> None:
    tokens = torch.tensor([told(words) for words in captions])
    draws = draw_captions(len(tokens), LENGTH, generator=seeded(seed))
    found = augment_captions(tokens, draws, ends_word_V=ENDS_WORD)
    assert (found.shape, found.dtype) == (tokens.shape, torch.int64)
    for before, after in zip(tokens.tolist(), found.tolist(), strict=True):
        words, tail = spelled(before)
        kept, tail_after = spelled(after)
        assert (after[0], tail_after) == (START, tail)
        assert bool(kept) == bool(words)
        assert set(kept) <= set(words)  # whole words, and none that was not there
        assert after.count(END) == 1


def test_each_operation_is_as_likely_and_each_caption_its_own() -> None:
    draws = draw_captions(4_000, 16, generator=seeded())
    shares = torch.bincount(draws.operation_B, minlength=4) / 4_000
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.03)
    assert torch.equal(draw_captions(3, 16, generator=seeded()).draw_BW3, draws[:3].draw_BW3)


def test_a_tenth_of_many_words_undergo_it() -> None:
    words: list[Word] = [(10 + number % 19,) for number in range(60)]
    tokens = torch.tensor([told(words, 77)] * 400)
    draws = draw_captions(400, 77, generator=seeded())
    found = augment_captions(tokens, draws, ends_word_V=ENDS_WORD)
    count = (found != 0).sum(dim=1) - 2
    inserts, deletes = draws.operation_B == INSERT, draws.operation_B == DELETE
    assert (count[inserts] == 66).all()
    assert count[deletes].float().mean() == pytest.approx(54, abs=1)
    moved = (found != tokens).sum(dim=1)[~inserts & ~deletes]
    assert moved.max() <= 12
    assert moved.max() > 8


# Words of the real tokenizer


@pytest.fixture(scope="module")
def ends() -> torch.Tensor:
    return torch.from_numpy(word_ends("ViT-B-32"))


def shown(tokens: torch.Tensor) -> list[str]:
    tokenizer: Any = tokenizer_for("ViT-B-32")
    framed = set(tokenizer.all_special_ids)
    return [tokenizer.decode([t for t in row if t and t not in framed]).strip() for row in tokens.tolist()]


def only(operation: int, count: int, length: int = 77, seed: int = 0) -> CaptionDraws:
    draws = draw_captions(count, length, generator=seeded(seed))
    return CaptionDraws(torch.full((count,), operation), draws.draw_BW3)


def test_the_vocabulary_says_where_words_end(ends: torch.Tensor) -> None:
    tokens = tokenizer_for("ViT-B-32")(["supercalifragilistic zebra, 12!"])
    assert len(ends) == 49_408
    words = split_words(tokens, ends)
    assert words.count_B.tolist() == [6]  # two words, a comma, two digits, an exclamation mark
    assert words.length_BW[0, 0] > 1
    assert words.length_BW[0, 1:7].tolist() == [1, 1, 1, 1, 1, 0]


def test_rare_words_stay_whole(ends: torch.Tensor) -> None:
    tokens = tokenizer_for("ViT-B-32")(["supercalifragilistic zebra"] * 20)
    found = shown(augment_captions(tokens, only(SWAP, 20), ends_word_V=ends))
    assert set(found) == {"zebra supercalifragilistic"}


def test_synonyms_take_a_words_place(ends: torch.Tensor) -> None:
    tokenize = tokenizer_for("ViT-B-32")
    table = SynonymTable.build(
        {"sofa": ["couch", "lounge chair"], "blue": ["azure"]}, tokenize=tokenize, ends_word_V=ends
    )
    tokens = tokenize(["A sofa near the door"] * 30)
    draws = only(REPLACE, 30)
    found = set(shown(augment_captions(tokens, draws, ends_word_V=ends, synonyms=table)))
    assert found == {"a couch near the door", "a lounge chair near the door"}
    found = set(shown(augment_captions(tokens, only(INSERT, 30), ends_word_V=ends, synonyms=table)))
    assert "a sofa near couch the door" in found
    unknown = tokenize(["three green doors"])
    for operation in (REPLACE, INSERT):
        same = augment_captions(unknown, only(operation, 1), ends_word_V=ends, synonyms=table)
        assert torch.equal(same, unknown)


def test_a_full_context_takes_nothing_in_and_keeps_what_it_cut(ends: torch.Tensor) -> None:
    tokens = tokenizer_for("roclip-rn-64")(["a b c d e f g h i j k l m supercalifragilistic"])
    assert not ends[tokens[0, -2]]  # the last word was cut
    assert torch.equal(augment_captions(tokens, only(INSERT, 1, 16), ends_word_V=ends), tokens)
    moved = augment_captions(tokens, only(SWAP, 1, 16), ends_word_V=ends)
    assert torch.equal(moved[0, -2:], tokens[0, -2:])
    assert not torch.equal(moved, tokens)


def test_hashes_tell_words_apart(ends: torch.Tensor) -> None:
    word_N1 = ends.nonzero()
    start_N1, end_N1 = torch.full_like(word_N1, 49_406), torch.full_like(word_N1, 49_407)
    tokens = torch.cat([start_N1, word_N1, end_N1], dim=1)
    hashes = hash_words(tokens, split_words(tokens, ends))[:, 0].tolist()
    assert len(set(hashes)) == len(tokens) > 24_000
    assert min(hashes) >= 0


def test_a_hash_depends_on_the_words_own_tokens_alone() -> None:
    one, other = torch.tensor([told([(1, 2, 12), (10,)]), told([(10,), (11,), (1, 2, 12)])])
    hashes = [hash_words(row[None], split_words(row[None], ENDS_WORD))[0].tolist() for row in (one, other)]
    assert hashes[0][0] == hashes[1][2]
    assert hashes[0][1] == hashes[1][0]


# Tables


def test_a_table_is_words_tabs_and_commas(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("Sofa\tcouch, lounge chair\n\nblue\tazure\nsofa\tsettee\n")
    assert read_synonyms(path) == {"sofa": ["couch", "lounge chair", "settee"], "blue": ["azure"]}


@pytest.mark.parametrize("line", ["sofa", "sofa\t", "\tcouch", "sofa,couch"])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(f"blue\tazure\n{line}\n")
    with pytest.raises(ConfigError, match=r"table\.tsv:2 is "):
        read_synonyms(path)


def test_no_table_and_no_usable_entry_are_errors(tmp_path: Path, ends: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="neither a table"):
        read_synonyms(tmp_path / "absent")
    with pytest.raises(ConfigError, match="none of WordNet's"):
        read_synonyms(tmp_path)
    for synonyms in ({}, {"two words": ["one"]}, {"sofa": ["Sofa"]}):
        with pytest.raises(ConfigError, match="table of synonyms"):
            SynonymTable.build(synonyms, tokenize=tokenizer_for("ViT-B-32"), ends_word_V=ends)


def test_wordnet_is_read_as_its_manual_says(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(
        "  1 This software and database is being provided to you, the LICENSEE, by\n"
        "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 001 @ 02083346 n 0000 | a member\n"
        "10114209 18 n 02 dog 0 frump 0 001 @ 10787470 n 0000 | a dull girl\n"
        "13658027 23 n 02 in 0 inch 0 001 @ 13603305 n 0000 | a unit of length\n"
    )
    (tmp_path / "data.adj").write_text("00014358 00 s 02 abundant 0 galore(ip) 0 001 & 00013887 a 0000 | \n")
    assert read_synonyms(tmp_path) == {
        "dog": ["domestic dog", "canis familiaris", "frump"],
        "frump": ["dog"],
        "inch": ["in"],
        "abundant": ["galore"],
        "galore": ["abundant"],
    }
    (tmp_path / "data.verb").write_text("no such thing\n")
    with pytest.raises(ConfigError, match=r"data\.verb:1 is no line"):
        read_synonyms(tmp_path)
