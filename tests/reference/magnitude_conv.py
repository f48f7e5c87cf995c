"""An image through a convolution by magnitudes of masked weights, by torch's conv2d and autograd in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def _magnitudes(weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, weight.abs(), 0.0).double()


def magnitude_conv(x: Tensor, weight: Tensor, mask: Tensor, **geometry: Sequence[int]) -> Tensor:
    """conv2d of one image [C, H, W], float64, by |weight| where the bool mask is set; arguments as in ops."""
    return F.conv2d(x.unsqueeze(0), _magnitudes(weight, mask), **geometry).squeeze(0)


def magnitude_conv_backward(
    x: Tensor, dy: Tensor, weight: Tensor, mask: Tensor, **geometry: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient of x, gradient of the magnitudes ("slopes"), magnitudes times it ("scores")), all float64."""
    with torch.enable_grad():
        image, m = x.detach().clone().requires_grad_(), _magnitudes(weight, mask).requires_grad_()
        y = F.conv2d(image.unsqueeze(0), m, **geometry).squeeze(0)
        dx, slopes = torch.autograd.grad(y, (image, m), dy)
    return dx, slopes, slopes * m.detach()
