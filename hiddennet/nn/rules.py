"""TopK: the highest scores of a layer or of a network."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.memo import plainly, state_of
from hiddennet.nn.rule import Selecting
from hiddennet.ops.checks import ORDERS, check_choice, dense
from hiddennet.registry import register

SCOPES = ("layer", "global")
topk_select_ = torch.ops.hiddennet.topk_select_.default
topk_counts_bytes = torch.ops.hiddennet.topk_counts_bytes.default
ROUNDINGS = ("floor", "ceil", "decimal")


def check_fraction(who: str, name: str, value: float, meaning: str) -> None:
    """Raises ValueError unless `value` is in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{who}: expected {name} in [0, 1] ({meaning}), got {value}")


def kept_count(n: int, density: float, rounding: str = "floor") -> int:
    """How many of n weights a density keeps: n - int((1 - density) n), edge-popup's rounding.

    rounding: "ceil" rounds the pruned number up, as Rare Gems' global edge-popup does; "decimal" takes 1 - density as
    the decimal that was written, as neural wirings do, where floats give 0.19999999999999996 for 1 - 0.8.
    """
    pruned = (round(1 - density, 12) if rounding == "decimal" else 1 - density) * n
    return n - (min(n, math.ceil(pruned)) if rounding == "ceil" else int(pruned))


class Bracket:
    """What an optimiser's step counts of the scores it writes, around their thresholds of now: the next selection is
    made of that, without a pass over the scores, where they are still what the step left. Else it reads them.

    Tensors that an optimiser of hiddennet.optim steps have one, `bracket`: that of the group they are ranked in.
    """

    def __init__(self, ranked: Sequence[Tensor], kind: tuple, rows: Tensor, counts: Tensor) -> None:
        self.ids, self.kind, self.rows, self.counts = [id(t) for t in ranked], kind, rows, counts
        self.stepped, self.places = [], [-1]  # ids of a step's parameters, and which of them are ranked
        self.forget()
        self.clean = True  # whether the counts are zeros
        self.counted = False  # whether a step has counted since the last selection, or is to in a graph's replay

    @staticmethod
    def of(ranked: Sequence[Tensor], kind: tuple, rows: Tensor, learns: bool) -> Bracket | None:
        """That of these tensors, which is made where an optimiser may step them. kind: (k, by value, together)."""
        found = getattr(ranked[0], "bracket", None)
        if found is not None and found.fits(ranked, kind, rows):
            return found
        if not learns or not hasattr(ranked[0], "bracket") or torch._C._len_torch_dispatch_stack():
            return None
        if not all(hasattr(t, "bracket") and dense(t) is t for t in ranked):
            return None
        if rows.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        size = topk_counts_bytes([t.detach() for t in ranked], kind[0], kind[2])
        if size == 0:
            return None
        found = Bracket(ranked, kind, rows, torch.zeros(size, dtype=torch.uint8, device=rows.device))
        for t in ranked:
            t.bracket = found
        return found

    def fits(self, ranked: Sequence[Tensor], kind: tuple, rows: Tensor) -> bool:
        """Whether it is of these tensors in this order, and of this selection."""
        same = self.rows is rows and self.kind == kind and self.ids == [*map(id, ranked)]
        return same and all([getattr(t, "bracket", None) is self for t in ranked])

    def forget(self) -> None:
        """Drop what was counted: the scores may have been written to."""
        self.made, self.clean = None, False

    def take(self, ranked: Sequence[Tensor]) -> Tensor | None:
        """The counts, once, for a selection of these tensors; None: there are none of them as they are now."""
        made, self.made = self.made, None
        if self.rows.is_cuda and torch.cuda.is_current_stream_capturing():  # `check` says before each replay
            valid, self.counted = self.counted, False
        else:
            valid = made is not None and made == state_of(ranked)
        self.clean = self.clean or valid  # the selection leaves zeros
        return self.counts if valid else None

    def check(self, ranked: Sequence[Tensor]) -> None:
        """Before a graph's replay: let its selection read the scores, unless they are what the last step counted."""
        if self.made is None or self.made != state_of(ranked):
            self.counts.zero_()
            self.clean = True

    def arguments(self, params: Sequence[Tensor]) -> tuple | None:
        """What score_step_ counts by, where it steps all that are ranked together: (counts, rows, places, *kind)."""
        stepped = [*map(id, params)]
        if stepped != self.stepped:
            at = {one: i for i, one in enumerate(stepped)}
            self.stepped, self.places = stepped, [at.get(one, -1) for one in self.ids]
        if min(self.places) < 0:
            return None
        if not self.clean:
            self.counts.zero_()
        return self.counts, self.rows, self.places, *self.kind

    def keep(self, ranked: Sequence[Tensor]) -> None:
        """The tensors as they are now have been counted."""
        self.made, self.clean, self.counted = state_of(ranked), False, True


class Ranking:
    """Tensors that TopK rules of one group rank, in one call.

    rules: one a tensor, or a single one that ranks all tensors together. rows: the selection, int32 [tensors, 4], which
    each call makes of that of the last one in place; zeros at first.
    """

    def __init__(self, ranked: Sequence[Tensor], rules: Sequence[TopK], rows: Tensor) -> None:
        first, sizes = rules[0], [t.numel() for t in ranked]
        together = len(rules) == 1 and len(ranked) > 1
        k = [first.count(sum(sizes))] if together else [rule.count(n) for rule, n in zip(rules, sizes, strict=True)]
        self.ranked, self.rows, self.keeps_ties = ranked, rows, first.keeps_ties
        self.laid = all([dense(t) is t for t in ranked])
        self.kind = k, first.by == "value", together

    def select(self, learns: bool = False) -> Tensor:
        """The rows. learns: a step may follow, which then counts for the next call."""
        bracket = Bracket.of(self.ranked, self.kind, self.rows, learns)
        counts = None if bracket is None else bracket.take(self.ranked)
        ranked = self.ranked if self.laid else [dense(t) for t in self.ranked]
        with torch.no_grad(), plainly():
            topk_select_(ranked, *self.kind, self.keeps_ties, self.rows, counts)
        return self.rows


def joined_rows(rows: Sequence[Tensor]) -> Tensor | None:
    """The tensor int32 [layers, 4] of which these are the rows, if there is one."""
    base = rows[0]._base
    if base is not None and base.shape == (len(rows), 4):
        at = base.data_ptr()
        if [*map(Tensor.data_ptr, rows)] == [*range(at, at + 16 * len(rows), 16)]:
            return base
    return None


def rows_of(layers: Sequence[nn.Module]) -> Tensor:
    """The layers' selections as one tensor, int32 [layers, 4], of which each is a row from now on."""
    own = [layer._buffers["selection"] for layer in layers]
    rows = joined_rows(own)
    if rows is not None:
        return rows
    with torch.inference_mode(False), torch.no_grad():  # a training forward may be next
        rows = torch.stack([row.clone() for row in own])
        for layer, row in zip(layers, rows.unbind(0), strict=True):
            layer.selection = row
    return rows


def _mask_of(layer: nn.Module) -> ops.Mask:
    """Of the layer's row; in training that of the last step, whose row it is as well."""
    last, row, by = layer._selected.value, layer._buffers["selection"], layer.rule.by
    if layer.training and last is not None and last.selection is row and last.kind == by:
        return last
    return ops.Mask(by, row)


@register("rule", "topk")
@dataclass(frozen=True)
class TopK(Selecting):
    """The highest scores. Edge-popup eq. 3.

    Args:
        density: kept fraction in [0, 1]; exactly n - int((1 - density) n) of n weights are kept.
        by: rank "magnitude" (edge-popup) or signed "value" (IteRand).
        scope: "layer" ranks each layer by itself, "global" all layers of the model together.
        of: "scores", or "weights": a layer without scores that ranks its own stored weights (neural wirings).
        rounding: of the pruned number, see kept_count.
    """

    rows: ClassVar[bool] = True
    keeps_ties: ClassVar[bool] = False
    density: float
    by: str = "magnitude"
    scope: str = "layer"
    of: str = "scores"
    rounding: str = "floor"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_fraction(name, "a density", self.density, "the kept fraction")
        check_choice(name, "by", self.by, ORDERS)
        check_choice(name, "scope", self.scope, SCOPES)
        check_choice(name, "of", self.of, ("scores", "weights"))
        check_choice(name, "rounding", self.rounding, ROUNDINGS)

    def count(self, n: int) -> int:
        """How many of n ranked weights are kept."""
        return kept_count(n, self.density, self.rounding)

    @property
    def has_scores(self) -> bool:
        return self.of == "scores"

    @property
    def alone(self) -> bool:
        return self.scope == "layer"

    def ranked(self, layer: nn.Module) -> Tensor:
        scores = layer._parameters["scores"]
        return layer.stored if scores is None else scores

    def scores(self, layer: nn.Module, training: bool) -> Tensor:
        scores = layer._parameters["scores"]
        if scores is not None:
            return scores
        return layer.stored.detach() if torch.is_grad_enabled() else layer.stored

    def group(self, layer: nn.Module) -> Hashable:
        return type(self), self.by, None if self.alone else self

    def select(self, layers: Sequence[nn.Module]) -> list[ops.Mask]:
        rules = [layer.rule for layer in layers] if self.alone else [self]
        traced = torch.compiler.is_compiling()  # which knows no views of buffers
        rows = torch.stack([layer.selection for layer in layers]) if traced else rows_of(layers)
        ranking = Ranking([layer.rule.ranked(layer) for layer in layers], rules, rows)
        ranking.select(layers[0].training and not traced)
        if traced:
            for layer, row in zip(layers, rows.unbind(0), strict=True):
                layer.selection.copy_(row)
        return [ops.Mask(self.by, layer.selection) if traced else _mask_of(layer) for layer in layers]

    def k(self, layer: nn.Module) -> int | None:
        exact = self.alone and not self.keeps_ties
        return self.count(layer.weight_shape.numel()) if exact else None

    def density_of(self, layer: nn.Module) -> float:
        return self.density

    def spec(self) -> dict:
        found = super().spec()
        found["removed"] = found.pop("rounding")  # its name in files that are there
        return found
