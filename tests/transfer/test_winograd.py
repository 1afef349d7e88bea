"""Winograd's convolutions are convolutions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nst_batch.transfer import winograd


@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 24), (37, 41), (3, 130), (1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_in_double_precision_it_is_the_convolution_of_the_definition(height: int, width: int, batch: int) -> None:
    x = torch.randn(batch, 5, height, width, dtype=torch.float64)
    kernel, bias = torch.randn(7, 5, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    found = winograd.convolved(x, winograd.transformed(kernel), bias)
    torch.testing.assert_close(found, functional.conv2d(x, kernel, bias, padding=1), rtol=0, atol=1e-11)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [128, 512])
def test_in_single_precision_it_rounds_little_more_than_the_definition(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, 24, 24, generator=generator).relu()
    kernel = torch.randn(channels, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
    exact = functional.conv2d(x.double(), kernel.double(), padding=1)
    found = winograd.convolved(x, winograd.transformed(kernel))
    assert float((found - exact).norm() / exact.norm()) < 1e-5


def test_it_is_taken_where_it_pays() -> None:
    large, small = torch.zeros(128, 128, 3, 3), torch.zeros(64, 128, 3, 3)
    assert winograd.pays(large, torch.zeros(1, 128, 16, 16))
    assert not winograd.pays(small, torch.zeros(1, 128, 16, 16))
    assert not winograd.pays(large, torch.zeros(1, 128, 12, 12))
    assert not winograd.pays(large.double(), torch.zeros(1, 128, 16, 16, dtype=torch.float64))
    assert not winograd.pays(torch.zeros(128, 128, 1, 1), torch.zeros(1, 128, 16, 16))
