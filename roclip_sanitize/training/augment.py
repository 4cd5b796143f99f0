"""What a batch goes through before the towers see it, on the device, whole batches at once.

All random numbers of a step are drawn for the whole batch from a generator that depends on
seed and step alone, and each rank takes its slice: the same pairs look the same however many
ranks there are, and after a resume.

    mild         flip, brightness and contrast ± 30 %, a tenth of the words dropped
    strong       mild, and a crop of 60–100 % of the area; half of the pictures get a grey square of 30 %
                 a side, half a 3-tap blur
    mixing       flip; other pictures, squares of them and waves: see
                 mixing_augment.py; a tenth of the words dropped
    paper        the RoCLIP paper's: see picture_augment.py and caption_augment.py
    paper_mild   the same with crops of 90–100 %, as an independent implementation has it

Crops belong to the strong kind: a small model that is trained briefly pays for them in accuracy,
and what the scan left of an attack does not take without them either (benchmarks/LOG.md).

Dimension key: B pairs, H = W side in pixels, L tokens, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.caption_augment import augment_captions, draw_captions
from roclip_sanitize.training.mixing_augment import mix
from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.picture_augment import augment_pictures, draw_pictures
from roclip_sanitize.training.settings import Augmentation
from roclip_sanitize.training.synonyms import SynonymTable, read_synonyms

LEAST_AREA = 0.6
JITTER = 0.3
WORD_DROP = 0.1
ERASED_SIDE = 0.3
BLUR_TAPS = (1.0, 2.0, 1.0)
PAPER_LEAST_AREAS: dict[Augmentation, float] = {"paper": 0.08, "paper_mild": 0.9}
ALL = slice(None)


class Augmenter:
    """One kind of augmentation, and what it needs to know of the tokenizer.

    Args:
        kind: how strongly.
        ends_word_V: bool, whether a token is the last of a word (encoder.word_ends()). Only the paper's
            kinds need it.
        synonyms: for the paper's kinds; without it they make do (see caption_augment.py).

    Raises:
        ConfigError: a kind of the paper's without ends_word_V.
    """

    def __init__(
        self,
        kind: Augmentation,
        *,
        ends_word_V: torch.Tensor | None = None,
        synonyms: SynonymTable | None = None,
    ) -> None:
        if kind in PAPER_LEAST_AREAS and ends_word_V is None:
            raise ConfigError(f"augmentation {kind!r} needs to know which tokens end a word")
        self.kind = kind
        self._ends_word_V, self._synonyms = ends_word_V, synonyms

    def __call__(
        self,
        pixels_B3HW: torch.Tensor,
        tokens_BL: torch.Tensor,
        generator: torch.Generator,
        *,
        rows: slice = ALL,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a step's batch, or the part of it that a rank is to have.

        Args:
            pixels_B3HW: uint8, 0 to 255, or float32, 0 to 1.
            tokens_BL: int64 token ids, start token first, 0 after the end token.
            generator: on the CPU; what is drawn from it, always for all B pairs, decides everything.
            rows: the pairs that are wanted. The others cost no work, where the kind is the paper's.

        Returns:
            Pixels, float32, 0 to 1, and tokens, of the pairs that are wanted.
        """
        if self.kind in PAPER_LEAST_AREAS:
            return self._as_in_the_paper(pixels_B3HW, tokens_BL, generator, rows)
        if pixels_B3HW.dtype == torch.uint8:
            pixels_B3HW = pixels_B3HW.float() / 255
        pixels, tokens = augment_batch(pixels_B3HW, tokens_BL, kind=self.kind, generator=generator)
        return pixels[rows], tokens[rows]

    def _as_in_the_paper(
        self, pixels_B3HW: torch.Tensor, tokens_BL: torch.Tensor, generator: torch.Generator, rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = draw_pictures(
            len(pixels_B3HW),
            pixels_B3HW.shape[-1],
            least_area=PAPER_LEAST_AREAS[self.kind],
            generator=generator,
        )
        captions = draw_captions(*tokens_BL.shape, generator=generator)
        ends_word_V, synonyms = self._on(tokens_BL.device)
        pixels = augment_pictures(pixels_B3HW[rows], pictures[rows])
        tokens = augment_captions(tokens_BL[rows], captions[rows], ends_word_V=ends_word_V, synonyms=synonyms)
        return pixels, tokens

    def _on(self, device: torch.device) -> tuple[torch.Tensor, SynonymTable | None]:
        """The tables, moved once to where captions are."""
        assert self._ends_word_V is not None
        if self._ends_word_V.device != device:
            self._ends_word_V = self._ends_word_V.to(device)
            self._synonyms = self._synonyms.to(device) if self._synonyms else None
        return self._ends_word_V, self._synonyms


def open_augmenter(kind: Augmentation, *, model: str, synonyms: Path | None = None) -> Augmenter:
    """An augmenter for the captions of a model.

    Args:
        kind: how strongly.
        model: the open_clip model whose tokenizer made the captions.
        synonyms: a table, or WordNet's folder (see synonyms.py); read only where the kind uses it.

    Raises:
        ConfigError: the tokenizer is not CLIP's, or the table cannot be read.
    """
    if kind not in PAPER_LEAST_AREAS:
        return Augmenter(kind)
    from roclip_sanitize.encoder import tokenizer_for, word_ends

    ends_word_V = torch.from_numpy(word_ends(model))
    table = None
    if synonyms is not None:
        table = SynonymTable.build(
            read_synonyms(synonyms), tokenize=tokenizer_for(model), ends_word_V=ends_word_V
        )
    return Augmenter(kind, ends_word_V=ends_word_V, synonyms=table)


def augment_batch(
    pixels_B3HW: torch.Tensor, tokens_BL: torch.Tensor, *, kind: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment one batch by a kind that needs no Augmenter.

    Args:
        pixels_B3HW: float32, 0 to 1.
        tokens_BL: int64 token ids, start token first, 0 after the end token.
        kind: how strongly; "none" returns the batch as it is.
        generator: on the CPU; what is drawn from it decides everything.

    Returns:
        Pixels and tokens of the same shapes, types and ranges.

    Raises:
        ConfigError: a kind of the paper's, which has to know where words end.
    """
    if kind in PAPER_LEAST_AREAS:
        Augmenter(kind)
    if kind == "none":
        return pixels_B3HW, tokens_BL
    pixels_B3HW = flip_some(pixels_B3HW, generator)
    if kind == "mixing":
        return mix(pixels_B3HW, generator), drop_words(tokens_BL, generator)
    pixels_B3HW = jitter(pixels_B3HW, generator)
    if kind == "strong":
        pixels_B3HW = blur_some(erase_square(crop(pixels_B3HW, generator), generator), generator)
    return pixels_B3HW, drop_words(tokens_BL, generator)


def flip_some(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures are mirrored."""
    chosen_B = moved(torch.rand(len(pixels_B3HW), generator=generator) < 0.5, pixels_B3HW.device)
    return torch.where(chosen_B.view(-1, 1, 1, 1), pixels_B3HW.flip(-1), pixels_B3HW)


def jitter(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Brightness and contrast, each by a factor of 0.7 to 1.3."""
    draw_B2 = moved(torch.rand(len(pixels_B3HW), 2, generator=generator), pixels_B3HW.device)
    factor_B2 = 1 + JITTER * (2 * draw_B2 - 1)
    bright = pixels_B3HW * factor_B2[:, 0].view(-1, 1, 1, 1)
    mean_B111 = bright.mean(dim=(1, 2, 3), keepdim=True)
    return ((bright - mean_B111) * factor_B2[:, 1].view(-1, 1, 1, 1) + mean_B111).clamp(0, 1)


def crop(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random part of the picture, of 60 to 100 % of its area, stretched to the whole."""
    batch, device = len(pixels_B3HW), pixels_B3HW.device
    draw_B3 = moved(torch.rand(batch, 3, generator=generator), device)
    scale_B = (LEAST_AREA + (1 - LEAST_AREA) * draw_B3[:, 0]).sqrt()
    theta_B23 = torch.zeros(batch, 2, 3, device=device)
    theta_B23[:, 0, 0] = theta_B23[:, 1, 1] = scale_B
    theta_B23[:, :, 2] = (2 * draw_B3[:, 1:] - 1) * (1 - scale_B)[:, None]
    grid = functional.affine_grid(theta_B23, list(pixels_B3HW.shape), align_corners=False)
    return functional.grid_sample(pixels_B3HW, grid, padding_mode="border", align_corners=False)


def erase_square(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures lose a square of 30 % a side to grey, so that no small mark can be relied on."""
    side = pixels_B3HW.shape[-1]
    square = round(side * ERASED_SIDE)
    draw_B3 = moved(torch.rand(len(pixels_B3HW), 3, generator=generator), pixels_B3HW.device)
    corner_B2 = (draw_B3[:, :2] * (side - square + 1)).long()
    axis = torch.arange(side, device=pixels_B3HW.device)
    inside_B2S = (axis >= corner_B2[..., None]) & (axis < corner_B2[..., None] + square)
    mask_BHW = inside_B2S[:, 0, :, None] & inside_B2S[:, 1, None, :] & (draw_B3[:, 2] < 0.5).view(-1, 1, 1)
    return pixels_B3HW.masked_fill(mask_BHW[:, None], 0.5)


def blur_some(pixels_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures are blurred with the separable kernel (1, 2, 1) / 4."""
    chosen_B = moved(torch.rand(len(pixels_B3HW), generator=generator) < 0.5, pixels_B3HW.device)
    taps = moved(torch.tensor(BLUR_TAPS) / sum(BLUR_TAPS), pixels_B3HW.device)
    kernel = (taps[:, None] * taps).expand(3, 1, 3, 3)
    padded = functional.pad(pixels_B3HW, (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=3)
    return torch.where(chosen_B.view(-1, 1, 1, 1), blurred, pixels_B3HW)


def drop_words(tokens_BL: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Drop a tenth of the tokens between start and end; what follows moves up, the end stays the end.

    The end is the last token that is not 0: CLIP's id 0 is also a "!" within a word.
    """
    draw_BL = moved(torch.rand(tokens_BL.shape, generator=generator), tokens_BL.device)
    place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    end_B1 = ((tokens_BL != 0) * place_L).amax(dim=1, keepdim=True)
    framed_BL = (place_L == 0) | (place_L == end_B1)
    kept_BL = (place_L <= end_B1) & (framed_BL | (draw_BL >= WORD_DROP))
    order_BL = (~kept_BL).long().argsort(dim=1, stable=True)  # kept ones first, in their order
    return torch.where(kept_BL, tokens_BL, 0).gather(1, order_BL)
