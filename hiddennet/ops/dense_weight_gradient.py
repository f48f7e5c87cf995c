"""dense_conv_weight_gradient: the weight gradient of a float32 convolution, best on small maps of many channels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.conv_checks import Pair, check_maps, check_sizes, last
from hiddennet.ops.fakes import register_fake

_weight_gradient = torch.ops.hiddennet.dense_conv_weight_gradient.default


@register_fake("dense_conv_weight_gradient")
def _(x, dy, weight_shape, stride, padding, dilation, channels_last) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(weight_shape, dtype=torch.float32, device=x.device, memory_format=layout)


def dense_conv_weight_gradient(
    x: Tensor,
    dy: Tensor,
    weight_shape: Sequence[int],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    *,
    channels_last: bool = True,
) -> Tensor:
    """Return `torch.nn.grad.conv2d_weight(x, weight_shape, dy, stride, padding, dilation)` for one group.

    Positions that a tap does not reach are skipped, not padded: a third of the work on 4x4 maps. Few input channels
    (the first layer) are slow: a tile holds 32 of them (AVX-512), 16 (AVX2) or 8.

    Args:
        x: float32 (N, C, H, W), on a CPU; channels_last is fastest, others are copied there.
        dy: float32 (N, O, OH, OW).
        weight_shape: (O, C, KH, KW).
        stride, padding, dilation: of the layer, (vertical, horizontal).
        channels_last: whether the result's memory is OHWI.

    Returns:
        float32 of `weight_shape`: the same bits on any number of threads.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "dense_conv_weight_gradient"
    check_maps(op, "x", x)
    check_maps(op, "dy", dy, x)
    geometry = check_sizes(op, x.shape, weight_shape, (stride, padding, dilation), dy)
    return _weight_gradient(last(x), last(dy), list(weight_shape), *geometry, bool(channels_last))
