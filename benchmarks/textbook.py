"""The program that the engine is measured against: what neural-style-pt and the tutorials do.

One image, plain autograd modules, pixel values from 0 to 255, `torch.optim.LBFGS` with its fixed step and 100
pairs, no tolerance that stops it early. Layers, weights and losses are those of the problem (the `sum` convention).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nst_batch.transfer import Problem, Vgg, initial_image
from nst_batch.transfer.vgg import MEAN_AND_SCALE
from nst_batch.vocabulary import layer_names


@dataclass(frozen=True, slots=True)
class Trace:
    """What one optimisation went through."""

    losses: list[float]
    """The best total loss so far after each evaluation."""
    seconds: float
    """For all evaluations, by `working_seconds`."""


def working_seconds(device: torch.device) -> float:
    """What the process's processors have worked; beside a GPU the clock, once that has done all it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class PlainNetwork(nn.Module):
    """VGG-16 up to the deepest layer that is asked for, as torchvision builds it."""

    def __init__(self, weights: Mapping[str, Tensor], like: Vgg, deepest: str) -> None:
        super().__init__()
        names = layer_names(like.arch)
        self.names, self.like = names[: names.index(deepest) + 1], like
        self.blocks = nn.ModuleDict()
        for name in self.names:
            if name.endswith("pool"):
                self.blocks[name] = nn.MaxPool2d(2) if like.pooling == "max" else nn.AvgPool2d(2)
                continue
            kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
            conv.weight.data, conv.bias.data = kernel.clone(), bias.clone()  # type: ignore[union-attr]
            self.blocks[name] = nn.Sequential(conv, nn.ReLU())
        self.requires_grad_(False).to(like.device)
        mean, scale = MEAN_AND_SCALE[like.normalization]
        self.mean, self.scale = (
            torch.tensor(values, device=like.device).view(1, 3, 1, 1) for values in (mean, scale)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Every layer's activations of a 1x3xHxW image with values from 0 to 255."""
        x, found = (image / 255 - self.mean) * self.scale, {}
        for name in self.names:
            x = self.blocks[name](x)
            found[name] = x
        return found


def gram(features: Tensor) -> Tensor:
    """F·Fᵀ / M."""
    rows = features.flatten(2).squeeze(0)
    return rows @ rows.T / rows.shape[1]


def textbook(
    weights: Mapping[str, Tensor], like: Vgg, problem: Problem, evaluations: int, search: str | None = None
) -> Trace:
    """Optimises one image the usual way.

    Args:
        weights, like: The network, and its pooling, normalisation and device.
        search: torch's `line_search_fn`; the tutorials leave it out.
    """
    network = PlainNetwork(weights, like, max(problem.layers, key=like.layers.index))
    assert problem.content
    with torch.no_grad():
        content, painted = (
            network(picture.pixels.to(like.device).unsqueeze(0) * 255)
            for picture in (problem.content, problem.styles[0])
        )
        style = {name: gram(found) for name, found in painted.items()}
    image = (initial_image(problem, like.device).unsqueeze(0) * 255).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], max_iter=evaluations, max_eval=evaluations, history_size=100, tolerance_grad=-1,
        tolerance_change=-1, line_search_fn=search,
    )  # fmt: skip
    losses: list[float] = []
    started = working_seconds(like.device)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = network(image)
        terms = [(found[name] - content[name]).square().sum() / 2 for name in problem.content_layers]
        styles = [
            (gram(found[name]) - style[name]).square().sum() / (4 * len(style[name]) ** 2)
            for name in problem.style_layers
        ]
        loss = problem.alpha * torch.stack(terms).mean() + problem.beta * torch.stack(styles).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(min(float(loss.detach()), losses[-1] if losses else float("inf")))
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    seconds = working_seconds(like.device) - started
    losses += losses[-1:] * (evaluations - len(losses))
    return Trace(losses[:evaluations], seconds)
