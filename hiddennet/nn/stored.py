"""Stored: weights held in a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.source import GRADIENTS, Put, Source, put_values, stored_state
from hiddennet.ops.checks import check_choice
from hiddennet.registry import register


@register("source", "stored")
@dataclass(frozen=True)
class Stored(Source):
    """Weights held in a tensor: learned, imported, or frozen.

    Args:
        weight: float32 of the layer's shape; None takes the layer's own.
        trainable: whether the weights get gradients.
        gradient: "masked" trains kept weights only; "through" passes the gradient to every weight (neural wirings).
        layer: the layer's number in the counter of a sampled rule; `hide` counts layers itself where it is None.
    """

    weight: Tensor | None = field(default=None, compare=False)
    trainable: bool = False
    gradient: str = "masked"
    layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Stored", "gradient", self.gradient, GRADIENTS)

    @property
    def learns(self) -> str:
        return "weights" if self.trainable else "nothing"

    def attach(self, layer: nn.Module, fresh: bool) -> Stored:
        own, given = layer.stored, self.weight
        if given is None and fresh:
            nn.init.kaiming_uniform_(own, a=math.sqrt(5))
        if given is not None and given.shape != own.shape:
            raise ValueError(
                f"{type(layer).__name__}: expected a stored weight of shape {tuple(own.shape)}, got "
                f"{tuple(given.shape)}"
            )
        if given is None and own.dtype == torch.float32:
            own.requires_grad_(self.trainable)
        else:
            weight = (own if given is None else given).detach().to(device=own.device, dtype=torch.float32)
            layer.weight = nn.Parameter(weight, requires_grad=self.trainable)
        return replace(self, weight=None, layer=self.layer or 0)

    def state(self, layer: nn.Module) -> ops.WeightSource:
        return stored_state(layer, layer.stored, through=self.gradient == "through")

    def shipped(self, layer: nn.Module, mask: Tensor, put: Put) -> dict[str, Any]:
        weight = layer.stored.detach().cpu().contiguous()
        return {"weights": put_values(weight[mask], put), "trainable": layer.stored.requires_grad}

    def spec(self) -> dict:
        """A plain dict that tells this source from another; the weights themselves are in the state dict."""
        return {"kind": self.kind, "gradient": self.gradient, "layer": self.layer}
