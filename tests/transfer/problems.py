"""Small pictures and networks for the tests of the core."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from nst_batch.records import Configuration
from nst_batch.transfer import Problem, TargetImage, Targets, Vgg, random_weights
from nst_batch.transfer.random_weights import dead_leaves
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import Pooling

STYLE_LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")


@functools.cache
def weights(pooling: Pooling = "average", seed: int = 0) -> dict[str, Tensor]:
    """vgg16's, once for all tests."""
    return random_weights("vgg16", seed, pooling)


@functools.lru_cache(maxsize=2)  # in float64 one takes 230 MB
def network(pooling: Pooling = "average", dtype: torch.dtype = torch.float32) -> Vgg:
    """A vgg16 with random weights."""
    return Vgg("vgg16", weights(pooling), pooling=pooling, dtype=dtype)


@functools.lru_cache(maxsize=2)
def he_network(pooling: Pooling = "max", arch: str = "vgg16") -> Vgg:
    """With He's weights, which keep activations at their size, in float64."""
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, (out, channels) in conv_shapes(arch).items():
        kernel = torch.randn(out, channels, 3, 3, generator=generator, dtype=torch.float64)
        weights[f"{name}.weight"] = kernel * (2 / (9 * channels)) ** 0.5
        weights[f"{name}.bias"] = torch.full((out,), 0.1, dtype=torch.float64)  # what is padded shows
    return Vgg(arch, weights, pooling=pooling, dtype=torch.float64)


def targets(pooling: Pooling = "average", dtype: torch.dtype = torch.float32) -> Targets:
    """The same, ready to be optimised against."""
    return Targets(network(pooling, dtype))


@functools.cache
def picture(seed: int, side: int = 32, dtype: torch.dtype = torch.float32) -> TargetImage:
    """Dead leaves: natural enough."""
    pixels = dead_leaves(side, torch.Generator().manual_seed(seed), leaves=80).to(dtype)
    return TargetImage(key=f"{seed}/{side}", pixels=pixels)


def problem(
    content: int = 1, style: int = 2, side: int = 32, dtype: torch.dtype = torch.float32, **changes: Any
) -> Problem:
    """content block4_conv1, style block1..5_conv1, alpha 0.5, beta 5.0, unless changed."""
    values: dict[str, Any] = {
        "height": side,
        "width": side,
        "content": picture(content, side, dtype),
        "styles": (picture(style, side, dtype),),
        "content_layers": ("block4_conv1",),
        "style_layers": STYLE_LAYERS,
        "alpha": 0.5,
        "beta": 5.0,
    }
    return Problem(**(values | changes))


def problem_of(chosen: Configuration, content: TargetImage, style: TargetImage) -> Problem:
    """The problem that a configuration poses for a pair."""
    return Problem(
        height=content.pixels.shape[1],
        width=content.pixels.shape[2],
        content=content,
        styles=(style,),
        content_layers=chosen.content_layers,
        style_layers=chosen.style_layers,
        alpha=chosen.alpha,
        beta=chosen.beta,
        init=chosen.init,
        seed=chosen.seed,
    )
