"""3x3 convolutions by Winograd's minimal filtering, in a quarter of the multiplications.

F(4x4, 3x3) of Lavin and Gray, "Fast algorithms for convolutional neural networks" (CVPR 2016): the input is cut
into overlapping tiles of 6x6 values, one for each 4x4 outputs. A linear transform of tiles and kernels makes the
convolution 36 matrix products over the channels, and another one leads back: 36 multiplications for 16 outputs
where the definition takes 144. Rounding grows, in float32 from some 6e-7 to 2e-6 of the result (root mean square),
and in bfloat16 too far.

Both transforms are themselves products, with 36 numbers per tile, that only many channels repay. Measured on two
cores of an AMD EPYC (AVX2), against oneDNN's convolutions: 0.7 times as fast with 64 channels, 1.2 with 128, 1.8
with 256, 2.1 with 512, and 1.1 where an image has no more than 16 tiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

_OUT, _IN = 4, 6  # values along a tile's side
_TILES = 192  # that are worked through together: what they take should stay in the processor's cache
_LEAST_CHANNELS, _LEAST_TILES = 128, 16

# Of one axis, for the points 0, 1, -1, 2, -2 and infinity.
_INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)
_CONSTANT = 7  # the products at the point (1, 1): what is added there is added to each of a tile's outputs


def pays(kernel: Tensor, x: Tensor) -> bool:
    """Whether to convolve x, BxIxhxw, with an OxIxKxK kernel so: 3x3, in float32, on a CPU, and large enough.

    An image's mates in the batch do not count: it is computed alike, with them and alone.
    """
    tiles = -(-x.shape[2] // _OUT) * -(-x.shape[3] // _OUT)
    many = min(kernel.shape[:2]) >= _LEAST_CHANNELS and tiles >= _LEAST_TILES
    return many and kernel.shape[2] == 3 and x.dtype == torch.float32 and x.device.type == "cpu"


def transformed(kernel: Tensor) -> Tensor:
    """An OxIx3x3 kernel as `convolved` takes it: 36xIxO."""
    axis = torch.tensor(_KERNEL, dtype=torch.float64)
    found = torch.einsum("ai,bj,onij->abno", axis, axis, kernel.double())
    return found.flatten(0, 1).to(kernel.dtype).contiguous()


def convolved(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of x, BxIxhxw, with zeros beyond its edges: BxOxhxw, both in the channels_last layout.

    Args:
        kernel: 36xIxO, from `transformed`.
        bias: O.
    """
    batch, channels, height, width = x.shape
    down, across = -(-height // _OUT), -(-width // _OUT)
    padded = x.new_zeros(batch, _OUT * down + 2, _OUT * across + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    whole = x.new_empty(batch, down, _OUT, across, _OUT, kernel.shape[2])
    to_products, to_outputs = (_of_both_axes(axis, x.dtype) for axis in (_INPUT, _OUTPUT))
    step = max(1, _TILES // (batch * across))
    for start in range(0, down, step):
        stop = min(start + step, down)
        rows = padded[:, _OUT * start : _OUT * stop + 2]
        tiles = rows.unfold(1, _IN, _OUT).unfold(2, _IN, _OUT).permute(0, 1, 2, 4, 5, 3)
        values = torch.matmul(to_products, tiles.reshape(-1, _IN * _IN, channels))
        products = torch.bmm(values.transpose(0, 1), kernel)
        if bias is not None:
            products[_CONSTANT] += bias
        outputs = torch.matmul(to_outputs, products.transpose(0, 1))
        whole[:, start:stop] = outputs.view(batch, stop - start, across, _OUT, _OUT, -1).transpose(2, 3)
    image = whole.view(batch, _OUT * down, _OUT * across, -1)[:, :height, :width]
    return image.contiguous().permute(0, 3, 1, 2)


def _of_both_axes(axis: tuple[tuple[float, ...], ...], dtype: torch.dtype) -> Tensor:
    """The transform of a tile's rows and columns as one matrix."""
    matrix = torch.tensor(axis, dtype=dtype)
    return torch.kron(matrix, matrix)
