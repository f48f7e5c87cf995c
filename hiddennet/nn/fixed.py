"""Rules that compare nothing: scores with a number, a mask that is given, every weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rule import Rule
from hiddennet.ops.checks import ORDERS, check_choice
from hiddennet.registry import register


@register("rule", "threshold")
@dataclass(frozen=True)
class Threshold(Rule):
    """Scores (or magnitudes) at or above t; ties at t are kept."""

    t: float
    by: str = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Threshold", "by", self.by, ORDERS)

    def attach(self, layer: nn.Module) -> Threshold:
        self.remake(layer)
        return self

    def remake(self, layer: nn.Module) -> None:
        layer.selection.copy_(ops.Mask.threshold(self.t, self.by).selection)

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        return ops.Mask(self.by, layer.selection)


@register("rule", "fixed")
@dataclass(frozen=True, init=False)
class Fixed(Rule):
    """A mask that does not change: bool of the layer's weight shape. A layer keeps its bits; its rule holds None."""

    has_scores: ClassVar[bool] = False
    steady: ClassVar[bool] = True
    given: Tensor | None = field(compare=False, repr=False)

    def __init__(self, mask: Tensor | None = None) -> None:
        object.__setattr__(self, "given", mask)

    @staticmethod
    def packed(bits: Tensor, kept: int) -> Fixed:
        """Of the bits of hiddennet.ops.pack_mask, `kept` of them set: nothing of them is looked at."""
        return _Packed(bits, kept)

    def attach(self, layer: nn.Module) -> Fixed:
        given, device = self.given, layer.selection.device
        if given is None or given.shape != layer.weight_shape:
            got = None if given is None else tuple(given.shape)
            raise ValueError(f"{type(layer).__name__}: expected a mask of shape {tuple(layer.weight_shape)}, got {got}")
        if given.dtype != torch.bool and not given.is_meta and not bool(((given == 0) | (given == 1)).all()):
            raise ValueError(
                f"{type(layer).__name__}: expected a mask of 0 and 1 for Fixed, got other numbers of {given.dtype}; "
                "scores have rules of their own, such as TopK and Threshold"
            )
        layer.register_buffer("mask_bits", ops.pack_mask(given.bool()).to(device))
        known = not (given.is_meta or device.type == "meta")
        layer._kept_at_first = int(given.count_nonzero()) if known else None
        return Fixed(None)

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        return ops.Mask("bits", layer.selection, bits=layer.mask_bits)

    def density_of(self, layer: nn.Module) -> float | None:
        kept = layer._kept_at_first
        return None if kept is None else kept / max(1, layer.weight_shape.numel())

    def prunable(self, layer: nn.Module) -> Tensor:
        return layer.mask_bits

    def spec(self) -> dict:
        return {"kind": self.kind}


class _Packed(Fixed):
    def __init__(self, bits: Tensor, kept: int) -> None:
        super().__init__(bits)
        object.__setattr__(self, "kept", kept)

    def attach(self, layer: nn.Module) -> Fixed:
        n = layer.weight_shape.numel()
        if self.given.numel() != (n + 7) // 8:
            raise ValueError(f"{type(layer).__name__}: expected {n} bits of a mask, got {self.given.numel()} bytes")
        layer.register_buffer("mask_bits", self.given.to(layer.selection.device))
        layer._kept_at_first = self.kept
        return Fixed(None)


@register("rule", "all")
@dataclass(frozen=True)
class All(Rule):
    """Every weight."""

    has_scores: ClassVar[bool] = False
    steady: ClassVar[bool] = True
    ships: ClassVar[str] = "all"

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        return ops.Mask("all", layer.selection)

    def density_of(self, layer: nn.Module) -> float:
        return 1.0
