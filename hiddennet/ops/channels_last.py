"""channels_last: maps in channels_last memory, turned by blocks where torch copies element by element."""

import torch
from torch import Tensor

from hiddennet.ops.checks import check_tensor
from hiddennet.ops.fakes import register_fake

_channels_last = torch.ops.hiddennet.channels_last.default


@register_fake("channels_last")
def _(x) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """Return `x.contiguous(memory_format=torch.channels_last)`, without a gradient.

    Args:
        x: (N, C, H, W); float32, bfloat16 or float16. Contiguous ones on a CPU are turned by our kernel.

    Raises:
        TypeError, ValueError: another dtype, layout or number of dimensions.
    """
    op = "channels_last"
    x = check_tensor(op, "x", x, dtypes=(torch.float32, torch.bfloat16, torch.float16)).detach()
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x of shape (N, C, H, W), got {tuple(x.shape)}")
    if x.device.type != "cpu" or not x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous(memory_format=torch.channels_last)
    return _channels_last(x)
