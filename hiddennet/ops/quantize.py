"""quantize: low-bit values on the grid of PSG, with ranges taken per tensor, per sample or per channel."""

import torch
from torch import Tensor

from hiddennet.ops.checks import check_choice, check_same_device, check_tensor, dense, is_channels_last
from hiddennet.ops.fakes import register_fake, register_void

_code_range = torch.ops.hiddennet.code_range.default
_quantize_codes = torch.ops.hiddennet.quantize_codes.default
_threshold_gradient = torch.ops.hiddennet.threshold_gradient_.default

RANGES = ("sample_mean", "tensor", "channel")
FUSED = (torch.float32, torch.bfloat16, torch.float16)
MAX_CODE_BITS = 16
EXACT_BITS = 32  # from here on a tensor is taken as it is
register_void("threshold_gradient_")


def code_dtype(bits: int, signed: bool) -> torch.dtype:
    """What centred codes are stored in."""
    if bits <= 8:
        return torch.int8 if signed else torch.uint8
    return torch.int16 if bits < 16 or signed else torch.int32


@register_fake("code_range")
def _(x, per_sample) -> Tensor:
    return torch.empty(1, dtype=torch.float32, device=x.device)


@register_fake("quantize_codes")
def _(x, maximum, bits, is_signed, channels_last) -> tuple[Tensor, Tensor]:
    layout = torch.channels_last if channels_last or is_channels_last(x) else torch.contiguous_format
    codes = torch.empty(x.shape, dtype=code_dtype(bits, is_signed), device=x.device, memory_format=layout)
    return codes, torch.empty(1, dtype=torch.float32, device=x.device)


def check_bits(op: str, name: str, bits: object) -> int:
    """An int in [1, 16], or 32 for none taken away."""
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise TypeError(f"{op}: expected {name} to be an int, got {type(bits).__name__}")
    if not 1 <= bits <= MAX_CODE_BITS and bits != EXACT_BITS:
        raise ValueError(f"{op}: expected {name} from 1 to {MAX_CODE_BITS}, or {EXACT_BITS} for exact, got {bits}")
    return bits


def range_of(x: Tensor, over: str) -> Tensor:
    """The range M without checks: one element ("sample_mean", "tensor"), or [O, 1, ..., 1] ("channel")."""
    if over == "channel":
        return x.abs().reshape(len(x), -1).amax(1).view(-1, *(1,) * (x.dim() - 1)) if x.numel() else x.new_zeros(())
    if x.dtype in FUSED:
        return _code_range(dense(x), over == "sample_mean" and x.dim() > 1)
    if x.numel() == 0:
        return x.new_zeros(1)
    if over == "tensor" or x.dim() < 2:
        return x.abs().amax().view(1)
    return x.abs().flatten(1).amax(1).mean().view(1)


def centred_codes(
    x: Tensor, maximum: Tensor, bits: int, signed: bool, channels_last: bool = False
) -> tuple[Tensor, Tensor]:
    """Centred codes and their step delta without checks; fused where there is one range and a dtype of FUSED.

    Fused codes are integers, in channels_last where that is asked for; the others are of x's dtype, at least float32.
    """
    if x.dtype in FUSED and maximum.numel() == 1:
        return _quantize_codes(dense(x), maximum.float().view(1), bits, signed, channels_last)
    if x.dtype in FUSED:
        x, maximum = x.float(), maximum.float()
    delta = maximum * 2.0 ** ((1 if signed else 0) - bits)
    some = (delta > 0) & maximum.isfinite()
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    shift = 1.0 if signed and bits == 1 else 0.0  # an odd shift turns round ties
    codes = (((x / torch.where(some, delta, 1.0)).clamp(low, high) + shift).round() - shift) * some
    return codes, torch.where(maximum.isfinite(), delta, torch.nan)


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, maximum, bits, signed, dequantize):
        codes, delta = centred_codes(x, maximum, bits, signed)
        if dequantize:
            return (codes.to(delta.dtype) * delta).to(x.dtype)
        return codes.to(x.dtype) + (2.0 ** (bits - 1) if signed else 0.0)

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None, None, None  # straight through: a surrogate, not a derivative


def quantize_range(x: Tensor, over: str = "sample_mean") -> Tensor:
    """The range M that quantize takes of x by itself.

    Args:
        x: float64, float32, bfloat16 or float16, any shape.
        over: "sample_mean": the mean over the first dimension of each sample's largest |x| (of a vector, the largest);
            "tensor": the largest |x|; "channel": each leading index's own, [O, 1, ..., 1].

    Returns:
        One element of float32 (of float64 for float64), or x's dtype for "channel". Empty x: 0. NaN or an infinity in
        x: not finite.
    """
    op = "quantize_range"
    check_tensor(op, "x", x, dtypes=(*FUSED, torch.float64))
    check_choice(op, "over", over, RANGES)
    if over == "channel" and x.dim() == 0:
        raise ValueError(f"{op}: expected x of at least one dimension for 'channel', got a scalar")
    return range_of(x.detach(), over)


def quantize(
    x: Tensor,
    bits: int,
    *,
    signed: bool = False,
    over: str = "sample_mean",
    maximum: Tensor | None = None,
    dequantize: bool = True,
) -> Tensor:
    """Round x to 2^bits levels; the gradient passes straight through.

    With the range M: unsigned, levels are c M / 2^bits for c in [0, 2^bits - 1], and what is negative becomes 0;
    signed, c 2M / 2^bits for c in [-2^(bits-1), 2^(bits-1) - 1], so that -M is a level and M is not. x is clamped
    first, then rounded, ties to even. Zero stays zero. Where the range is 0, all levels are 0; where it is not finite,
    the values are NaN. Nothing waits for the device. E2-Train (arXiv 1910.13349), as Peek-a-Boo has it.

    Args:
        x: float64, float32, bfloat16 or float16, any shape and memory format.
        bits: 1 to 16; 32 returns x itself.
        signed: whether x has negative values.
        over: what the range is taken over: see quantize_range.
        maximum: the range itself, a non-negative tensor that broadcasts against x, in place of `over`.
        dequantize: False gives the codes counted from 0 (signed zero is 2^(bits-1)), in x's dtype.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "quantize"
    check_tensor(op, "x", x, dtypes=(*FUSED, torch.float64))
    check_bits(op, "bits", bits)
    if not isinstance(signed, bool) or not isinstance(dequantize, bool):
        raise TypeError(f"{op}: expected signed and dequantize to be bools, got {signed!r} and {dequantize!r}")
    if maximum is None:
        if bits == EXACT_BITS:
            return x
        maximum = quantize_range(x, over)
    else:
        check_tensor(op, "maximum", maximum, dtypes=(*FUSED, torch.float64))
        check_same_device(op, "maximum", maximum, "x", x)
        if bits == EXACT_BITS:
            return x
        try:
            fits = torch.broadcast_shapes(x.shape, maximum.shape) == x.shape or maximum.numel() == 1
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{op}: expected maximum to broadcast against x of shape {tuple(x.shape)}, got {tuple(maximum.shape)}"
            )
        if maximum.numel() == 1:
            maximum = maximum.reshape(1)
    return _Quantize.apply(x, maximum.detach(), bits, signed, dequantize)
