"""Weights for machines without a trained network: a function of the architecture, the pooling and a seed.

Untrained VGGs transfer style well (He, Wang and Hopcroft, "A powerful generative model using random weights",
NeurIPS 2016) if every layer passes on what it sees. The scheme is LSUV (Mishkin and Matas, "All you need is a
good init", ICLR 2016): orthogonal kernels, then layer by layer one scale and one bias that give the activations
before the ReLU mean 0 and variance 1. (A bias per channel would centre each, and then gives noise instead of
strokes.) They are calibrated on dead leaves, synthetic pictures with the edges, the occlusions and the power
spectrum of natural ones.

At last all features are multiplied by `GAIN`, which a ReLU network allows by one factor on its first kernel and
on every bias. Content loss goes with the square of the features, style loss with their fourth power, so a ratio
of alpha to beta means something only at a certain size of them. A local response normalisation, where there is one,
has a size of its own, so the kernel behind it brings the features to `GAIN` again.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.transfer.vgg import MEAN_AND_SCALE, conv_shapes, response_normalized
from nst_batch.vocabulary import NORMALIZED_AFTER, Pooling, kernel_side

GAIN = 1e4
"""Standard deviation of every layer before its ReLU. At this one alpha 0.5 and beta 5.0, the weights of the study
that this project began with, balance content at block4_conv1 with style at block1..5_conv1, as they do there."""


def random_weights(arch: str, seed: int, pooling: Pooling) -> dict[str, Tensor]:
    """Orthogonal LSUV weights, `blockB_convK.weight` (OxIxKxK) and `.bias` (O), float32, for every convolution."""
    generator = torch.Generator().manual_seed(seed)
    mean, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in MEAN_AND_SCALE["imagenet"])
    x = (torch.stack([dead_leaves(96, generator) for _ in range(4)]) - mean) * scale
    pool = functional.max_pool2d if pooling == "max" else functional.avg_pool2d
    weights: dict[str, Tensor] = {}
    block, normalized, amplified = "1", False, ["block1_conv1.weight"]
    for name, (out_channels, in_channels) in conv_shapes(arch).items():
        if name[5] != block:
            block, x = name[5], pool(x, 2)
        side = kernel_side(name, arch)
        kernel = _orthogonal(out_channels, in_channels * side**2, generator)
        kernel = kernel.view(out_channels, in_channels, side, side)
        y = functional.conv2d(x, kernel, padding=side // 2)
        weights[f"{name}.weight"] = kernel / y.std()
        weights[f"{name}.bias"] = (-y.mean() / y.std()).expand(out_channels)
        if normalized:
            amplified.append(f"{name}.weight")
        x = functional.relu(
            functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=side // 2)
        )
        if normalized := name == NORMALIZED_AFTER.get(arch):
            x = response_normalized(x * GAIN)
    return {
        name: value * (GAIN if name in amplified or name.endswith("bias") else 1) for name, value in weights.items()
    }


def dead_leaves(side: int, generator: torch.Generator, leaves: int = 400) -> Tensor:
    """3 x side x side in [0, 1]: discs of random colour, the largest first, radii with density ∝ r⁻³."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    uniform = torch.rand(leaves, 6, generator=generator)
    radii = (2**-2 + uniform[:, 0] * ((side / 2) ** -2 - 2**-2)).rsqrt().sort(descending=True).values
    centers = uniform[:, 1:3] * side
    picture = torch.full((3, side, side), 0.5)
    for radius, center, color in zip(radii, centers, uniform[:, 3:6], strict=True):
        inside = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2
        picture[:, inside] = color.view(3, 1)
    return picture


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """rows x columns with orthonormal rows or columns, whichever are fewer; uniformly distributed."""
    normal = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    matrix: Tensor = (q * r.diagonal().sign()).float()
    return matrix if rows >= columns else matrix.T.contiguous()
