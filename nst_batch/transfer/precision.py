"""Which arithmetic a device computes in: the fastest that keeps the final loss, or the one that was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.records import Configuration
from nst_batch.transfer.targets import Targets
from nst_batch.transfer.vgg import Vgg
from nst_batch.vocabulary import Normalization, Pooling, Precision

_WORTH = 2.0  # times as fast a step in bfloat16 has to be
_PROBE_SIDE = 192  # pixels
"""Far from either kind of processor, so that every worker decides alike: steps of this size were measured as 1.3
times as fast with AVX-512's bfloat16 products, and as three times with AMX. (At 96 pixels, where Winograd saves
float32 little, the former are 1.8 times as fast.)"""
_PROBED: dict[str, Precision] = {}  # by architecture: a worker asks its processor once


def build_targets(
    arch: str,
    weights: Mapping[str, Tensor],
    *,
    pooling: Pooling,
    normalization: Normalization,
    device: torch.device,
    precision: Precision,
) -> Targets:
    """A network in the precision that `device` is to compute in; this also sets how the process multiplies.

    Args:
        arch, weights, pooling, normalization, device: As `Vgg` has them.
        precision: auto is tf32 on a GPU, and on a CPU bfloat16 where a probe of the network finds it faster, else
            float32. (On a CPU with AMX its steps were measured as three times as fast, and final losses judged in
            float32 within 0.1 % of float32's; without such units it is slower.) tf32 on a CPU is float32.

    Returns:
        Targets whose losses are judged in float32 at the end, whatever they are computed in.
    """

    def network(dtype: torch.dtype) -> Vgg:
        return Vgg(arch, weights, pooling=pooling, normalization=normalization, device=device, dtype=dtype)

    if precision == "auto":
        precision = "tf32" if device.type == "cuda" else _fastest(arch, network)
    tf32 = precision == "tf32" and device.type == "cuda"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    if precision == "bfloat16":
        return Targets(network(torch.bfloat16), judge=network(torch.float32))
    return Targets(network(torch.float32))


def targets_under(chosen: Configuration, weights: Mapping[str, Tensor], device: torch.device) -> Targets:
    """The network that a configuration names, with these weights, as `build_targets` makes it."""
    return build_targets(
        chosen.arch,
        weights,
        pooling=chosen.pooling,
        normalization=chosen.normalization,
        device=device,
        precision=chosen.precision,
    )


def precision_used(targets: Targets) -> Precision:
    """What the features of these targets are computed in."""
    network = targets.network
    if network.dtype == torch.bfloat16:
        return "bfloat16"
    return "tf32" if network.device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "float32"


def _fastest(arch: str, network: Callable[[torch.dtype], Vgg]) -> Precision:
    """bfloat16 or float32 on this processor. One convolution decides where bfloat16 is out of the question."""
    if arch not in _PROBED:
        single = [_seconds(partial(_convolution, dtype)) for dtype in (torch.float32, torch.bfloat16)]
        faster = single[0] > _WORTH * single[1] and _faster_step(network)
        _PROBED[arch] = "bfloat16" if faster else "float32"
    return _PROBED[arch]


def _convolution(dtype: torch.dtype) -> None:
    x = torch.ones(1, 64, 48, 48, dtype=dtype).to(memory_format=torch.channels_last)
    functional.conv2d(x, torch.ones(64, 64, 3, 3, dtype=dtype).to(memory_format=torch.channels_last), padding=1)


def _faster_step(network: Callable[[torch.dtype], Vgg]) -> bool:
    """Whether the whole network, forward and backward, is worth computing in bfloat16."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        vgg, image = network(dtype), torch.rand(1, 3, _PROBE_SIDE, _PROBE_SIDE)

        def step(vgg: Vgg = vgg, image: Tensor = image) -> None:
            x = image.clone().requires_grad_()
            deep = vgg.features(x, [["block5_conv1"]])["block5_conv1"]
            torch.autograd.grad(deep.float().sum(), x)

        seconds.append(_seconds(step))
    return seconds[0] > _WORTH * seconds[1]


def _seconds(call: Callable[[], None]) -> float:
    """Of the quickest of three calls, after one in which the libraries prepare themselves."""
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times[1:])
