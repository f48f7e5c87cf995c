"""Refuse bad arguments before they reach an op: <op>: expected <what>, got <value>; <the way out>."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MAX_ELEMENTS = 2**31 - 4096  # csrc/base/tensor.h: 32-bit indices
MAX_GEOMETRY = 2**29  # csrc/base/conv_args.h: sums of a few fit 32 bits
ORDERS = ("magnitude", "value")


def check_tensor(op: str, name: str, value: object, *, dtypes: Sequence[torch.dtype]) -> Tensor:
    """A strided tensor of one of these dtypes on a CPU, CUDA or meta device, small enough for 32-bit indices."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        allowed = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        got = str(value.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: expected {name} of dtype {allowed}, got {got}; convert it with .to(...)")
    if value.layout is not torch.strided or value.is_nested:
        got = "a nested one" if value.is_nested else f"layout {value.layout}"
        raise TypeError(f"{op}: expected a dense {name}, got {got}; use .to_dense() or .to_padded_tensor(0)")
    if value.device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"{op}: expected {name} on cpu or cuda, got {value.device}")
    if value.numel() > MAX_ELEMENTS:
        raise ValueError(f"{op}: expected {name} of fewer than 2^31 elements, got {value.numel()}; split the layer")
    return value


def check_same_device(op: str, name: str, value: Tensor, other: str, like: Tensor) -> None:
    """Both tensors on one device."""
    if value.device != like.device:
        raise ValueError(f"{op}: expected {name} on {like.device} like {other}, got {value.device}; use .to()")


def check_k(op: str, k: object, n: int) -> int:
    """An int in [0, n]: how many are kept."""
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"{op}: expected k to be an int, got {type(k).__name__}; hn.nn.TopK takes a density")
    if not 0 <= k <= n:
        raise ValueError(f"{op}: expected k in [0, {n}], got {k}")
    return k


def check_choice(op: str, name: str, value: object, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(f"{op}: expected {name} to be {' or '.join(map(repr, allowed))}, got {value!r}")
    return value


def check_geometry(op: str, stride: object, padding: object, dilation: object) -> None:
    """Numbers of a convolution, each a pair or the name of a padding, small enough for every library below."""
    for name, pair, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        right = isinstance(pair, str) or len(pair) == 2
        for n in () if isinstance(pair, str) else pair:
            right = right and isinstance(n, int) and least <= n <= MAX_GEOMETRY
        if not right:
            raise ValueError(f"{op}: expected {name} to be two ints in [{least}, 2^29], got {tuple(pair)}")


def check_counts(owner: str, counts: Mapping[str, int]) -> None:
    """Whole numbers of at least 1."""
    for name, n in counts.items():
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{owner}: expected {name} to be a whole number of at least 1, got {n!r}")


def check_seed(op: str, name: str, value: object, bits: int) -> int:
    """A non-negative int of at most `bits` bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{op}: expected {name} to be an int, got {type(value).__name__}")
    if not 0 <= value < 2**bits:
        raise ValueError(f"{op}: expected {name} in [0, 2^{bits}), got {value}")
    return value


def is_channels_last(t: Tensor) -> bool:
    """Whether the memory of `t` is OHWI and not OIHW as well (1x1 kernels and single channels are both)."""
    return t.dim() == 4 and not t.is_contiguous() and t.is_contiguous(memory_format=torch.channels_last)


def check_like(op: str, name: str, value: object, like: Tensor, dtype: torch.dtype, *, other: str = "scores") -> Tensor:
    """A tensor of this dtype with the shape, device and memory layout of `like`, which is called `other`."""
    t = check_tensor(op, name, value, dtypes=(dtype,))
    check_same_device(op, name, t, f"the {other}", like)
    if t.shape != like.shape:
        raise ValueError(f"{op}: expected {name} of shape {tuple(like.shape)} like the {other}, got {tuple(t.shape)}")
    if is_channels_last(t) != is_channels_last(like) or not (t.is_contiguous() or is_channels_last(t)):
        raise ValueError(
            f"{op}: expected {name} in the memory layout of the {other}, got strides {t.stride()} "
            f"for {like.stride()}; make it with torch.empty_like({other})"
        )
    return t


def check_plane(op: str, name: str, value: object, like: Tensor, *, other: str = "scores") -> Tensor:
    """One bit an element of `like`, which is called `other`: uint8 [ceil(n / 8)]."""
    t = check_tensor(op, name, value, dtypes=(torch.uint8,))
    check_same_device(op, name, t, f"the {other}", like)
    size = (like.numel() + 7) // 8
    if t.shape != (size,) or not t.is_contiguous():
        raise ValueError(f"{op}: expected {name} of shape ({size},), one bit a weight, got {tuple(t.shape)}")
    return t


def dense(t: Tensor) -> Tensor:
    """`t` itself when its memory is contiguous or channels_last, else a contiguous copy of equal values."""
    last = torch.channels_last
    return t if t.is_contiguous() or (t.dim() == 4 and t.is_contiguous(memory_format=last)) else t.contiguous()


def in_layout(t: Tensor, channels_last: bool) -> Tensor:
    """`t` with OHWI or OIHW memory; no copy when it is so already."""
    return t.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
