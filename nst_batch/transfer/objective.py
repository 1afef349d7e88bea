"""What is minimised: the losses of a batch of problems, and their gradient, as a function of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.transfer.losses import IMAGE, TERMS, Term
from nst_batch.transfer.problem import Problem, Variables
from nst_batch.transfer.regions import Guidance
from nst_batch.transfer.targets import Targets
from nst_batch.vocabulary import Loss


class Evaluation(NamedTuple):
    """The objective at a batch of images."""

    terms: Tensor
    """BxT, unweighted, in the order of `losses.TERMS`."""
    total: Tensor
    """B: the weighted sum."""


class _Group(NamedTuple):
    """Neighbours in the batch with the same regions."""

    num_images: int
    target: Tensor
    part: Guidance | Tensor | None
    """See `Targets.part`."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One layer's part in one of the terms."""

    layer: str
    rows: Tensor | slice
    shares: Tensor
    groups: list[_Group]


class Objective:
    """The losses of a batch of problems as a function of their images.

    Args:
        targets: Where the targets come from; its network computes the features.
        problems: Ordered deepest first (see `Vgg.features`).
        convention: `sum` or `mean`.
    """

    def __init__(self, targets: Targets, problems: Sequence[Problem], convention: Loss) -> None:
        self.network, self.problems, self.convention = targets.network, problems, convention
        self.variables = Variables(problems, self.network.device, self.network.exact_dtype)
        self._targets = targets
        self._parts = [(term, self._parts_of(term)) for term in TERMS]
        self._weights = self._column([[term.weight(problem) for term in TERMS] for problem in problems])

    def __call__(self, images: Tensor) -> Evaluation:
        """At Bx3xHxW images; differentiable."""
        features = self.network.features(images, [problem.layers for problem in self.problems]) | {IMAGE: images}
        terms = torch.stack([self._term(term, parts, features) for term, parts in self._parts], 1)
        return Evaluation(terms, (terms * self._weights).sum(1))

    def with_gradient(self, points: Tensor) -> tuple[Evaluation, Tensor]:
        """At the variables of images, BxD: the losses, and the gradient of each image's total, BxD."""
        images = self.variables.images(points.detach()).requires_grad_()
        found = self(images)
        (gradient,) = torch.autograd.grad(found.total.sum(), images)
        return Evaluation(found.terms.detach(), found.total.detach()), self.variables.gradient(gradient)

    def _term(self, term: Term, parts: Sequence[_Part], features: dict[str, Tensor]) -> Tensor:
        total = features[IMAGE].new_zeros(len(self.problems))
        for part in parts:
            losses = [
                term.loss(own, group.target, self.convention, group.part)
                for own, group in zip(_split(_of(features[part.layer], part.rows), part), part.groups, strict=True)
            ]
            total = _added(total, part.rows, torch.cat(losses) * part.shares)
        return total

    def _parts_of(self, term: Term) -> list[_Part]:
        shares = [term.layers(problem) for problem in self.problems]
        wanted = [self._targets.wanted(term, problem) for problem in self.problems]
        layers = sorted({layer for own in shares for layer in own}, key=(*self.network.layers, IMAGE).index)
        found = []
        for layer in layers:
            rows = [row for row, own in enumerate(shares) if layer in own]
            first = rows[-1] == len(rows) - 1
            found.append(
                _Part(
                    layer,
                    slice(len(rows)) if first else torch.tensor(rows, device=self.network.device),
                    self._column([shares[row][layer] for row in rows]),
                    self._groups(term, layer, [(self.problems[row], wanted[row].get(layer)) for row in rows]),
                )
            )
        return found

    def _groups(self, term: Term, layer: str, posed: Sequence[tuple[Problem, Tensor | None]]) -> list[_Group]:
        """From problems and their targets at a layer."""
        parts = [self._targets.part(term, problem, layer) for problem, _ in posed]
        targets = [self._column([]) if target is None else target for _, target in posed]
        found = []
        for _, rows in groupby(range(len(posed)), key=lambda row: id(parts[row])):
            first, *rest = rows
            found.append(_Group(1 + len(rest), _stacked([targets[row] for row in (first, *rest)]), parts[first]))
        return found

    def _column(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, device=self.network.device, dtype=self.network.exact_dtype)


def _stacked(targets: Sequence[Tensor]) -> Tensor:
    """One target for all where they are the same one (a grid on one pair), else one for each."""
    same = all(target is targets[0] for target in targets)
    return targets[0] if same else torch.cat(list(targets))


def _of(features: Tensor, rows: Tensor | slice) -> Tensor:
    """These rows; all of them as they are, because the gradient of a slice is a copy into zeros."""
    return features if isinstance(rows, slice) and rows.stop == len(features) else features[rows]


def _split(features: Tensor, part: _Part) -> Sequence[Tensor]:
    """By groups; in one call, because the gradient of that is a single copy."""
    counts = [group.num_images for group in part.groups]
    return torch.split_with_sizes(features, counts) if len(counts) > 1 else [features]


def _added(total: Tensor, rows: Tensor | slice, values: Tensor) -> Tensor:
    if isinstance(rows, slice):
        return total + functional.pad(values, (0, len(total) - len(values)))
    return total.index_add(0, rows, values)
