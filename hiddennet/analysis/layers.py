"""Layer by layer: what is kept by flags and by rounding, what is alive, how many multiply-adds that makes; and what a
training step of the network costs, in bit-operations where numbers have few bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.analysis.paths import Layer, layers_of, shape_of, trace
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.summary import masks
from hiddennet.nn.wiring import wirings
from hiddennet.tables import aligned


@dataclass(frozen=True)
class LayerReport:
    """Counts of one layer. A multiply-add is one weight at one position of the layer's output.

    Attributes:
        hidden: whether the layer hides anything; the others keep all weights.
        size: its weights. kept: those that the mask reveals, by flags and rounding alike.
        flags_kept: those whose flag is set; None for a layer without flags.
        alive: kept weights on a path from the input to the output.
        multiply_adds, kept_multiply_adds, alive_multiply_adds: of one input.
    """

    name: str
    shape: tuple[int, ...]
    hidden: bool
    size: int
    kept: int
    flags_kept: int | None
    alive: int
    multiply_adds: int
    kept_multiply_adds: int
    alive_multiply_adds: int

    @property
    def density(self) -> float:
        """The kept fraction: flags and rounding."""
        return self.kept / max(1, self.size)

    @property
    def flags_density(self) -> float | None:
        """The fraction whose flag is set: flags only."""
        return None if self.flags_kept is None else self.flags_kept / max(1, self.size)


@torch.no_grad()
def layer_report(model: nn.Module, input_shape: Sequence[int]) -> list[LayerReport]:
    """Return the counts of each hidden and each plain convolution or linear layer, in module order.

    Args:
        model: any model of them; left as it is, on its device.
        input_shape: of one input, without the batch: (channels, height, width).

    Raises ValueError for wirings (see wiring_report), for other kinds of hidden layers, and for pooling whose paths are
    not known (dilated, or with indices).
    """
    if wirings(model):
        raise ValueError(
            f"analysis: expected convolutions and linear layers, got wirings {', '.join(wirings(model))}; "
            "wiring_report counts those"
        )
    layers = layers_of(model)
    for name, layer in layers.items():
        if not isinstance(layer, Layer):
            raise ValueError(
                f"analysis: expected convolutions and linear layers, got {type(layer).__name__} {name}; "
                "paths through others are not known"
            )
    revealed = masks(model)
    kept = {
        name: revealed[name] if isinstance(layer, HiddenMixin) else torch.ones(shape_of(layer), dtype=torch.bool)
        for name, layer in layers.items()
    }
    traced = trace(model, kept, tuple(input_shape))
    return [_report(name, layer, kept[name], *traced[name]) for name, layer in layers.items()]


def _report(name: str, layer: Layer, mask: Tensor, positions: int, alive: Tensor) -> LayerReport:
    kept, living = int(mask.count_nonzero()), int(alive.count_nonzero())
    flags = getattr(layer, "flags", None) if isinstance(layer, HiddenMixin) else None
    return LayerReport(
        name=name,
        shape=shape_of(layer),
        hidden=isinstance(layer, HiddenMixin),
        size=mask.numel(),
        kept=kept,
        flags_kept=None if flags is None else int(ops.unpack_mask(flags, shape_of(layer)).count_nonzero()),
        alive=living,
        multiply_adds=mask.numel() * positions,
        kept_multiply_adds=kept * positions,
        alive_multiply_adds=living * positions,
    )


def total(reports: Sequence[LayerReport], *, hidden_only: bool = False) -> LayerReport:
    """The sums over all layers, or over the hidden ones; a layer without flags counts what it keeps."""
    chosen = [report for report in reports if report.hidden or not hidden_only]
    flagged = any(report.flags_kept is not None for report in chosen)

    hidden = any(report.hidden for report in chosen)
    flags = sum(r.kept if r.flags_kept is None else r.flags_kept for r in chosen) if flagged else None
    counts = ("size", "kept", "alive", "multiply_adds", "kept_multiply_adds", "alive_multiply_adds")
    sums = {name: sum(getattr(report, name) for report in chosen) for name in counts}
    return LayerReport("total", (), hidden, flags_kept=flags, **sums)


HEAD = ("layer", "shape", "weights", "flags only", "flags and rounding", "alive", "multiply-adds", "alive of them")


def cells(report: LayerReport) -> tuple[str, ...]:
    """The report as text, one cell for each of HEAD; fractions of the layer's weights and multiply-adds."""
    shape = "x".join(map(str, report.shape)) + ("" if report.hidden or not report.shape else " dense")
    flags = "-" if report.flags_density is None else f"{report.flags_density:.4%}"
    work = report.alive_multiply_adds / max(1, report.multiply_adds)
    return (
        report.name,
        shape,
        f"{report.size:,}",
        flags,
        f"{report.density:.4%}",
        f"{report.alive / max(1, report.size):.4%}",
        f"{report.multiply_adds:,}",
        f"{report.alive_multiply_adds:,} ({work:.2%})",
    )


def table(reports: Sequence[LayerReport]) -> str:
    """The reports and their total as a text table."""
    return aligned([HEAD, *(cells(report) for report in (*reports, total(reports)))], left=2)


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
