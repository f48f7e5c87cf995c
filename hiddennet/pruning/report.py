"""What masks leave of each parameter: weights by sign, and multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hiddennet.pruning.probe import Probe
from hiddennet.pruning.targets import Target, find_targets
from hiddennet.tables import aligned

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class MaskReport:
    """Counts of one parameter, or of all together. A multiply-add is one weight at one position; biases make none.

    Attributes:
        size: its entries. kept: those its mask keeps; positive, negative: of these, by sign (0 is neither).
        macs, kept_macs: multiply-adds for one input.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    kept: int
    positive: int
    negative: int
    macs: int
    kept_macs: int

    @property
    def density(self) -> float:
        """The kept fraction."""
        return self.kept / max(1, self.size)


@torch.no_grad()
def report(model: nn.Module, masks: Mapping[str, Tensor], input_shape: Sequence[int]) -> list[MaskReport]:
    """Return the counts of each masked parameter, in the order of the masks, and last their total.

    Args:
        model: left as it is; it is run once, on ones. masks: as prune() returns them.
        input_shape: of one input, without the batch.

    Raises ValueError for a mask that is of no weight or bias of the model, or of another shape.
    """
    known = {t.name: t for t in find_targets(model, biases=True, op="report")}
    for name, mask in masks.items():
        if name not in known or mask.shape != known[name].shape:
            want = f"shape {tuple(known[name].shape)}" if name in known else "a weight or bias of the model"
            raise ValueError(f"report: expected masks[{name!r}] to be of {want}, got {tuple(mask.shape)}")
    positions = _positions(model, list(known.values()), tuple(input_shape))
    rows = [_row(known[name], mask, positions[known[name].layer_name]) for name, mask in masks.items()]
    return [*rows, _total(rows)]


def _row(target: Target, mask: Tensor, positions: int) -> MaskReport:
    values, mask = target.value(), mask.to(target.value().device)
    size, kept = mask.numel(), int(mask.count_nonzero())
    positions = positions if target.kind == "weight" else 0
    return MaskReport(
        name=target.name,
        shape=tuple(mask.shape),
        size=size,
        kept=kept,
        positive=int((mask & (values > 0)).count_nonzero()),
        negative=int((mask & (values < 0)).count_nonzero()),
        macs=size * positions,
        kept_macs=kept * positions,
    )


def _total(rows: Sequence[MaskReport]) -> MaskReport:
    def add(field: str) -> int:
        return sum(getattr(row, field) for row in rows)

    return MaskReport("total", (), *map(add, ("size", "kept", "positive", "negative", "macs", "kept_macs")))


def _positions(model: nn.Module, targets: Sequence[Target], input_shape: tuple[int, ...]) -> dict[str, int]:
    """How often each weight of a layer is used for one input; 0 for layers that are not used."""
    found = dict.fromkeys((t.layer_name for t in targets), 0)

    def count(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            found[name] += output.numel() // layer.out_features
        else:
            slid = inputs[0] if isinstance(layer, TRANSPOSED) else output
            found[name] += slid[0, 0].numel()

    probe = Probe(model, targets, torch.float32)
    weights = dict(zip((t.name for t in targets), probe.values(targets), strict=True))
    layers = {t.layer_name: t.layer for t in targets}
    hooks = []
    try:
        for name, layer in layers.items():
            hooks.append(layer.register_forward_hook(partial(count, name)))
        with probe.still():
            probe(weights, torch.ones(1, *input_shape, device=probe.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


HEAD = ("parameter", "shape", "size", "kept", "density", "positive", "negative", "multiply-adds", "kept of them")


def _cells(row: MaskReport) -> tuple[str, ...]:
    numbers = (f"{n:,}" for n in (row.positive, row.negative, row.macs, row.kept_macs))
    shape = "x".join(map(str, row.shape))
    return (row.name, shape, f"{row.size:,}", f"{row.kept:,}", f"{row.density:.4%}", *numbers)


def table(rows: Sequence[MaskReport]) -> str:
    """The rows of report() as a text table."""
    return aligned([HEAD, *map(_cells, rows)], left=2)
