"""pack_mask, unpack_mask: masks at 1 bit a weight, in OIHW order."""

import torch
from torch import Tensor

from hiddennet.ops.checks import MAX_ELEMENTS, check_tensor, dense
from hiddennet.ops.fakes import register_fake

_pack_mask = torch.ops.hiddennet.pack_mask.default
_unpack_mask = torch.ops.hiddennet.unpack_mask.default


@register_fake("pack_mask")
def _(mask) -> Tensor:
    return torch.empty((mask.numel() + 7) // 8, dtype=torch.uint8, device=mask.device)


@register_fake("unpack_mask")
def _(bits, shape) -> Tensor:
    return torch.empty(shape, dtype=torch.bool, device=bits.device)


def pack_mask(mask: Tensor) -> Tensor:
    """Return uint8 [ceil(n / 8)]: bit i % 8 of byte i / 8 is element i in OIHW order; bits past n are 0.

    Args:
        mask: bool, any shape and memory format.

    Raises:
        TypeError: mask is no bool tensor. ValueError: 2^31 elements or more.
    """
    check_tensor("pack_mask", "mask", mask, dtypes=(torch.bool,))
    return _pack_mask(dense(mask))


def unpack_mask(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the bool mask of `shape` (contiguous) that pack_mask packed.

    Raises:
        TypeError: bits is no uint8 tensor. ValueError: its size is not ceil(n / 8).
    """
    op = "unpack_mask"
    check_tensor(op, "bits", bits, dtypes=(torch.uint8,))
    size = torch.Size(shape)
    n = size.numel()
    if n > MAX_ELEMENTS:
        raise ValueError(f"{op}: expected fewer than 2^31 elements, got shape {tuple(size)}")
    if bits.numel() != (n + 7) // 8:
        raise ValueError(f"{op}: expected {(n + 7) // 8} bytes for shape {tuple(size)}, got {bits.numel()}")
    return _unpack_mask(bits.contiguous().flatten(), list(size))
