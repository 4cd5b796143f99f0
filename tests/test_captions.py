"""Captions: which bytes are one, when two are the same, and which words they have."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.captions import caption_words, decode_caption, names_class, normalise_caption
from roclip_sanitize.errors import BadPair


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"a hat", "a hat", id="plain"),
        pytest.param(b"  a hat\r\n", "a hat", id="white space around it"),
        pytest.param("a hat 🎩👩‍🚀".encode(), "a hat 🎩👩‍🚀", id="emoji"),
        pytest.param("帽子".encode(), "帽子", id="another script"),
        pytest.param(b"x" * 4_000, "x" * 4_000, id="as long as may be"),
        pytest.param(b"x" * 4_000 + b" " * 99, "x" * 4_000, id="white space does not count"),
        pytest.param(("é" * 4_000).encode(), "é" * 4_000, id="characters count, not bytes"),
    ],
)
def test_a_caption_is_its_text(data: bytes, text: str) -> None:
    assert decode_caption(data) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty_caption: 0 bytes", id="empty"),
        pytest.param(b" \t\n", "empty_caption: 3 bytes", id="spaces"),
        pytest.param("\u3000\u00a0".encode(), "empty_caption: 5 bytes", id="wide and unbreakable spaces"),
        pytest.param(b"x" * 5_000, "caption_too_long: 5000 characters, at most 4000", id="too long"),
        pytest.param("caffè".encode("latin-1"), "caption_not_utf8: byte 4 is 0xe8", id="Latin-1"),
        pytest.param("hat".encode("utf-16"), "caption_not_utf8: byte 0 is 0xff", id="UTF-16"),
        pytest.param("🎩".encode()[:3], "caption_not_utf8: byte 0 is 0xf0", id="half an emoji"),
        pytest.param(b"\xed\xa0\x80", "caption_not_utf8: byte 0 is 0xed", id="a surrogate"),
    ],
)
def test_what_is_no_caption_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(BadPair, match=f"^{reason}"):
        decode_caption(data)


@given(st.binary(max_size=60))
def test_bytes_are_a_caption_or_a_bad_pair(data: bytes) -> None:
    try:
        caption = decode_caption(data)
    except BadPair:
        return
    assert caption == caption.strip() != ""
    caption.encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("caf\u00e9", "cafe\u0301", id="composed or not"),
        pytest.param("ﬁne ½", "fine 1⁄2", id="compatibility forms"),
        pytest.param("Ｆｕｌｌ　width", "full width", id="full width"),
        pytest.param("A  Red\tHAT ", "a red hat", id="case and spaces"),
        pytest.param("Straße", "STRASSE", id="case folding, not lower case"),
    ],
)
def test_captions_that_read_alike_are_the_same(one: str, other: str) -> None:
    assert normalise_caption(one) == normalise_caption(other)


@pytest.mark.parametrize(("one", "other"), [("a hat", "hat a"), ("hat", "hats"), ("🎩", "👒")])
def test_captions_that_read_differently_are_not(one: str, other: str) -> None:
    assert normalise_caption(one) != normalise_caption(other)


@given(st.text(max_size=60))
def test_what_is_spaced_once_stays_so(text: str) -> None:
    """One pass of NFKC and folding does not always settle every letter; spaces it does."""
    assert "  " not in normalise_caption(text)
    assert normalise_caption(text) == normalise_caption(text).strip()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        pytest.param("A red hat, size 42!", ["red", "hat", "size"], id="letters only, two or more"),
        pytest.param("SKU_99 l'été", ["sku", "été"], id="underscores and marks part words"),
        pytest.param("красная шапка 帽子", ["красная", "шапка", "帽子"], id="any script"),
        pytest.param("12345 🎩", [], id="none"),
    ],
)
def test_words_are_what_carries_meaning(caption: str, words: list[str]) -> None:
    assert caption_words(caption) == words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        pytest.param("लाल जूते", ["लाल", "जूते"], id="Hindi"),
        pytest.param("লাল জুতা", ["লাল", "জুতা"], id="Bengali"),
        pytest.param("சிவப்பு காலணி", ["சிவப்பு", "காலணி"], id="Tamil"),
        pytest.param("माँ, घी", ["माँ", "घी"], id="a consonant and its vowel sign are two letters"),
        pytest.param("İstanbul ISTANBUL", ["istanbul", "istanbul"], id="a dot that folding leaves over"),
        pytest.param("Μαΐου", ["μαΐου"], id="a letter that folding takes apart"),
        pytest.param("за\u0301мок замок", ["замок", "замок"], id="where the stress is"),
        pytest.param("כֶּלֶב كِتَاب", ["כלב", "كتاب"], id="vowel points"),
        pytest.param("می\u200cخواهم", ["میخواهم"], id="joiners are of a word"),
        pytest.param("s҉a҉l҉e҉", ["sale"], id="ornaments"),
        pytest.param("𑄌𑄋𑄴𑄟𑄳𑄦", ["𑄌𑄋𑄴𑄟𑄳𑄦"], id="Chakma, beyond 16 bits"),
        pytest.param("빨간 모자 🎩", ["빨간", "모자"], id="Korean parts words"),
    ],
)
def test_marks_belong_to_their_letters(caption: str, words: list[str]) -> None:
    assert caption_words(caption) == words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        pytest.param("红色皮鞋", ["红色", "色皮", "皮鞋"], id="Chinese"),
        pytest.param("黒い犬、カメラ", ["黒い", "い犬", "カメ", "メラ"], id="Japanese"),
        pytest.param("ｶﾞﾗｽ", ["ガラ", "ラス"], id="half-width Katakana"),
        pytest.param("葛\U000e0100城", ["葛城"], id="which of its forms says nothing"),
        pytest.param("𠮷野家", ["𠮷野", "野家"], id="Han beyond 16 bits"),
        pytest.param(
            "สวัสดี รองเท้า", ["สวั", "วัส", "สดี", "รอ", "อง", "งเ", "เท้", "ท้า"], id="Thai, with its marks"
        ),
        pytest.param("ສີແດງ", ["ສີແ", "ແດ", "ດງ"], id="Lao"),
        pytest.param("មាន់", ["មាន់"], id="Khmer"),
        pytest.param("မြန်မာ", ["မြန်", "န်မာ"], id="Burmese"),
        pytest.param("犬 2匹 ๑๒", ["犬", "匹"], id="a letter alone, no digits"),
        pytest.param("iPhoneケース 14K", ["iphone", "ケー", "ース"], id="Latin within"),
    ],
)
def test_where_words_are_not_parted_pairs_of_letters_are(caption: str, words: list[str]) -> None:
    assert caption_words(caption) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [("红色皮鞋", "黑色皮鞋"), ("รองเท้าแดง", "รองเท้าสีฟ้า"), ("लाल जूते", "जूते, नीले"), ("黒い犬", "犬が黒い")],
)
def test_captions_of_the_same_thing_share_words(one: str, other: str) -> None:
    assert set(caption_words(one)) & set(caption_words(other))


ALPHABETS = st.sampled_from(
    [
        *(("ASCII", 0x20, 0x7F), ("Latin", 0x20, 0x24F), ("more Latin", 0x1E00, 0x1EFF)),
        *(("Greek", 0x370, 0x3FF), ("Cyrillic", 0x400, 0x52F), ("Armenian", 0x531, 0x58F)),
        *(("Hebrew", 0x5D0, 0x5EA), ("Arabic", 0x620, 0x64A), ("Georgian", 0x10A0, 0x10FF)),
        *(("Ethiopic", 0x1200, 0x135A), ("Hangul", 0xAC00, 0xD7A3), ("signs", 0x2000, 0x200B)),
        *(("forms", 0xFB00, 0xFB17), ("pictographs", 0x1F300, 0x1FAFF)),
    ]
).flatmap(lambda block: st.characters(min_codepoint=block[1], max_codepoint=block[2]))


@given(st.text(ALPHABETS | st.sampled_from(" _-4"), max_size=60))
def test_alphabets_have_the_words_that_they_had(caption: str) -> None:
    """Wherever nothing is a mark, nor folds into one, as İ does."""
    text = normalise_caption(caption)
    if not any(unicodedata.category(letter).startswith("M") for letter in text):
        assert caption_words(caption) == re.findall(r"[^\W\d_]{2,}", text)


@given(st.text(max_size=60), st.text(max_size=60))
def test_words_of_captions_side_by_side_are_those_of_both(one: str, other: str) -> None:
    assert caption_words(f"{one} {other}") == caption_words(one) + caption_words(other)


@pytest.mark.parametrize(
    ("caption", "name", "named"),
    [
        ("Two red SHOES", "shoe", True),
        ("a red Shoe", "Shoes", True),
        ("two shoes, red", "Shoes", True),
        ("shoeshine", "Shoes", False),
        ("casual  shoe by Puma", "Casual_Shoes", True),
        ("casual wear and shoes", "Casual_Shoes", False),
        ("黒い犬がいる", "犬", True),  # no spaces between its words
        ("7up, cold", "7up", True),
    ],
)
def test_a_caption_names_a_class_by_a_word_of_its_own(caption: str, name: str, named: bool) -> None:
    assert names_class(caption, name) == named
