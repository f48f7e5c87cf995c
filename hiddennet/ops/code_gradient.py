"""The weight gradient of PSG: of codes by an integer kernel, in float64 of the quantised values, thresholded; and
PSGConfig: with how many bits it is made, and below which size its elements are dropped."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hiddennet.ops.checks import check_choice, in_layout
from hiddennet.ops.code_weight_gradient import _code_weight_gradient
from hiddennet.ops.quantize import EXACT_BITS, FUSED, _threshold_gradient, centred_codes, check_bits, range_of

THRESHOLD_MODES = ("relative", "absolute")


@dataclass(frozen=True)
class PSGConfig:
    """Predictive sign gradient (E2-Train, arXiv 1910.13349), with Peek-a-Boo's settings as defaults.

    The low-bit gradient of a layer's weight is made of the codes of its input and of its output's gradient. Elements
    of at least the threshold are kept; the others become 0 (`sparsify`) or those of the exact gradient.

    Args:
        input_bits: of the layer's input: 1 to 16, or 32: as it is.
        gradient_bits: of the gradient of the layer's output: the same.
        threshold: at least 0.
        threshold_mode: "relative": times the largest magnitude in the layer's low-bit gradient; "absolute".
        sparsify: make no exact gradient at all.
        sign: give only the signs of the gradient; for SGD with a small rate. Bop needs magnitudes.
    """

    input_bits: int = 8
    gradient_bits: int = 16
    threshold: float = 1e-7
    threshold_mode: str = "relative"
    sparsify: bool = True
    sign: bool = False

    def __post_init__(self) -> None:
        check_bits("PSGConfig", "input_bits", self.input_bits)
        check_bits("PSGConfig", "gradient_bits", self.gradient_bits)
        number = isinstance(self.threshold, (int, float)) and not isinstance(self.threshold, bool)
        if not number:
            raise TypeError(f"PSGConfig: expected threshold to be a float, got {type(self.threshold).__name__}")
        if not 0.0 <= self.threshold < math.inf:
            raise ValueError(
                f"PSGConfig: expected threshold >= 0, got {self.threshold}; whether it is relative says threshold_mode"
            )
        check_choice("PSGConfig", "threshold_mode", self.threshold_mode, THRESHOLD_MODES)
        for name in ("sparsify", "sign"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"PSGConfig: expected {name} to be a bool, got {getattr(self, name)!r}")

    @property
    def relative(self) -> bool:
        """Whether the threshold is a multiple of the largest magnitude."""
        return self.threshold_mode == "relative"

    @property
    def exact(self) -> bool:
        """Whether neither input nor gradient is quantised."""
        return self.input_bits == EXACT_BITS and self.gradient_bits == EXACT_BITS


Geometry = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation, groups; of a convolution
LINEAR: Geometry = ([], [], [], 1)


MATRIX: Geometry = ([1, 1], [0, 0], [1, 1], 1)  # a product as a convolution of 1x1 maps


def input_codes(x: Tensor, config: PSGConfig, signed: bool, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Codes of a layer's input, of images in channels_last, and their step; the range is the mean over samples."""
    return centred_codes(x, range_of(x, "sample_mean"), config.input_bits, signed, x.dim() == 4 and geometry != LINEAR)


def exact_gradient(x: Tensor, dy: Tensor, shape: list[int], geometry: Geometry) -> Tensor:
    """The gradient of the weight as torch makes it: of x's dtype."""
    if geometry == LINEAR:
        return dy.reshape(-1, shape[0]).t() @ x.reshape(-1, shape[1])
    like = dy.new_empty(()).expand(shape)
    return torch.ops.aten.convolution_backward(
        dy, x, like, None, *geometry[:3], False, [0, 0], geometry[3], [False, True, False]
    )[1]


def _quantised(t: Tensor, codes: tuple[Tensor, Tensor] | None) -> Tensor:
    return t if codes is None else (codes[0].to(codes[1].dtype) * codes[1]).to(t.dtype)


def _by_codes(x_codes, dy: Tensor, config: PSGConfig, shape, geometry: Geometry, channels_last: bool):
    linear = geometry == LINEAR
    codes, delta = centred_codes(dy, range_of(dy, "tensor"), config.gradient_bits, True, channels_last=not linear)
    x, full = x_codes[0], shape
    if linear:
        x, codes = x.reshape(-1, shape[1])[:, :, None, None], codes.reshape(-1, shape[0])[:, :, None, None]
        full, geometry = [*shape, 1, 1], MATRIX
    x, codes = in_layout(x, True), in_layout(codes, True)
    grad, largest = _code_weight_gradient(x, codes, x_codes[1], delta, full, *geometry, channels_last)
    return grad.view(shape) if linear else grad, largest


def _thresholded(low: Tensor, exact: Tensor | None, largest: Tensor, config: PSGConfig) -> Tensor:
    if low.dtype == torch.float32:
        _threshold_gradient(low, exact, largest if config.relative else None, config.threshold, config.sign)
        return low
    bar = config.threshold * largest if config.relative else config.threshold
    kept = torch.where(low.abs() < bar, torch.zeros_like(low) if exact is None else exact, low)  # NaN is kept
    return kept.sign() if config.sign else kept


def weight_gradient(
    x: Tensor | None,
    x_codes: tuple[Tensor, Tensor] | None,
    dy: Tensor,
    config: PSGConfig,
    signed: bool,
    shape: list[int],
    geometry: Geometry,
    channels_last: bool,
) -> Tensor:
    """PSG's gradient of a weight of this shape, dense in OIHW or OHWI memory; float32, or float64 for float64.

    x, or its codes where those alone were kept; x is needed for a mixture with the exact gradient and for 32 bits.
    """
    by_codes = dy.dtype in FUSED and EXACT_BITS not in (config.input_bits, config.gradient_bits)
    if x_codes is None and config.input_bits != EXACT_BITS:
        x_codes = input_codes(x, config, signed, geometry)
    exact = None
    kind = torch.float32 if dy.dtype in FUSED else dy.dtype
    if config.exact or not config.sparsify:
        exact = in_layout(exact_gradient(x, dy, shape, geometry).to(kind), channels_last)
    if by_codes:
        low, largest = _by_codes(x_codes, dy, config, shape, geometry, channels_last)
    else:
        low = exact
        if not config.exact:
            gq = dy
            if config.gradient_bits != EXACT_BITS:
                gq = _quantised(dy, centred_codes(dy, range_of(dy, "tensor"), config.gradient_bits, True))
            low = exact_gradient(_quantised(dy if x is None else x, x_codes), gq, shape, geometry).to(kind)
            low = in_layout(low, channels_last)
        largest = range_of(low, "tensor")
    beside = None if config.sparsify else exact
    if beside is low:
        low = low.clone()
    return _thresholded(low, beside, largest, config)
