"""First-order optimisers for a batch of independent problems.

B problems of D variables each are stacked as BxD. Every quantity that steers a problem (histories, step length,
acceptance, stop reason) is its own: no number ever passes from one row to another, so a problem's path does not
depend on its neighbours. Nothing here waits for the device: decisions are masks.

An optimiser proposes `point`, is told the loss and gradient there, and keeps the best point in `best`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from nst_batch.transfer.bands import Bands, OneBand
from nst_batch.vocabulary import LBFGS_HISTORY

RUNNING, CONVERGED, STALLED, DIVERGED, PLATEAU = range(5)
STOP_REASONS = ("steps", "converged", "stalled", "diverged", "plateau")
"""What a state that is still running, converged, … at the end of the budget is called."""

_ARMIJO = 1e-4
_CURVATURE = 1e-6  # of |s||y|: below this a pair says nothing about the Hessian
_MAX_REJECTIONS = 12


class Minimizer(Protocol):
    """An optimiser as the engine needs it."""

    point: Tensor
    """BxD: where to evaluate next."""
    best: Tensor
    """BxD: the point of the lowest loss so far."""
    best_loss: Tensor
    """B."""
    accepted: Tensor
    """B: whether the last evaluation was kept as the new best."""
    state: Tensor
    """B, one of RUNNING, CONVERGED, STALLED, DIVERGED, PLATEAU."""

    def update(self, loss: Tensor, gradient: Tensor) -> None:
        """Takes the loss (B) and gradient (BxD) at `point`, and moves on."""

    def select(self, rows: Tensor) -> None:
        """Keeps only the problems at these indices."""


class Lbfgs:
    """Limited-memory BFGS, one evaluation per iteration, with a backtracking safeguard.

    The two-loop recursion (Nocedal and Wright, "Numerical optimization", algorithm 7.4) is solved for a batch at
    once: either loop is a triangular system in the products of the pairs, so a step is a handful of batched
    operations however long the history is.

    Directions that the history does not span are scaled band by band (see `bands`): the initial inverse Hessian
    is H₀ = Σ_b γ_b Π_b, with γ_b the mean of ‖Π_b s‖/‖Π_b y‖ over the pairs. The usual scale, s·y/y·y of the last
    pair, is dominated by the few directions in which the objective is stiff; those the history does span, and all
    others are left with steps too short. Measured at 128 pixels, trained weights, max pooling: what one scale for
    all bands reaches after 150 evaluations, bands reach after 98 (china × swirl, block4_conv2, alpha 0.005), 116
    (astronaut × woodcut, the same), 94 (the same pictures, block4_conv1, alpha 0.5) and 83 (coffee × mosaic,
    block2_conv2, alpha 0.5). Root-mean-square ratios win less; 120 pairs are no better than 60.

    Each evaluation tries the full quasi-Newton step and keeps it if the loss fell enough (Armijo, 1e-4). If
    not, the next one goes back along the same direction: to the minimum of the parabola through what is known,
    between a tenth and a half of the last length. A strong-Wolfe search would spend a second evaluation on
    many steps, and evaluations are all that costs anything here; what Wolfe's condition would ensure, positive
    curvature, is had by leaving out the pairs that lack it.

    Nothing depends on the scale of the loss: the first step has a fixed root-mean-square length, and a problem
    stops as `converged` only when the whole predicted decrease is below the rounding of the loss.

    Args:
        start: BxD.
        history: Pairs kept per problem.
        pairs: The precision in which these are kept; None is the start's.
        first_step: Root-mean-square change of the variables in the first step.
        bands: Parts of the variables that are scaled apart.
    """

    def __init__(
        self,
        start: Tensor,
        *,
        history: int = LBFGS_HISTORY,
        pairs: torch.dtype | None = None,
        first_step: float = 0.01,
        bands: Bands | None = None,
    ) -> None:
        batch, size = start.shape
        self.point, self.best = start.clone(), start.clone()
        self.best_loss = start.new_full((batch,), torch.inf)
        self.state = torch.full((batch,), RUNNING, dtype=torch.uint8, device=start.device)
        self.accepted = torch.zeros_like(self.state, dtype=torch.bool)
        self._first_norm, self._bands = first_step * size**0.5, bands or OneBand()
        self._gradient, self._direction = torch.zeros_like(start), torch.zeros_like(start)
        self._length, self._slope = start.new_ones(batch), start.new_zeros(batch)
        self._rejections = torch.zeros_like(self.state)
        self._updates = 0
        self._s, self._y = (start.new_zeros(batch, history, size, dtype=pairs) for _ in range(2))
        self._sy = start.new_zeros(batch, history, history, dtype=torch.float64)
        num_bands = self._bands.norms(start).shape[1]
        self._scales = start.new_ones(batch, num_bands)
        self._ratios = start.new_full((batch, history, num_bands), torch.nan)

    def update(self, loss: Tensor, gradient: Tensor) -> None:
        """See `Minimizer.update`."""
        squares = _dot(gradient, gradient)
        finite = loss.isfinite() & squares.isfinite()
        first = self.best_loss.isinf()
        rounding = 4 * torch.finfo(loss.dtype).eps * self.best_loss.abs()
        enough = loss <= self.best_loss + _ARMIJO * self._length * self._slope + rounding
        accepted = finite & (first | enough) & (self.state == RUNNING)
        shorter = self._length * self._shrink(loss, finite)

        gradient = _where(accepted, gradient, self._gradient)
        point = _where(accepted, self.point, self.best)
        plain = self._first_norm * squares.clamp_min(1e-38).rsqrt()
        self._scales = _where(accepted & first, plain.unsqueeze(1), self._scales)
        self._remember(point - self.best, gradient - self._gradient)
        self.best, self._gradient, self.accepted = point, gradient, accepted
        self.best_loss = torch.where(accepted, loss, self.best_loss)
        self._rejections = torch.where(accepted, 0, self._rejections + 1)
        self._direction = _where(accepted, self._quasi_newton_direction(), self._direction)
        self._slope = _dot(self._direction, gradient)
        self._length = torch.where(accepted, 1.0, shorter)
        self._stop(finite, accepted)
        self.point = self.best + self._length.unsqueeze(1) * self._direction

    def select(self, rows: Tensor) -> None:
        """See `Minimizer.select`."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[rows])

    def _shrink(self, loss: Tensor, finite: Tensor) -> Tensor:
        """The factor that shortens a rejected step: to the minimum of the parabola, if there is one."""
        linear = self._length * self._slope
        factor = -linear / (2 * (loss - self.best_loss - linear))
        return torch.where(finite, factor.nan_to_num(0.1).clamp(0.1, 0.5), 0.1)

    def _remember(self, s: Tensor, y: Tensor) -> None:
        """Puts a pair into the oldest slot; a pair without positive curvature (or none) leaves it empty."""
        s_norm, y_norm = _dot(s, s).sqrt(), _dot(y, y).sqrt()
        useful = _dot(s, y) > _CURVATURE * s_norm * y_norm
        slot = self._updates % self._s.shape[1]
        self._updates += 1
        self._s[:, slot] = s * useful.unsqueeze(1)
        self._y[:, slot] = y * useful.unsqueeze(1)
        self._sy[:, : self._used(), slot] = self._with(self._s, self._y[:, slot])
        s_norms, y_norms = self._bands.norms(s), self._bands.norms(y)
        known = (s_norms > 0) & (y_norms > 0)  # a band that a pair says nothing of takes the pair's own ratio
        ratios = torch.where(known, s_norms / y_norms, (s_norm / y_norm).unsqueeze(1))
        self._ratios[:, slot] = torch.where(useful.unsqueeze(1), ratios, torch.nan)
        scales = self._ratios.nanmean(1)
        self._scales = torch.where(scales.isnan(), self._scales, scales)

    def _used(self) -> int:
        """Slots that have been filled or left empty so far."""
        return min(self._updates, self._s.shape[1])

    def _with(self, pairs: Tensor, vector: Tensor) -> Tensor:
        """Products of one side of the pairs with a vector, BxD: a number for each slot used."""
        used = pairs[:, : self._used()]
        if pairs.dtype == vector.dtype:
            return torch.bmm(used, vector.unsqueeze(2)).squeeze(2).double()
        # One pair at a time: together they would take, in the vector's precision, what is to be saved.
        return torch.stack([_dot(pair.to(vector.dtype), vector) for pair in used.unbind(1)], 1).double()

    def _sum(self, pairs: Tensor, weights: Tensor) -> Tensor:
        """One side of the pairs, weighted: BxD."""
        used, weights = pairs[:, : self._used()], weights.to(self.point.dtype)
        if pairs.dtype == weights.dtype:
            return torch.bmm(weights.unsqueeze(1), used).squeeze(1)
        total = torch.zeros_like(self.point)
        for weight, pair in zip(weights.unbind(1), used.unbind(1), strict=True):
            total.addcmul_(weight.unsqueeze(1), pair)
        return total

    def _quasi_newton_direction(self) -> Tensor:
        """−H·g, or a plain step of the first step's length where that would not descend."""
        used = self._used()
        oldest = self._updates % used  # rolled to the front: indices would be copied to the device at every step
        sy = self._sy[:, :used, :used].roll((-oldest, -oldest), (1, 2))
        diagonal = sy.diagonal(dim1=1, dim2=2)
        r = sy.triu() + torch.diag_embed((diagonal == 0).double())  # an empty slot: a row of the identity
        right = self._with(self._s, self._gradient).roll(-oldest, 1)
        a = torch.linalg.solve_triangular(r, right.unsqueeze(2), upper=True).squeeze(2)
        rest = self._gradient - self._sum(self._y, a.roll(oldest, 1))
        scaled = self._bands.scaled(rest, self._scales)
        right = diagonal * a - self._with(self._y, scaled).roll(-oldest, 1)
        b = torch.linalg.solve_triangular(r.transpose(1, 2), right.unsqueeze(2), upper=False).squeeze(2)
        direction = -(scaled + self._sum(self._s, b.roll(oldest, 1)))
        slope = _dot(direction, self._gradient)
        plain = self._first_norm * _dot(self._gradient, self._gradient).clamp_min(1e-38).rsqrt()
        return _where(slope < 0, direction, -plain.unsqueeze(1) * self._gradient)

    def _stop(self, finite: Tensor, accepted: Tensor) -> None:
        promised = -self._slope <= torch.finfo(self._slope.dtype).eps * self.best_loss.abs()
        hopeless = self._rejections > _MAX_REJECTIONS
        never = self.best_loss.isinf()
        state = torch.where(accepted & promised, CONVERGED, RUNNING)
        state = torch.where(hopeless, STALLED, state)
        state = torch.where((never | hopeless) & ~finite, DIVERGED, state).to(self.state.dtype)
        self.state = torch.where(self.state == RUNNING, state, self.state)


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) per problem; `learning_rate` is the step in units of the variables."""

    def __init__(self, start: Tensor, *, learning_rate: float) -> None:
        self.point, self.best = start.clone(), start.clone()
        self.best_loss = start.new_full((len(start),), torch.inf)
        self.state = torch.full((len(start),), RUNNING, dtype=torch.uint8, device=start.device)
        self.accepted = torch.zeros_like(self.state, dtype=torch.bool)
        self.learning_rate, self._step = learning_rate, 0
        self._mean, self._square = torch.zeros_like(start), torch.zeros_like(start)

    def update(self, loss: Tensor, gradient: Tensor) -> None:
        """See `Minimizer.update`."""
        self._step += 1
        finite = loss.isfinite() & _dot(gradient, gradient).isfinite()
        running = self.state == RUNNING
        self.accepted = finite & running & (loss < self.best_loss)
        self.best = _where(self.accepted, self.point, self.best)
        self.best_loss = torch.where(self.accepted, loss, self.best_loss)
        gradient = _where(finite, gradient, torch.zeros_like(gradient))
        self._mean = self._mean.lerp(gradient, 0.1)
        self._square = self._square.lerp(gradient.square(), 0.001)
        mean, square = self._mean / (1 - 0.9**self._step), self._square / (1 - 0.999**self._step)
        # No epsilon of the usual size: it would set a scale for the loss.
        step = self.learning_rate * mean / square.sqrt().clamp_min(1e-30)
        vanished = _dot(gradient, gradient) == 0
        state = torch.where(finite, torch.where(vanished, CONVERGED, RUNNING), DIVERGED).to(self.state.dtype)
        self.state = torch.where(running, state, self.state)
        self.point = self.point - step * (self.state == RUNNING).unsqueeze(1)

    def select(self, rows: Tensor) -> None:
        """See `Minimizer.select`."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[rows])


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Row by row: B."""
    products: Tensor = torch.linalg.vecdot(left, right)
    return products


def _where(rows: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`left` in these rows (B, bool), `right` in the others."""
    return torch.where(rows.unsqueeze(1), left, right)
