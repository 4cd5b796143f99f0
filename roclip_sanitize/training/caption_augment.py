"""The text augmentation of the RoCLIP paper (EDA, Wei and Zou 2019) on token ids, whole batches at once.

Each caption undergoes one of four operations, each as likely as the others, of strength 0.1. With n
for a tenth of its words, rounded down but at least 1:

    replace   n words, each by a synonym
    insert    n times a synonym of one of its words, before any of its words
    swap      n times two of its words
    delete    each word with probability 0.1, but never all

Words stay whole, and an operation that would exceed the context leaves the caption as it is. Where a
table of synonyms is given and has none of a caption's words, replacing and inserting do nothing to it.

What differs from the released code: captions are augmented afresh each time they are seen, not once
and for all; case, digits and punctuation stay; a word that is replaced is replaced where it stands and
not wherever else it occurs; and without a table of synonyms (WordNet does not come with this package)
"replace" swaps words instead, and "insert" repeats one of the caption's own words of up to 8 tokens.

Dimension key: B captions, L tokens, V vocabulary, W = L places for words, N operations at most on
one caption, M tokens of a new word at most, C = L + N · M candidates for the new caption's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.synonyms import LONGEST, SynonymTable
from roclip_sanitize.training.words import Words, hash_words, split_words

REPLACE, INSERT, SWAP, DELETE = range(4)
STRENGTH = 0.1
ONE_IN = 10  # words: n is the count divided by this


@dataclass(frozen=True, slots=True)
class CaptionDraws:
    """What is done to each caption of a batch.

    Attributes:
        operation_B: int64, 0 to 3.
        draw_BW3: float32, from 0 to 1: three numbers for every word and also, in the order of their
            numbers, for every insertion and swap.
    """

    operation_B: torch.Tensor
    draw_BW3: torch.Tensor

    def __getitem__(self, rows: slice) -> CaptionDraws:
        return CaptionDraws(self.operation_B[rows], self.draw_BW3[rows])

    def to(self, device: torch.device) -> CaptionDraws:
        """The same on another device."""
        return CaptionDraws(moved(self.operation_B, device), moved(self.draw_BW3, device))


def draw_captions(count: int, length: int, *, generator: torch.Generator) -> CaptionDraws:
    """Decide what happens to ``count`` captions in a context of ``length`` tokens.

    The generator is on the CPU; each caption takes one row of numbers, which does not depend on ``count``.
    """
    draw = torch.rand(count, 1 + 3 * length, generator=generator)
    return CaptionDraws(_one_of(draw[:, 0], torch.tensor(4)), draw[:, 1:].reshape(count, length, 3))


def augment_captions(
    tokens_BL: torch.Tensor,
    draws: CaptionDraws,
    *,
    ends_word_V: torch.Tensor,
    synonyms: SynonymTable | None = None,
) -> torch.Tensor:
    """Do to each caption what was drawn for it.

    Every operation says where in the new caption each old and each new token belongs, as a number: 2w + 1
    for those of word w, 2w for what is put in before it. Sorting by it makes the caption.

    Args:
        tokens_BL: int64 ids, start token first, 0 after the end token.
        draws: one row for each caption.
        ends_word_V: bool, whether a token is the last of a word.
        synonyms: a table; see above for what is done without one.

    Returns:
        Captions of the same shape and form, new.
    """
    words = split_words(tokens_BL, ends_word_V)
    draws = draws.to(tokens_BL.device)
    many_B = (words.count_B // ONE_IN).clamp(min=1)
    new = _new_words(tokens_BL, words, draws, many_B, synonyms)
    swaps_B = draws.operation_B == SWAP
    if synonyms is None:
        swaps_B = swaps_B | (draws.operation_B == REPLACE)
    rank_BW = _swapped(words, draws.draw_BW3, torch.where(swaps_B, many_B, 0))
    deletes_B1 = draws.operation_B[:, None] == DELETE
    gone_BW = new.instead_BW | (deletes_B1 & _deleted(words, draws.draw_BW3))
    return _laid_out(tokens_BL, words, rank_BW=rank_BW, gone_BW=gone_BW, new=new)


@dataclass(frozen=True, slots=True)
class _NewWords:
    """What comes into captions.

    Attributes:
        key_BN: where, as augment_captions() says; -1 for nothing.
        token_BNM: the tokens of it,
        length_BN: and how many they are.
        instead_BW: words that make way for it.
    """

    key_BN: torch.Tensor
    token_BNM: torch.Tensor
    length_BN: torch.Tensor
    instead_BW: torch.Tensor


def _deleted(words: Words, draw_BW3: torch.Tensor) -> torch.Tensor:
    """(B, W): words with a low number go, but the one with the highest stays."""
    draw_BW = draw_BW3[..., 0].masked_fill(~words.filled_BW, -1)
    return (draw_BW < STRENGTH) & (draw_BW < draw_BW.amax(dim=1, keepdim=True))


def _swapped(words: Words, draw_BW3: torch.Tensor, swaps_B: torch.Tensor) -> torch.Tensor:
    """(B, W): the place that each word has after so many swaps, each of two different places."""
    place_BW = torch.arange(draw_BW3.shape[1], device=draw_BW3.device).expand(draw_BW3.shape[:2])
    at_BW = place_BW.clone()  # the word that stands at each place
    for number in range(_most(draw_BW3.shape[1])):
        one_B = _one_of(draw_BW3[:, number, 0], words.count_B)
        step_B = 1 + _one_of(draw_BW3[:, number, 1], words.count_B - 1)
        other_B = torch.where(number < swaps_B, (one_B + step_B) % words.count_B.clamp(min=1), one_B)
        pair_B2 = torch.stack([one_B, other_B], dim=1)
        at_BW.scatter_(1, pair_B2, at_BW.gather(1, pair_B2.flip(1)))
    return torch.empty_like(at_BW).scatter_(1, at_BW, place_BW)


def _new_words(
    tokens_BL: torch.Tensor,
    words: Words,
    draws: CaptionDraws,
    many_B: torch.Tensor,
    synonyms: SynonymTable | None,
) -> _NewWords:
    """What is inserted, and what replaces."""
    draw_BN3 = draws.draw_BW3[:, : _most(tokens_BL.shape[1])]
    inserts_B1, replaces_B1 = (draws.operation_B[:, None] == kind for kind in (INSERT, REPLACE))
    if synonyms is None:
        known_BW = words.filled_BW & (words.length_BW <= LONGEST)
        word_BN, key_BN = _insertions(words, known_BW, draw_BN3, many_B)
        token_BNM, length_BN = _own_tokens(tokens_BL, words, word_BN)
        key_BN = torch.where(inserts_B1, key_BN, -1)
        return _NewWords(key_BN, token_BNM, length_BN, torch.zeros_like(known_BW))
    entry_BW, known_BW = synonyms.find(hash_words(tokens_BL, words))
    known_BW = known_BW & words.filled_BW
    inserted_BN, before_BN = _insertions(words, known_BW, draw_BN3, many_B)
    replaced_BN, at_BN = _replacements(known_BW, draws.draw_BW3, many_B)
    word_BN = torch.where(replaces_B1, replaced_BN, inserted_BN)
    token_BNM, length_BN = synonyms.choose(entry_BW.gather(1, word_BN), draw_BN3[..., 2])
    at_BN = torch.where(replaces_B1, at_BN, -1)
    instead_BW = torch.zeros_like(known_BW).scatter_(1, replaced_BN, at_BN >= 0)
    key_BN = torch.where(inserts_B1, before_BN, at_BN)
    return _NewWords(key_BN, token_BNM, length_BN, instead_BW)


def _insertions(
    words: Words, known_BW: torch.Tensor, draw_BN3: torch.Tensor, many_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which known word each insertion starts from, any number of times the same, and its key."""
    known_B1 = known_BW.sum(dim=1, keepdim=True)
    first_known_BW = (~known_BW).long().argsort(dim=1, stable=True)
    word_BN = first_known_BW.gather(1, _one_of(draw_BN3[..., 0], known_B1))
    number_N = torch.arange(draw_BN3.shape[1], device=draw_BN3.device)
    made_BN = (number_N < many_B[:, None]) & (known_B1 > 0)
    return word_BN, torch.where(made_BN, 2 * _one_of(draw_BN3[..., 1], words.count_B[:, None]), -1)


def _replacements(
    known_BW: torch.Tensor, draw_BW3: torch.Tensor, many_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which known words are replaced, those with the lowest numbers, and their keys."""
    most = _most(known_BW.shape[1])
    word_BN = draw_BW3[..., 0].masked_fill(~known_BW, 2).argsort(dim=1, stable=True)[:, :most]
    number_N = torch.arange(most, device=draw_BW3.device)
    made_BN = number_N < torch.minimum(many_B, known_BW.sum(dim=1))[:, None]
    return word_BN, torch.where(made_BN, 2 * word_BN + 1, -1)


def _own_tokens(
    tokens_BL: torch.Tensor, words: Words, word_BN: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens (B, N, M) of words of the captions themselves, and how many there are."""
    within_M = torch.arange(LONGEST, device=tokens_BL.device)
    place_BNM = words.start_BW.gather(1, word_BN)[..., None] + within_M
    place_BNM = place_BNM.clamp(max=tokens_BL.shape[1] - 1)
    token_BNM = tokens_BL.gather(1, place_BNM.flatten(1)).view(place_BNM.shape)
    return token_BNM, words.length_BW.gather(1, word_BN)


def _laid_out(
    tokens_BL: torch.Tensor,
    words: Words,
    *,
    rank_BW: torch.Tensor,
    gone_BW: torch.Tensor,
    new: _NewWords,
) -> torch.Tensor:
    """Sort old and new tokens by their keys; captions that come out too long stay as they were."""
    length = tokens_BL.shape[1]
    tail, nowhere = (
        2 * length,
        2 * length + 1,
    )  # keys of the end, with what the context cut off, and of the rest
    place_L = torch.arange(length, device=tokens_BL.device)
    framed_L = torch.where(place_L == 0, -1, tail)
    framed_BL = torch.where(place_L > words.end_B[:, None], nowhere, framed_L)
    key_BW = torch.where(gone_BW, nowhere, 2 * rank_BW + 1)
    in_word_BL = words.word_BL < words.count_B[:, None]
    old_BL = torch.where(in_word_BL, key_BW.gather(1, words.word_BL), framed_BL)
    within_M = torch.arange(new.token_BNM.shape[2], device=tokens_BL.device)
    used_BNM = (new.key_BN[..., None] >= 0) & (within_M < new.length_BN[..., None])
    new_BNM = torch.where(used_BNM, new.key_BN[..., None], nowhere)
    key_BC = torch.cat([old_BL, new_BNM.flatten(1)], dim=1)
    order_BL = key_BC.argsort(dim=1, stable=True)[:, :length]
    token_BC = torch.cat([tokens_BL, new.token_BNM.flatten(1)], dim=1)
    made_BL = token_BC.gather(1, order_BL).masked_fill(key_BC.gather(1, order_BL) == nowhere, 0)
    fits_B = (key_BC != nowhere).sum(dim=1) <= length
    return torch.where(fits_B[:, None], made_BL, tokens_BL)


def _most(length: int) -> int:
    """N: the most operations that a caption of so many tokens can undergo; two of them are no word."""
    return max(1, (length - 2) // ONE_IN)


def _one_of(draw: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """A whole number from 0 to below ``count`` for numbers from 0 to 1; 0 where there is none."""
    # a product of float32 may round up to the count itself
    return torch.minimum((draw * count).long(), count - 1).clamp(min=0)
