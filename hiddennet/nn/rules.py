"""TopK and KthValue: the highest scores of a layer or of a network."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rule import Selecting
from hiddennet.ops.checks import ORDERS, check_choice, dense
from hiddennet.registry import register

SCOPES = ("layer", "global")
topk_select_ = torch.ops.hiddennet.topk_select_.default
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


def select_rows(ranked: Sequence[Tensor], rules: Sequence[TopK], rows: Tensor) -> Tensor:
    """Selection rows, int32 [layers, 4], of tensors ranked by TopK rules of one group, in one call.

    rules: one a tensor, or a single one that ranks all tensors together. rows: of the last call, which become those of
    this one in place; zeros at first.
    """
    first, sizes = rules[0], [t.numel() for t in ranked]
    together = len(rules) == 1 and len(ranked) > 1
    k = [first.count(sum(sizes))] if together else [rule.count(n) for rule, n in zip(rules, sizes, strict=True)]
    topk_select_([dense(t.detach()) for t in ranked], k, first.by == "value", together, first.keeps_ties, rows)
    return rows


def rows_of(layers: Sequence[nn.Module]) -> Tensor:
    """The layers' selections as one tensor, int32 [layers, 4], of which each is a row from now on."""
    own = [layer.selection for layer in layers]
    rows = own[0]._base
    if rows is not None and rows.shape == (len(own), 4):
        at = rows.data_ptr()
        if all(row.data_ptr() == at + 16 * i for i, row in enumerate(own)):
            return rows
    with torch.inference_mode(False), torch.no_grad():  # a training forward may be next
        rows = torch.stack([row.clone() for row in own])
        for layer, row in zip(layers, rows.unbind(0), strict=True):
            layer.selection = row
    return rows


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
        return layer.stored if layer.scores is None else layer.scores

    def scores(self, layer: nn.Module, training: bool) -> Tensor:
        if layer.scores is not None:
            return layer.scores
        return layer.stored.detach() if torch.is_grad_enabled() else layer.stored

    def group(self, layer: nn.Module) -> Hashable:
        return type(self), self.by, None if self.alone else self

    def select(self, layers: Sequence[nn.Module]) -> list[ops.Mask]:
        rules = [layer.rule for layer in layers] if self.alone else [self]
        traced = torch.compiler.is_compiling()  # which knows no views of buffers
        rows = torch.stack([layer.selection for layer in layers]) if traced else rows_of(layers)
        select_rows([layer.rule.ranked(layer) for layer in layers], rules, rows)
        if traced:
            for layer, row in zip(layers, rows.unbind(0), strict=True):
                layer.selection.copy_(row)
        return [ops.Mask(self.by, layer.selection) for layer in layers]

    def k(self, layer: nn.Module) -> int | None:
        exact = self.alone and not self.keeps_ties
        return self.count(layer.weight_shape.numel()) if exact else None

    def density_of(self, layer: nn.Module) -> float:
        return self.density

    def spec(self) -> dict:
        found = super().spec()
        found["removed"] = found.pop("rounding")  # its name in files that are there
        return found


@register("rule", "kth_value")
@dataclass(frozen=True)
class KthValue(TopK):
    """Scores at or above a layer's kth smallest: IteRand's mask (Chijiwa et al. 2021, section 3).

    With p = 1 - density and n scores, kth = 1 + round(p (n - 1)), half to even. Scores equal to the kth are all kept,
    so that more than n - kth + 1 may be; at least the largest always is.

    Args:
        density: kept fraction in [0, 1].
    """

    keeps_ties: ClassVar[bool] = True
    by: str = field(default="value", init=False)
    scope: str = field(default="layer", init=False)
    of: str = field(default="scores", init=False)
    rounding: str = field(default="floor", init=False)

    def count(self, n: int) -> int:
        """How many of n scores are kept, when no two are equal."""
        return n - pruned_below_kth(n, self.density)

    def spec(self) -> dict:
        return {"kind": self.kind, "density": self.density}


def pruned_below_kth(n: int, density: float) -> int:
    """kth - 1 = round(p (n - 1)) of IteRand, p = 1 - density taken as the decimal that was written."""
    p = round(1 - density, 12)
    return round(0.01 * (p * 100) * (n - 1))
