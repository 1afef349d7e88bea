"""Which arithmetic a device computes in: the fastest that keeps the final loss, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nst_batch.records import Configuration
from nst_batch.transfer.targets import Targets
from nst_batch.transfer.vgg import Vgg
from nst_batch.vocabulary import Normalization, Pooling, Precision


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
        precision: auto is tf32 on a GPU, and on a CPU bfloat16 where the processor has units for it, else float32.
            (At 224 pixels, trained weights, its steps were measured as 1.3 times as fast with AVX-512's units, and
            as three times with AMX; final losses, judged in float32, were 0.1 to 0.5 % above float32's.) tf32 on a
            CPU is float32.

    Returns:
        Targets whose losses are judged in float32 at the end, whatever they are computed in.
    """

    def network(dtype: torch.dtype) -> Vgg:
        return Vgg(arch, weights, pooling=pooling, normalization=normalization, device=device, dtype=dtype)

    if precision == "auto":
        precision = _best(device)
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


def _best(device: torch.device) -> Precision:
    """Without units for bfloat16, AVX-512's or AMX, a processor takes longer for it than for float32."""
    if device.type == "cuda":
        return "tf32"
    units = torch.cpu.get_capabilities()
    return "bfloat16" if units.get("avx512_bf16") or units.get("amx_bf16") else "float32"
