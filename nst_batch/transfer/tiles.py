"""The objective of one image that is too large for all of its activations: the same losses and gradient, in strips.

A first pass goes through the network block by block, in strips of rows (`transfer.strips`), keeps what each block
was fed, and adds up the Gram matrices and content losses. With these known, a second pass goes back: each strip's
activations are computed again, the gradients of the losses and of the block behind are put in at the strip's own
rows, and what they come to at the block's input is added up where the halos of strips overlap. That is exact,
because a gradient is linear in these contributions.

A block of a single strip keeps its activations from the first pass and is not computed again. A step through
block5_conv1 thus costs 1.17 times the convolutions of the whole if the first two blocks are in strips, 1.5 times
if all are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nst_batch.transfer.losses import (
    CONTENT,
    IMAGE,
    STYLE,
    TERMS,
    Term,
    gram_factor,
    gram_loss,
    gram_matrix,
    gram_pull,
    mean_gram,
)
from nst_batch.transfer.objective import Evaluation
from nst_batch.transfer.problem import Problem, Variables
from nst_batch.transfer.strips import Block, Strip, blocks, pass_through, strip_features
from nst_batch.transfer.targets import Targets
from nst_batch.vocabulary import Loss


@dataclass(frozen=True, slots=True)
class _Tap:
    """A term's part at one layer of the network."""

    layer: str
    column: int
    term: Term
    share: float
    target: Tensor
    part: Any
    """See `Targets.part`."""


@dataclass(slots=True)
class _Pass:
    """What the first pass leaves to the second."""

    terms: Tensor
    """T: the losses so far."""
    inputs: list[Tensor] = field(default_factory=list)
    """What each block was fed."""
    kept: dict[Block, tuple[Tensor | None, Tensor]] = field(default_factory=dict)
    """Of the blocks that are not computed again: the output and the weighted losses, both with their graph."""
    pulls: dict[str, Tensor] = field(default_factory=dict)
    """By layer in strips, A of the weighted style loss's gradient (`losses.gram_pull`): 1xNxN or 1xRxNxN."""


class TiledObjective:
    """The losses of one problem as a function of its image, as `Objective` has them.

    Args:
        targets, convention: See `Objective`.
        problems: One.
        tile: Rows that are computed together, at each block's own resolution.

    Raises:
        ValueError: More than one problem, or a term that cannot be computed in strips.
    """

    def __init__(self, targets: Targets, problems: Sequence[Problem], convention: Loss, *, tile: int) -> None:
        if len(problems) != 1:
            raise ValueError(f"expected one problem to be solved in strips, found {len(problems)}")
        [problem] = problems
        self.network, self.problems, self.convention = targets.network, problems, convention
        self.variables = Variables(problems, self.network.device, self.network.exact_dtype)
        weights = [term.weight(problem) for term in TERMS]
        self._weights = torch.tensor(weights, device=self.network.device, dtype=self.network.exact_dtype)
        self._taps: dict[str, list[_Tap]] = {}
        for column, term in enumerate(TERMS):
            shares = term.layers(problem)
            if IMAGE not in shares and shares and term not in (CONTENT, STYLE):
                raise ValueError(f"the {term.name} loss cannot be computed in strips")
            wanted = targets.wanted(term, problem)
            for layer, share in shares.items():
                target, part = wanted.get(layer, self._weights), targets.part(term, problem, layer)
                tap = _Tap(layer, column, term, share, target, part)
                self._taps.setdefault(layer, []).append(tap)
        self._blocks = blocks(self.network.layers, problem.layers, problem.height, tile)

    def __call__(self, images: Tensor) -> Evaluation:
        """At a 1x3xHxW image; without gradients."""
        with torch.no_grad():
            return self._evaluation(self._first_pass(images, keep=False).terms)

    def with_gradient(self, points: Tensor) -> tuple[Evaluation, Tensor]:
        """At the variables of an image, 1xD: the losses, and the gradient of the total, 1xD."""
        image = self.variables.images(points.detach())
        found = self._first_pass(image, keep=True)
        gradient = self._second_pass(found, image)
        for tap in self._taps.get(IMAGE, ()):
            own = image.clone().requires_grad_()
            loss = tap.term.loss(own, tap.target, self.convention, tap.part) * tap.share * self._weights[tap.column]
            gradient += torch.autograd.grad(loss.sum(), own)[0]
        return self._evaluation(found.terms), self.variables.gradient(gradient)

    def _evaluation(self, terms: Tensor) -> Evaluation:
        return Evaluation(terms.unsqueeze(0), (terms * self._weights).sum().unsqueeze(0))

    def _first_pass(self, image: Tensor, *, keep: bool) -> _Pass:
        found = _Pass(self._weights.new_zeros(len(TERMS)))
        with torch.no_grad():
            for tap in self._taps.get(IMAGE, ()):
                found.terms[tap.column] += (
                    tap.term.loss(image, tap.target, self.convention, tap.part)[0] * tap.share
                )
        x: Tensor | None = image
        for block in self._blocks:
            assert x is not None
            x = self._keep(block, x, found) if keep and len(block.strips) == 1 else self._measure(block, x, found)
        return found

    def _keep(self, block: Block, x: Tensor, found: _Pass) -> Tensor | None:
        """Passes through a block of one strip, with the graph that its gradient needs."""
        x = x.detach().requires_grad_()
        found.inputs.append(x)
        total = self._weights.new_zeros(())

        def visit(layer: str, features: Tensor, _: Strip) -> None:
            nonlocal total
            for tap in self._taps.get(layer, ()):
                loss = tap.term.loss(features, tap.target, self.convention, tap.part)[0] * tap.share
                found.terms[tap.column] += loss.detach()
                total = total + loss * self._weights[tap.column]

        with torch.enable_grad():
            output = pass_through(self.network, block, x, visit)
        found.kept[block] = output, total
        return None if output is None else output.detach()

    def _measure(self, block: Block, x: Tensor, found: _Pass) -> Tensor | None:
        """Passes through a block in strips, adding up its losses."""
        found.inputs.append(x)
        strips: dict[str, list[tuple[Tensor, float]]] = {}

        def visit(layer: str, features: Tensor, strip: Strip) -> None:
            for tap in self._taps.get(layer, ()):
                if tap.term is STYLE:
                    strips.setdefault(layer, []).append(_gram(tap, features, block, strip))
                    positions[layer] = features.shape[3] * block.num_rows(layer)
                else:
                    loss, weight = self._content(tap, features, block, strip)
                    found.terms[tap.column] += loss[0] * weight

        positions: dict[str, int] = {}
        with torch.no_grad():
            output = pass_through(self.network, block, x, visit)
            for layer, parts in strips.items():
                [tap] = (tap for tap in self._taps[layer] if tap.term is STYLE)
                difference = mean_gram(*zip(*parts, strict=True)) - tap.target
                factor = gram_factor(difference.shape[-1], self.convention) * tap.share
                found.terms[tap.column] += gram_loss(difference, factor, tap.part)[0]
                found.pulls[layer] = difference * (self._weights[tap.column] * (4 * factor / positions[layer]))
        return output

    def _content(self, tap: _Tap, own: Tensor, block: Block, strip: Strip) -> tuple[Tensor, float]:
        """A strip's content loss, and what it weighs in the whole image's."""
        rows = strip.rows(tap.layer)
        part = None if tap.part is None else tap.part[rows]
        loss = tap.term.loss(own, tap.target[:, :, rows], self.convention, part)
        return loss, tap.share * (_share(block, strip, tap.layer) if self.convention == "mean" else 1.0)

    def _second_pass(self, found: _Pass, image: Tensor) -> Tensor:
        """The gradient of the content and style losses: 1x3xHxW."""
        gradient: Tensor | None = None
        for block in reversed(self._blocks):
            x = found.inputs.pop()
            if block in found.kept:
                output, total = found.kept.pop(block)
                pulled = [(total, torch.ones_like(total))] if total.requires_grad else []
                if output is not None and gradient is not None:
                    pulled.append((output, gradient))
                gradient = _pull(pulled, x)
            else:
                gradient = self._computed_again(block, x, found, gradient)
        return torch.zeros_like(image) if gradient is None else gradient

    def _computed_again(self, block: Block, x: Tensor, found: _Pass, behind: Tensor | None) -> Tensor:
        """The gradient at a block's input, from its own losses and the gradient behind it."""
        gradient = torch.zeros_like(x)
        for strip in block.strips:
            seen = x[:, :, strip.seen].detach().requires_grad_()
            pulled: list[tuple[Tensor, Tensor]] = []
            with torch.enable_grad():
                for layer, own in strip_features(self.network, block, seen, strip):
                    for tap in self._taps.get(layer, ()):
                        if tap.term is STYLE:
                            guidance = tap.part and tap.part.strip(strip.rows(layer))
                            pulled.append((own, gram_pull(own.detach(), found.pulls[layer], guidance)))
                        else:
                            loss, weight = self._content(tap, own, block, strip)
                            pulled.append((loss, self._weights[tap.column].expand(1) * weight))
                    if layer == block.pooling and behind is not None:
                        pulled.append((own, behind[:, :, strip.rows(layer)]))
            gradient[:, :, strip.seen] += _pull(pulled, seen)
        return gradient


def _gram(tap: _Tap, features: Tensor, block: Block, strip: Strip) -> tuple[Tensor, float]:
    """A strip's Gram matrix, and its share of the whole one. Guided ones are by the whole region's area already."""
    if tap.part is None:
        return gram_matrix(features), _share(block, strip, tap.layer)
    return gram_matrix(features, tap.part.strip(strip.rows(tap.layer))), 1.0


def _share(block: Block, strip: Strip, layer: str) -> float:
    """The part of a layer's positions that is in a strip."""
    return strip.num_rows(layer) / block.num_rows(layer)


def _pull(pulled: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """The gradient at x, from tensors that depend on it and the gradients at these."""
    outputs, gradients = zip(*pulled, strict=True)
    (gradient,) = torch.autograd.grad(outputs, x, gradients)
    return gradient
