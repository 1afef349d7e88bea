"""Orthogonal bands of an image, each of which an optimiser gives a scale of its own.

The curvature of a style transfer differs by orders of magnitude between fine and coarse structure and between
brightness and colour, and little within an octave of one of them.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

OCTAVES = 7
"""The finest holds frequencies above a quarter of a cycle per pixel, the coarsest all below 1/128. Half octaves
gained nothing, and bands without colour axes less (losses at 128 pixels, trained weights)."""

_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # of colour, orthogonal: brightness and two hues


class Bands(Protocol):
    """Projections Π_b of vectors of D variables that are orthogonal and add up to the identity."""

    def norms(self, vectors: Tensor) -> Tensor:
        """‖Π_b v‖ of vectors, BxD: BxK."""

    def scaled(self, vectors: Tensor, scales: Tensor) -> Tensor:
        """Σ_b scale_b Π_b v: BxD, from vectors, BxD, and scales, BxK."""


class OneBand:
    """The identity: variables of which nothing is known."""

    def norms(self, vectors: Tensor) -> Tensor:
        """See `Bands.norms`; K is 1."""
        norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return norms

    def scaled(self, vectors: Tensor, scales: Tensor) -> Tensor:
        """See `Bands.scaled`."""
        return scales * vectors


class ImageBands:
    """Octaves of spatial frequency times three axes of colour, of flattened 3xHxW images."""

    def __init__(self, height: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self._size = height, width
        rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        frequency = (rows.square().unsqueeze(1) + columns.square()).sqrt().flatten()  # cycles per pixel
        octave = (-(2 * frequency).log2()).floor().clamp(0, OCTAVES - 1).long()
        twice = torch.full((height, width // 2 + 1), 2.0)  # a column stands for its mirror image too
        twice[:, 0] = 1
        if width % 2 == 0:
            twice[:, -1] = 1
        members = functional.one_hot(octave, OCTAVES) * twice.reshape(-1, 1)
        self._octave, self._members = octave.to(device), members.to(device, dtype)
        self._axes = functional.normalize(torch.tensor(_AXES, dtype=torch.float64)).to(device, dtype)

    def norms(self, vectors: Tensor) -> Tensor:
        """See `Bands.norms`; K is 3 · OCTAVES."""
        power = torch.view_as_real(self._spectrum(vectors)).square().sum(-1)
        return (power @ self._members).flatten(1).sqrt()

    def scaled(self, vectors: Tensor, scales: Tensor) -> Tensor:
        """See `Bands.scaled`."""
        by_frequency = scales.view(-1, 3, OCTAVES)[..., self._octave]
        spectrum = (self._spectrum(vectors) * by_frequency).view(len(vectors), 3, self._size[0], -1)
        planes: Tensor = torch.fft.irfft2(spectrum, s=self._size, norm="ortho").flatten(2)
        return (self._axes.T @ planes).flatten(1)

    def _spectrum(self, vectors: Tensor) -> Tensor:
        """Bx3x(H·(W/2+1)): of each colour axis."""
        planes = self._axes @ vectors.view(len(vectors), 3, -1)
        spectrum: Tensor = torch.fft.rfft2(planes.view(len(vectors), 3, *self._size), norm="ortho")
        return spectrum.flatten(2)
