"""filter_nodes_: what the nodes of a wiring do in evaluation: scale and shift, ReLU, a 3x3 convolution of each map."""

import torch
from torch import Tensor

from hiddennet.ops.checks import check_same_device, check_tensor
from hiddennet.ops.fakes import register_void

_filter_nodes = torch.ops.hiddennet.filter_nodes_.default
register_void("filter_nodes_")


def filter_nodes_(out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, taps: Tensor, *, stride: int = 1) -> Tensor:
    """Write conv(ReLU(scale x + shift)) into `out`, and return `out`. No gradient.

    A node of Discovering Neural Wirings (arXiv 1906.00586), its batch norm being a scale and a shift. Equivalent to
    `F.conv2d(F.relu(scale * x + shift), taps[:, None], stride=stride, padding=1, groups=nodes)`; the order of the sum
    and its roundings are fixed, so all devices give the same bits.

    Args:
        out: float32 [N, nodes, H', W'], H' = (H - 1) // stride + 1, contiguous maps side by side: also a range of
            channels of a wider buffer.
        x: float32 [N, nodes, H, W], maps as in `out`; apart from it.
        scale, shift: float32 [nodes]. taps: float32 [nodes, 3, 3]. stride: at least 1.

    Raises:
        TypeError, ValueError, RuntimeError: anything outside what is said above.
    """
    op = "filter_nodes_"
    for name, tensor in (("out", out), ("x", x), ("scale", scale), ("shift", shift), ("taps", taps)):
        check_tensor(op, name, tensor, dtypes=(torch.float32,))
        check_same_device(op, name, tensor, "x", x)
        if torch.is_grad_enabled() and tensor.requires_grad:
            raise ValueError(f"{op}: expected tensors without gradients, got {name} with one; use torch.no_grad()")
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x of 4 dimensions [N, nodes, H, W], got shape {tuple(x.shape)}")
    if isinstance(stride, bool) or not isinstance(stride, int):
        raise TypeError(f"{op}: expected stride to be an int, got {type(stride).__name__}")
    _filter_nodes(out, x, scale.contiguous(), shift.contiguous(), taps.contiguous(), stride)
    return out
