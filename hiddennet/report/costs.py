"""The report's section on what training cost: multiply-adds and bit-operations of a step, by mask and gradient bits."""

from collections.abc import Sequence

from hiddennet.analysis import LayerReport, TrainingCost, training_cost
from hiddennet.analysis.layers import FLOAT_BITS
from hiddennet.report import page
from hiddennet.report.runs import Line, Run

HEAD = (
    *("run", "method", "multiply-adds", "of the revealed", "weight gradient", "bit-operations", "of the revealed"),
    "of dense float32",
)


def cost_of(run: Run) -> TrainingCost | None:
    """The cost of a training step of the run's last stage; None where its record has no layers."""
    stages = run.record.get("stages") or []
    layers = stages[-1].get("layers") if stages else None
    if not layers:
        return None
    reports = [LayerReport(**{**layer, "shape": tuple(layer["shape"])}) for layer in layers]
    return training_cost(reports, input_bits=_bits(run, "input_bits"), gradient_bits=_bits(run, "gradient_bits"))


def _bits(run: Run, key: str) -> int:
    return run.settings.get(f"method.psg.{key}", FLOAT_BITS)


def costs(lines: Sequence[Line]) -> str:
    """One finished run of each setting; nothing where no run's layers are known."""
    rows = []
    for line in lines:
        for setting in line.settings:
            for run in setting.finished[:1]:
                cost = cost_of(run)
                if cost is None:
                    continue
                bits = " x ".join(str(_bits(run, key)) for key in ("input_bits", "gradient_bits"))
                share = cost.kept_bit_operations / max(1, cost.dense_bit_operations)
                numbers = (cost.multiply_adds, cost.kept_multiply_adds, cost.bit_operations, cost.kept_bit_operations)
                adds, kept, operations, of_revealed = (f"{number:.4g}" for number in numbers)
                rows.append([run.name, line.label, adds, kept, f"{bits} bits", operations, of_revealed, f"{share:.2%}"])
    if not rows:
        return ""
    said = (
        "One image's training step in convolutions and linear layers: the forward pass, the gradients of inputs and of "
        "weights. Bit-operations: the operands' bits multiplied, 32 x 32 but for the weight gradients of hidden layers "
        "where fewer bits predict them. Of the revealed: on hardware that leaves out the other weights; the last "
        "column sets that against the dense network in float32. Counts, not times."
    )
    return page.section("Training cost", page.paragraph(said), page.table(HEAD, rows, text=2))
