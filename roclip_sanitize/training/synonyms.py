"""Words that may stand for others, as token ids: from a table of one's own, or from WordNet's files.

A table is a text file, one word a line, then a tab and its synonyms between commas:

    sofa<TAB>couch,lounge

A folder is taken for WordNet's database (data.noun, data.verb, data.adj, data.adv), as nltk keeps it in
corpora/wordnet. Neither WordNet nor nltk comes with this package. What the RoCLIP code does with nltk
and this does not: inflected words ("dogs") have no synonyms here unless a table lists them.

Dimension key: K words that have synonyms, S synonyms of all of them, M tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.storage import exists, names_in, read_bytes
from roclip_sanitize.training.inputs import WORDNET_FILES
from roclip_sanitize.training.words import hash_words, split_words

LONGEST = 8  # tokens; a synonym of more is left out
LETTERS = frozenset(" abcdefghijklmnopqrstuvwxyz")
# EDA's list
NEVER_REPLACED = """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
    hers herself it its itself they them their theirs themselves what which who whom this that these those
    am is are was were be been being have has had having do does did doing a an the and but if or because as
    until while of at by for with about against between into through during before after above below to from
    up down in out on off over under again further then once here there when where why how all any both each
    few more most other some such no nor not only own same so than too very s t can will just don should now
"""
STOP_WORDS = frozenset(NEVER_REPLACED.split())


@dataclass(frozen=True, slots=True)
class SynonymTable:
    """Synonyms to be looked up by hash_words(), on one device.

    Attributes:
        key_K: int64 hashes of words that have synonyms, ascending.
        first_K: int64, a word's first synonym; the others follow it.
        count_K: int64, how many it has, 1 or more.
        token_SM: int64 token ids of the synonyms.
        length_S: int64, how many tokens each has; what follows them means nothing.
    """

    key_K: torch.Tensor
    first_K: torch.Tensor
    count_K: torch.Tensor
    token_SM: torch.Tensor
    length_S: torch.Tensor

    @classmethod
    def build(
        cls,
        synonyms: Mapping[str, Sequence[str]],
        *,
        tokenize: Callable[[list[str]], Any],
        ends_word_V: torch.Tensor,
    ) -> SynonymTable:
        """Tokenise a table.

        Args:
            synonyms: word → what may stand for it; may be several words.
            tokenize: list of texts → (N, L) int64 ids, start token first, 0 after the end token.
            ends_word_V: see split_words().

        Raises:
            ConfigError: no entry is one word, with a synonym, to the tokenizer.
        """
        texts = sorted({*synonyms, *(text for several in synonyms.values() for text in several)})
        if not texts:
            raise ConfigError("the table of synonyms is empty")
        tokens_NL = torch.as_tensor(tokenize(texts)).long()
        words = split_words(tokens_NL, ends_word_V)
        place = {text: row for row, text in enumerate(texts)}
        inner_N = words.length_BW.sum(dim=1)
        usable_N = (inner_N > 0) & (inner_N <= LONGEST) & (words.end_B == inner_N + 1)  # nothing was cut off
        single_N = (usable_N & (words.count_B == 1)).tolist()
        usable, key_N = usable_N.tolist(), hash_words(tokens_NL, words)[:, 0].tolist()
        entries: dict[int, dict[int, None]] = {}
        for word, several in synonyms.items():
            row = place[word]
            rows = [place[text] for text in several if usable[place[text]]]
            rows = [other for other in rows if not (single_N[other] and key_N[other] == key_N[row])]
            if single_N[row] and rows:
                entries.setdefault(key_N[row], {}).update(dict.fromkeys(rows))
        if not entries:
            raise ConfigError("the table of synonyms has no word that is one word to the tokenizer")
        keys = sorted(entries)
        count_K = torch.tensor([len(entries[key]) for key in keys])
        row_S = torch.tensor([row for key in keys for row in entries[key]])
        return cls(
            key_K=torch.tensor(keys),
            first_K=count_K.cumsum(0) - count_K,
            count_K=count_K,
            token_SM=tokens_NL[row_S, 1 : 1 + LONGEST],
            length_S=inner_N[row_S],
        )

    def to(self, device: torch.device) -> SynonymTable:
        """The same on another device."""
        return SynonymTable(*(getattr(self, field.name).to(device) for field in fields(self)))

    def find(self, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Places (0 to K - 1) of hashes, and whether each is in the table at all."""
        place = torch.searchsorted(self.key_K, key).clamp(max=len(self.key_K) - 1)
        return place, self.key_K[place] == key

    def choose(self, entry_BN: torch.Tensor, draw_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A synonym of each entry by a number from 0 to 1: tokens (B, N, M), and how many there are."""
        count_BN = self.count_K[entry_BN]
        row_BN = self.first_K[entry_BN] + torch.minimum((draw_BN * count_BN).long(), count_BN - 1)
        return self.token_SM[row_BN], self.length_S[row_BN]


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """A table of synonyms, or WordNet's.

    Raises:
        ConfigError: there is nothing, or a line that is not as it should be.
    """
    if path.is_dir() or set(WORDNET_FILES) & set(names_in(path)):
        return read_wordnet(path)
    if not exists(path):
        raise ConfigError(f"{path} is neither a table of synonyms nor a folder of WordNet")
    synonyms: dict[str, list[str]] = {}
    for number, line in enumerate(read_bytes(path).decode("utf-8").splitlines(), start=1):
        word, tab, listed = line.partition("\t")
        several = [text.strip() for text in listed.split(",") if text.strip()]
        if line.strip() and not (word.strip() and tab and several):
            raise ConfigError(
                f"{path}:{number} is {line!r}, wanted a word, a tab and synonyms between commas"
            )
        if several:
            synonyms.setdefault(word.strip().lower(), []).extend(several)
    return synonyms


def read_wordnet(folder: Path) -> dict[str, list[str]]:
    """Every word of WordNet with all words that share a meaning with it, as EDA looks them up.

    In lower case, with spaces for underscores and hyphens and nothing but letters; stop words and what
    is several words have no entry, though the latter may be a synonym.

    Raises:
        ConfigError: the folder has none of WordNet's files, or one that is not in its format.
    """
    paths = [folder / name for name in WORDNET_FILES if exists(folder / name)]
    if not paths:
        raise ConfigError(f"{folder} has none of WordNet's {', '.join(WORDNET_FILES)}")
    synonyms: dict[str, dict[str, None]] = {}
    for path in paths:
        for number, line in enumerate(read_bytes(path).decode("utf-8").splitlines(), start=1):
            if line.startswith("  "):  # the licence, at the top
                continue
            try:
                lemmas = _lemmas(line)
            except (IndexError, ValueError) as error:
                raise ConfigError(
                    f"{path}:{number} is no line of WordNet's database: {line[:60]!r}"
                ) from error
            for word in lemmas:
                if " " not in word and word not in STOP_WORDS:
                    synonyms.setdefault(word, {}).update(dict.fromkeys(o for o in lemmas if o != word))
    return {word: list(others) for word, others in synonyms.items() if others}


def _lemmas(line: str) -> list[str]:
    """offset, file, type, count in hexadecimal, then so many times word and number (wndb(5WN))."""
    parts = line.split(" ")
    words = [parts[4 + 2 * place] for place in range(int(parts[3], 16))]
    plain = (_plain(word.partition("(")[0]) for word in words)  # (a), (p), (ip): where an adjective may stand
    return list(dict.fromkeys(word for word in plain if word))


def _plain(word: str) -> str:
    spaced = word.lower().replace("_", " ").replace("-", " ")
    return "".join(letter for letter in spaced if letter in LETTERS).strip()
