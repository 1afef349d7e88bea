"""The VGG networks as frozen feature extractors.

Shapes: B images, C channels, H and W pixels. Images are Bx3xHxW in [0, 1]; features BxCxhxw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.transfer import winograd
from nst_batch.vocabulary import (
    CHANNELS,
    CONVS_PER_BLOCK,
    NORMALIZED_AFTER,
    Normalization,
    Pooling,
    layer_names,
)

# Mean and scale of the input, in pixel values from 0 to 1. `imagenet` is what torchvision's own training used;
# `caffe` is the original VGG's: 0 to 255 minus the mean, as in VGG16_Weights.IMAGENET1K_FEATURES.
MEAN_AND_SCALE: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (1 / 0.229, 1 / 0.224, 1 / 0.225)),
    "caffe": ((0.48235, 0.45882, 0.40784), (255.0, 255.0, 255.0)),
}


def conv_shapes(arch: str) -> dict[str, tuple[int, int]]:
    """Each convolution's output and input channels, in order."""
    shapes, channels = {}, 3
    for block, (count, width) in enumerate(zip(CONVS_PER_BLOCK[arch], CHANNELS, strict=True), 1):
        for index in range(1, count + 1):
            shapes[f"block{block}_conv{index}"] = width, channels
            channels = width
    return shapes


def response_normalized(features: Tensor) -> Tensor:
    """Local response normalisation over channels, a / (2 + 1e-4 Σ a²)^0.75 with five neighbours, BxCxhxw.

    The constants of Krizhevsky, Sutskever and Hinton (NIPS 2012), which Simonyan and Zisserman take over; PyTorch
    divides the sum by its length, so its alpha is five times theirs.
    """
    return functional.local_response_norm(features, size=5, alpha=5e-4, beta=0.75, k=2.0)


class _FrozenConv(torch.autograd.Function):
    """ReLU of a convolution whose weights are constants: backward computes the input's gradient alone.

    With stride 1 and the same size that gradient is itself a convolution, by the weights flipped and with input and
    output channels exchanged, and runs as fast as the forward one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, flipped: Tensor) -> Tensor:
        y = _convolved(x, kernel, bias).relu_()
        ctx.save_for_backward(y, flipped)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        y, flipped = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradients[0], y, 0)
        return _convolved(gradient, flipped), None, None, None


def _convolved(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """With a kernel as it is, OxIxKxK, or transformed for `winograd.convolved`, 36xIxO."""
    if kernel.dim() == 3:
        return winograd.convolved(x, kernel, bias)
    return functional.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)


class Vgg:
    """A frozen VGG that returns the activations of named layers and computes nothing beyond them.

    Args:
        arch: One of `vocabulary.Arch`.
        weights: `blockB_convK.weight` (OxIxKxK, K 3 or 1) and `.bias` (O) for every convolution that is used.
        pooling: The paper's average pooling, or the original network's maximum.
        normalization: `imagenet` or `caffe`, see `MEAN_AND_SCALE`.
        device, dtype: Where the convolutions run, and in which precision. Features come in `dtype`.
    """

    def __init__(
        self,
        arch: str,
        weights: Mapping[str, Tensor],
        *,
        pooling: Pooling = "max",
        normalization: Normalization = "imagenet",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.arch, self.pooling, self.normalization = arch, pooling, normalization
        self.device, self.dtype = torch.device(device), dtype
        self.layers = layer_names(arch)
        after = NORMALIZED_AFTER.get(arch)
        self._response_normalized = self.layers[self.layers.index(after) + 1] if after else None
        self._kernels: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # each with its bias, and flipped
        self._transformed: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # of layers that were large enough so far
        for name in conv_shapes(arch):
            if f"{name}.weight" in weights:
                kernel = weights[f"{name}.weight"].detach()
                self._kernels[name] = (
                    self._place(kernel),
                    weights[f"{name}.bias"].detach().to(self.device, dtype),
                    self._place(kernel.flip(2, 3).transpose(0, 1).contiguous()),
                )
        mean, scale = MEAN_AND_SCALE[normalization]
        self._mean, self._scale = (
            torch.tensor(values, device=self.device, dtype=self.exact_dtype).view(1, 3, 1, 1)
            for values in (mean, scale)
        )

    @property
    def exact_dtype(self) -> torch.dtype:
        """The precision of images, losses and gradients: at least float32."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype, memory_format=torch.channels_last)

    def features(self, images: Tensor, layers: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Activations after the ReLU of each conv layer, or after the pooling, that anybody asks for.

        Args:
            images: Bx3xHxW in [0, 1].
            layers: For each image the names of its layers. Images must be ordered deepest first: beyond an
                image's own deepest layer it is no longer carried along.

        Returns:
            For each layer, features of the first n images, where the n-th is the last that reaches this layer.
        """
        depths = [max((self.layers.index(name) for name in names), default=-1) for names in layers]
        if depths != sorted(depths, reverse=True):
            raise ValueError("images must be ordered by the depth of their deepest layer, deepest first")
        wanted = {name for names in layers for name in names}
        x = self.normalized(images)
        features: dict[str, Tensor] = {}
        for position, name in enumerate(self.layers[: depths[0] + 1]):
            reached = sum(depth >= position for depth in depths)
            x = self.layer(name, x[:reached] if reached < len(x) else x)
            if name in wanted:
                features[name] = x
        return features

    def normalized(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the first layer takes them."""
        return ((images - self._mean) * self._scale).to(self.dtype, memory_format=torch.channels_last)

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Activations of one layer from those of the layer before it."""
        if name == self._response_normalized:
            x = response_normalized(x)
        if name.endswith("pool"):
            pool = functional.max_pool2d if self.pooling == "max" else functional.avg_pool2d
            return pool(x, 2)
        y: Tensor = _FrozenConv.apply(x, *self._kernel(name, x))
        return y

    def _kernel(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Kernel, bias and flipped kernel for features like x."""
        kernel, bias, flipped = self._kernels[name]
        if not winograd.pays(kernel, x):
            return kernel, bias, flipped
        if name not in self._transformed:
            self._transformed[name] = winograd.transformed(kernel), bias, winograd.transformed(flipped)
        return self._transformed[name]
