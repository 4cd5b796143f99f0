"""Where the words of tokenised captions are.

A word is what the tokenizer took for one before it cut it into tokens: letters that belong together,
one digit, or a run of punctuation. Its last token says that it is the last. A word that the context
cut off has no last token; it counts as no word, so that nothing moves it to where it would run into the
next.

Dimension key: B captions, L tokens, V vocabulary, W = L places for words, of which a caption fills some.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from roclip_sanitize.training.moving import moved

PRIME = 2_147_483_647  # 2^31 - 1: products of a token id and a remainder stay far below 2^63
MULTIPLIERS = (1_000_003, 754_974_721)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a batch.

    Attributes:
        count_B: int64, words of each caption.
        end_B: int64, the end token's place.
        word_BL: int64, the word that each token belongs to, from 0; the count where it is in none.
        length_BW: int64, tokens of each word, 0 for places that are not filled.
        start_BW: int64, place of each word's first token; meaningless where the length is 0.
    """

    count_B: torch.Tensor
    end_B: torch.Tensor
    word_BL: torch.Tensor
    length_BW: torch.Tensor
    start_BW: torch.Tensor

    @property
    def filled_BW(self) -> torch.Tensor:
        """Which places hold a word."""
        return self.length_BW > 0


def split_words(tokens_BL: torch.Tensor, ends_word_V: torch.Tensor) -> Words:
    """Find the words of captions.

    Args:
        tokens_BL: int64 ids, start token first, 0 after the end token. (CLIP's id 0 is also a "!"
            within a word: the end is therefore the last that is not 0.)
        ends_word_V: bool, whether a token is a word's last; on the same device.
    """
    place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    end_B = ((tokens_BL != 0) * place_L).amax(dim=1)
    between_BL = (place_L > 0) & (place_L < end_B[:, None])
    last_BL = ends_word_V[tokens_BL] & between_BL
    count_B = last_BL.sum(dim=1)
    before_BL = last_BL.cumsum(dim=1) - last_BL.long()  # words that ended before this token
    word_BL = torch.where(between_BL, torch.minimum(before_BL, count_B[:, None]), count_B[:, None])
    whole_BL = (word_BL < count_B[:, None]).long()
    # W = L places suffice: of L tokens two are no word
    length_BW = torch.zeros_like(tokens_BL).scatter_add_(1, word_BL, whole_BL)
    return Words(
        count_B=count_B,
        end_B=end_B,
        word_BL=word_BL,
        length_BW=length_BW,
        start_BW=1 + length_BW.cumsum(dim=1) - length_BW,
    )


def hash_words(tokens_BL: torch.Tensor, words: Words) -> torch.Tensor:
    """A number for each word that depends on its tokens alone: (B, W) int64, 0 or more.

    Two polynomials modulo a prime of 31 bits: two words of a large dictionary are the same with a chance
    of less than one in a hundred million.
    """
    length = tokens_BL.shape[1]
    within_BL = torch.arange(length, device=tokens_BL.device) - words.start_BW.gather(1, words.word_BL)
    whole_BL = words.word_BL < words.count_B[:, None]
    halves = []
    for multiplier in MULTIPLIERS:
        power_L = moved(
            torch.tensor([pow(multiplier, place, PRIME) for place in range(length)]), tokens_BL.device
        )
        term_BL = torch.where(whole_BL, (tokens_BL + 1) * power_L[within_BL.clamp(0, length - 1)] % PRIME, 0)
        halves.append(torch.zeros_like(tokens_BL).scatter_add_(1, words.word_BL, term_BL) % PRIME)
    return halves[0] * (PRIME + 1) + halves[1]
