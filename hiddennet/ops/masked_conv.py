"""conv2d, linear: layers whose weight is made of a mask and a source on the way in.

A *plan* is one way to compute the same layer. The default is the fastest one known for the device and shape; every plan
can be forced by name and compared.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops import conv_ways
from hiddennet.ops.checks import check_choice, check_geometry
from hiddennet.ops.implicit_gemm import implicit_gemm
from hiddennet.ops.masked_weight import DTYPE_CODES, MaskedWeight, effective_weight

PLANS = {
    "effective_weight": "write the effective weight once, then torch's convolution (oneDNN, cuDNN)",
    "measured": "CPU, channels_last: each direction in the way measured to be fastest (hiddennet.ops.conv_ways)",
    "tiles": "CPU, channels_last, bfloat16: products of matrix tiles that block the batch (AMX, AVX512-BF16)",
    "matmul": "a 1x1 kernel on a 1x1 map as a matrix product (oneDNN, cuBLAS)",
    "implicit_gemm": "CUDA, bfloat16: an implicit GEMM whose weight loader makes the masked weight",
}
MEASURED_FROM = 1 << 22  # elements of the input times filters: below, a choice costs more than it saves


def is_matmul(x: Tensor, shape: Sequence[int], stride: list[int], padding: list[int] | str, groups: int) -> bool:
    """Whether the convolution is a matrix product: a 1x1 kernel on a 1x1 map."""
    return (
        tuple(shape[2:]) == (1, 1)
        and tuple(x.shape[2:]) == (1, 1)
        and groups == 1
        and (padding == "valid" or (not isinstance(padding, str) and not any(padding)) or padding == "same")
    )


def default_plan(
    x: Tensor, shape: Sequence[int], stride, padding, dilation, groups: int, dtype: torch.dtype | None = None
) -> str:
    """The fastest plan known today for this input: "matmul" where it applies; "measured" on a CPU where there is a
    choice; else "effective_weight". dtype: to compute in, else the input's.

    On a GPU at training batch sizes the effective weight costs about 1 % of a step and feeds cuDNN; making weights
    inside the convolution is expected to pay only for weight-bound layers, so "implicit_gemm" is never the default yet.
    """
    if is_matmul(x, shape, stride, padding, groups):
        return "matmul"
    if torch.compiler.is_compiling() or x.numel() * shape[0] < MEASURED_FROM:  # code that is exported asks for no size
        return "effective_weight"
    conv = conv_ways.conv_of(x, shape, dtype or x.dtype, stride, padding, dilation, groups)
    return "measured" if conv is not None and conv_ways.is_measured(conv) else "effective_weight"


def compute_dtype(op: str | None, x: Tensor) -> torch.dtype:
    """The dtype a layer computes in: autocast's where it is on, else the input's.

    op: raises TypeError in its name where the ops do not have the dtype.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{op or 'autocast'}: expected an input that is a Tensor, got {type(x).__name__}")
    dtype, device = x.dtype, x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if op is not None and dtype not in DTYPE_CODES:
        raise TypeError(f"{op}: expected an input of dtype float32, bfloat16 or float16, got {dtype}")
    return dtype


def _check_plan(op: str, plan: str, x: Tensor, dtype, shape: Sequence[int], stride, padding, groups: int) -> None:
    check_choice(op, "plan", plan, tuple(PLANS))
    if plan == "matmul" and not is_matmul(x, shape, stride, padding, groups):
        raise ValueError(f"{op}: expected a 1x1 kernel on a 1x1 map for plan 'matmul', got input {tuple(x.shape)}")
    if plan == "implicit_gemm":
        if x.device.type not in ("cuda", "meta"):
            raise ValueError(f"{op}: expected a CUDA input for plan 'implicit_gemm', got {x.device}")
        if groups != 1 or isinstance(padding, str):
            raise ValueError(f"{op}: expected groups=1 and padding in numbers for plan 'implicit_gemm'")
    if plan == "tiles" and dtype is not torch.bfloat16:
        raise ValueError(f"{op}: expected bfloat16 for plan 'tiles', got {dtype}; use torch.autocast")


def conv2d(x: Tensor, weight: MaskedWeight, bias, stride, padding, dilation, groups: int, plan: str | None) -> Tensor:
    """masked_conv2d without the checks of its parts: for layers. stride, padding, dilation: pairs, or a name."""
    op, shape = "masked_conv2d", weight.shape
    dtype = compute_dtype(op, x)
    if x.layout is not torch.strided or x.is_nested:
        raise TypeError(f"{op}: expected a dense input, got a nested one or layout {x.layout}; use .to_dense()")
    check_geometry(op, stride, padding, dilation)
    if plan is None:
        plan = default_plan(x, shape, stride, padding, dilation, groups, dtype)
    else:
        _check_plan(op, plan, x, dtype, shape, stride, padding, groups)
    if plan == "implicit_gemm":
        return implicit_gemm(x, weight, bias, (stride, padding, dilation))
    if plan in ("measured", "tiles"):
        conv = conv_ways.conv_of(x, shape, dtype, stride, padding, dilation, groups)
        if conv is None:
            raise ValueError(f"{op}: expected a channels_last input on a CPU and groups=1 for plan {plan!r}")
        return conv_ways.convolve(x, weight, bias, conv, None if plan == "measured" else plan)
    made = effective_weight(weight, dtype)
    if plan == "matmul":
        return F.linear(x.flatten(1), made.flatten(1), bias)[:, :, None, None]
    return F.conv2d(x, made, bias, stride, padding, dilation, groups)


def linear(x: Tensor, weight: MaskedWeight, bias: Tensor | None) -> Tensor:
    """masked_linear without the checks of its parts: for layers."""
    return F.linear(x, effective_weight(weight, compute_dtype("masked_linear", x)), bias)
