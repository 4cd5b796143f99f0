"""Both towers over a step's views: vectors of all ranks, and gradients back into the weights.

    views ─▶ towers, this rank's share ─▶ gathered over ranks ─▶ loss ─▶ back

A step whose pairs do not fit the memory at once goes through the towers in parts, twice (gradient
caching, Gao et al. 2021): first without gradients, for the vectors and through them the loss's gradient
with respect to each; then part by part, with that gradient. The loss still sees the whole step.
BatchNorm, as over ranks, sees a part at a time; its running statistics are kept in the second pass alone.

Dimension key: B pairs of the step over all ranks, H = W side in pixels, L tokens, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from roclip_sanitize.encoder import normalise_pixels
from roclip_sanitize.training.methods.contract import Features, Objective
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.settings import Precision

Batch = tuple[torch.Tensor, torch.Tensor]  # pixels (B, 3, H, W) float32 from 0 to 1, tokens (B, L) int64
Vectors = tuple[torch.Tensor, torch.Tensor]


class TwoTowers(torch.nn.Module):
    """An open_clip model whose caption tower can sit a step out."""

    def __init__(self, model: Any, precision: Precision = "float32") -> None:
        super().__init__()
        self.model = model
        self._low = precision == "bfloat16"

    def forward(self, batches: Sequence[Batch], captions_learn: bool) -> tuple[list[Vectors], torch.Tensor]:
        """Unit rows of both towers for each batch, and the scale of their products; all float32."""
        return [self._encode(*batch, captions_learn) for batch in batches], self.model.logit_scale.exp()

    def _encode(self, pixels_B3HW: torch.Tensor, tokens_BL: torch.Tensor, captions_learn: bool) -> Vectors:
        with torch.autocast(pixels_B3HW.device.type, torch.bfloat16, enabled=self._low):
            image_BD = self.model.encode_image(normalise_pixels(pixels_B3HW), normalize=True)
            with torch.set_grad_enabled(captions_learn and torch.is_grad_enabled()):
                caption_BD = self.model.encode_text(tokens_BL, normalize=True)
        return image_BD.float(), caption_BD.float()


class Engine:
    """Runs the towers forwards and backwards over steps.

    Args:
        model: an open_clip model, in training mode.
        ranks: who shares the steps.
        precision: of the products inside the towers.
        parts: how many the step's pairs go through the towers in.
        compiled: whether torch.compile makes them quicker, after a minute or two.
        some_sit_out: whether a step may leave parameters without a gradient.
    """

    def __init__(
        self,
        model: Any,
        *,
        ranks: Ranks,
        precision: Precision = "float32",
        parts: int = 1,
        compiled: bool = False,
        some_sit_out: bool = False,
    ) -> None:
        self._ranks, self._parts = ranks, parts
        self._towers = TwoTowers(model, precision)
        forward: Callable[..., Any] = self._towers
        if compiled:
            forward = torch.compile(self._towers)
        if ranks.size > 1:
            forward = torch.nn.parallel.DistributedDataParallel(
                forward,
                find_unused_parameters=some_sit_out,
            )
        self._forward = forward

    def backward(
        self,
        batches: Sequence[Batch],
        loss_of: Callable[[Sequence[Features]], Objective],
        *,
        captions_learn: bool = True,
        before: Sequence[Vectors] | None = None,
    ) -> Objective:
        """Vectors, loss, and its gradients into the weights' ``grad``.

        Args:
            batches: this rank's share of each view.
            loss_of: what the step minimises.
            captions_learn: whether the caption tower does.
            before: each view's vectors by other weights, of all ranks, to be handed on.

        Returns:
            What ``loss_of`` returned, its loss detached.
        """
        if self._parts == 1:
            vectors, scale = self._forward(batches, captions_learn)
            objective = loss_of(self._features(vectors, scale, before))
            objective.loss.backward()  # type: ignore[no-untyped-call]
            return objective
        return self._backward_in_parts(batches, loss_of, captions_learn, before)

    def _backward_in_parts(
        self,
        batches: Sequence[Batch],
        loss_of: Callable[[Sequence[Features]], Objective],
        captions_learn: bool,
        before: Sequence[Vectors] | None,
    ) -> Objective:
        parts = list(_parts(batches, self._parts))
        with torch.no_grad(), _without_running_statistics(self._towers):
            made = [self._towers(part, captions_learn) for part in parts]
        leaves = [
            tuple(torch.cat([vectors[view][side] for vectors, _ in made]).requires_grad_() for side in (0, 1))
            for view in range(len(batches))
        ]
        scale = made[0][1].clone().requires_grad_()
        objective = loss_of(self._features(leaves, scale, before))  # type: ignore[arg-type]
        objective.loss.backward()  # type: ignore[no-untyped-call]
        start = 0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            rows = slice(start, start + len(part[0][0]))
            start = rows.stop
            with contextlib.nullcontext() if last else self._unsynced():
                vectors, part_scale = self._forward(part, captions_learn)
                heads = [(part_scale, _gradient(scale) if last else torch.zeros_like(part_scale))]
                for made_here, whole in zip(vectors, leaves, strict=True):
                    heads += [
                        (vector, leaf.grad[rows])
                        for vector, leaf in zip(made_here, whole, strict=True)
                        if vector.requires_grad and leaf.grad is not None
                    ]
                torch.autograd.backward([head for head, _ in heads], [grad for _, grad in heads])
        return objective

    def _features(
        self, vectors: Sequence[Vectors], scale: torch.Tensor, before: Sequence[Vectors] | None
    ) -> list[Features]:
        return [
            Features(
                image_BD=self._ranks.gathered(image),
                caption_BD=self._ranks.gathered(caption),
                scale=scale,
                mine=self._ranks.mine,
                before=before[view] if before else None,
            )
            for view, (image, caption) in enumerate(vectors)
        ]

    def _unsynced(self) -> Any:
        """Gradients stay on this rank until the last part, which brings all of them together."""
        return self._forward.no_sync() if self._ranks.size > 1 else contextlib.nullcontext()  # type: ignore[attr-defined]


@torch.no_grad()
def encode_share(model: Any, batch: Batch, ranks: Ranks, precision: Precision = "float32") -> Vectors:
    """Vectors of a batch of which this rank has a share, of all ranks, by weights that do not learn."""
    ((image, caption),), _ = TwoTowers(model, precision)([batch], captions_learn=False)
    return ranks.collected(image), ranks.collected(caption)


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    """Zero where the loss made no use of it."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _parts(batches: Sequence[Batch], count: int) -> Iterator[list[Batch]]:
    """The batches cut alike into so many parts, none of them empty."""
    pairs = len(batches[0][0])
    edges = [pairs * number // count for number in range(count + 1)]
    for start, stop in pairwise(edges):
        if stop > start:
            yield [(pixels[start:stop], tokens[start:stop]) for pixels, tokens in batches]


@contextlib.contextmanager
def _without_running_statistics(module: torch.nn.Module) -> Iterator[None]:
    """What passes through BatchNorm meanwhile is normalised, and not remembered."""
    kinds = torch.nn.modules.batchnorm._BatchNorm
    norms = [each for each in module.modules() if isinstance(each, kinds)]
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.momentum = 0.0
    try:
        yield
    finally:
        for each, momentum in zip(norms, momenta, strict=True):
            each.momentum = momentum
