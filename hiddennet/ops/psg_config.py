"""PSGConfig: with how many bits a weight gradient is made, and below which size its elements are dropped."""

import math
from dataclasses import dataclass

from hiddennet.ops.checks import check_choice
from hiddennet.ops.quantize import EXACT_BITS, check_bits

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
