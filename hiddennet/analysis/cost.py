"""What a training step of a network costs: multiply-adds, and bit-operations where numbers have few bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hiddennet.analysis.layers import LayerReport

FLOAT_BITS = 32


@dataclass(frozen=True)
class TrainingCost:
    """The cost of one image's training step in convolutions and linear layers: forward, and both gradients.

    multiply_adds, kept_multiply_adds: of all three, by all weights and by the revealed ones.
    bit_operations: the product of the operands' bits, summed over the multiply-adds: of this training, by all weights.
    kept_bit_operations: the same by the revealed weights, for hardware that leaves out the others.
    dense_bit_operations: of training by all weights with 32-bit numbers.
    """

    multiply_adds: int
    kept_multiply_adds: int
    bit_operations: int
    kept_bit_operations: int
    dense_bit_operations: int


def training_cost(
    reports: Sequence[LayerReport], *, input_bits: int = FLOAT_BITS, gradient_bits: int = FLOAT_BITS
) -> TrainingCost:
    """The cost of a training step, by the reports of a network's layers (layer_report).

    The three products of a layer take as many multiply-adds each (the first layer's input gradient, which nothing
    needs, is counted as well). input_bits, gradient_bits: of the operands of the weight gradient in hidden layers (PSG,
    Wang et al. 2019, arXiv 1910.13349); all else has 32 bits.
    """
    whole, predicted = FLOAT_BITS * FLOAT_BITS, input_bits * gradient_bits
    dense = sum(report.multiply_adds for report in reports)
    kept = sum(report.kept_multiply_adds for report in reports)

    def bits(report: LayerReport) -> int:
        return 2 * whole + (predicted if report.hidden else whole)

    return TrainingCost(
        multiply_adds=3 * dense,
        kept_multiply_adds=3 * kept,
        bit_operations=sum(bits(report) * report.multiply_adds for report in reports),
        kept_bit_operations=sum(bits(report) * report.kept_multiply_adds for report in reports),
        dense_bit_operations=3 * whole * dense,
    )
