"""The paper's objective written as plainly as possible, in float64: what the engine is checked against."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.records import Configuration
from nst_batch.transfer.vgg import MEAN_AND_SCALE
from nst_batch.vocabulary import layer_names

Features = dict[str, Tensor]


def features(image: Tensor, weights: Mapping[str, Tensor], chosen: Configuration) -> Features:
    """Every layer's activations, NxM (channels by positions), from float64 weights."""
    mean, scale = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in MEAN_AND_SCALE[chosen.normalization])
    x = ((image - mean) * scale).unsqueeze(0)
    found = {}
    for name in layer_names(chosen.arch):
        if name.endswith("pool"):
            x = functional.max_pool2d(x, 2, 2) if chosen.pooling == "max" else functional.avg_pool2d(x, 2, 2)
        else:
            x = torch.relu(functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1))
        found[name] = x[0].flatten(1)
    return found


def losses(own: Features, content: Features, style: Features, chosen: Configuration) -> dict[str, Tensor]:
    """Content, style and total loss of an image with features `own`."""
    content_terms, style_terms = [], []
    for layer in chosen.content_layers:
        squares = (own[layer] - content[layer]) ** 2
        content_terms.append(0.5 * squares.sum() if chosen.loss == "sum" else squares.mean())
    for layer in chosen.style_layers:
        n, m = own[layer].shape
        gram, wanted = own[layer] @ own[layer].T, style[layer] @ style[layer].T
        if chosen.loss == "sum":
            style_terms.append(((gram - wanted) ** 2).sum() / (4 * n**2 * m**2))
        else:
            style_terms.append(((gram / (n * m) - wanted / (n * m)) ** 2).mean())
    zero = torch.zeros((), dtype=torch.float64)
    content_loss = sum(content_terms, zero) / max(1, len(content_terms))
    style_loss = sum(style_terms, zero) / max(1, len(style_terms))
    return {
        "content": content_loss,
        "style": style_loss,
        "total": chosen.alpha * content_loss + chosen.beta * style_loss,
    }
