"""Convolutions by sparse weights and their gradients, by torch in the dtype of what comes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

Pair = Sequence[int]


def sparse_conv_forward(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    return torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation)


def sparse_conv_input_gradient(
    dy: Tensor, weight: Tensor, input_shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    return conv2d_input(input_shape, weight, dy, stride, padding, dilation)


def dense_conv_weight_gradient(
    x: Tensor, dy: Tensor, weight_shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    return conv2d_weight(x, weight_shape, dy, stride, padding, dilation)


def sparse_conv_weight_gradient(
    x: Tensor, dy: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    dw = conv2d_weight(x, weight.shape, dy, stride, padding, dilation)
    return torch.where(weight != 0, dw, torch.zeros_like(dw))
