"""Generated: weights made from a seed whenever they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.source import Put, Source, without_weight
from hiddennet.ops.checks import check_choice, check_seed
from hiddennet.ops.generate_weight import fill, sign_plane
from hiddennet.ops.inits import INITS, MODES, InitScale, init_scale
from hiddennet.registry import register


@register("source", "generated")
@dataclass(frozen=True)
class Generated(Source):
    """Frozen random weights, made from a seed whenever they are needed and never stored.

    Args:
        init: one of hiddennet.ops.INITS; constants keep one sign bit a weight in memory, the others nothing.
        seed: of the network, 0 <= seed < 2^63.
        layer: the layer's number in the generator's counter; `hide` counts layers itself where it is None.
        mode, nonlinearity: as in hiddennet.ops.init_scale.
        scale_fan: multiply the fan by the layer's density (edge-popup's "scaled" initialisations).
        redraw: how often the weights have been drawn anew.
        gain: factor on all weights.
        scale: of the weights, in place of what all these give for a layer's shape (loaded artifacts know it).
    """

    init: str = "signed_constant"
    seed: int = 0
    layer: int | None = None
    mode: str = "fan_in"
    nonlinearity: str = "relu"
    scale_fan: bool = False
    redraw: int = 0
    gain: float = 1.0
    scale: float | None = field(default=None, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_choice(name, "init", self.init, tuple(INITS))
        check_choice(name, "mode", self.mode, MODES)
        check_seed(name, "seed", self.seed, 63)
        check_seed(name, "redraw", self.redraw, 32)
        if self.layer is not None:
            check_seed(name, "layer", self.layer, 32)

    def scaled(self, shape: torch.Size, density: float | None) -> InitScale:
        """Kind and scale for a weight of this shape; `density` is the layer's kept fraction, used by scale_fan."""
        fan_density = None
        if self.scale_fan and self.scale is None:
            if density is None:
                raise ValueError(
                    f"{type(self).__name__}: expected a rule with a density for scale_fan; use TopK or Fixed"
                )
            fan_density = density
        kind, scale = init_scale(
            tuple(shape), self.init, mode=self.mode, nonlinearity=self.nonlinearity, density=fan_density
        )
        return InitScale(kind, scale * self.gain if self.scale is None else self.scale)

    def attach(self, layer: nn.Module, fresh: bool) -> Generated:
        numbered = self if self.layer is not None else replace(self, layer=0)
        layer.scaled = self.scaled(layer.weight_shape, layer.rule.density_of(layer))
        numbered.attach_drawn(layer)
        return numbered

    def attach_drawn(self, layer: nn.Module) -> None:
        """Register what the layer keeps of the drawn weights; its `scaled` says what they are."""
        without_weight(layer)
        layer.register_buffer("sign_plane", self.first_signs(layer), persistent=False)

    def remake(self, layer: nn.Module) -> None:
        if "sign_plane" in layer._buffers and layer._buffers["sign_plane"] is None:
            layer.sign_plane = self.first_signs(layer)

    def first_signs(self, layer: nn.Module) -> Tensor | None:
        """The packed signs as drawn; None where weights have other numbers than plus or minus a constant."""
        device = layer.selection.device
        if layer.scaled.kind != "signs" or device.type == "meta":
            return None
        size = layer.weight_shape.numel()
        return sign_plane(size, seed=self.seed, layer=self.layer, redraw=self.redraw, device=device)

    def first_weights(self, layer: nn.Module, device: torch.device | None = None) -> Tensor:
        """The weights as drawn: float32 of the weight's shape, on the layer's device unless told."""
        out = torch.empty(layer.weight_shape, device=layer.selection.device if device is None else device)
        if out.device.type != "meta":
            fill(out, layer.scaled, seed=self.seed, layer=self.layer, redraw=self.redraw)
        return out

    def state(self, layer: nn.Module) -> ops.WeightSource:
        scaled, plane, last = layer.scaled, layer._buffers.get("sign_plane"), layer._drawn.value
        keeps = not torch.compiler.is_compiling()
        if keeps and last is not None and last[0] is self and last[1] is scaled and last[2] is plane:
            return last[3]
        shape, draw = layer.weight_shape, (self.seed, self.layer, self.redraw)
        made = ops.WeightSource(scaled.kind, shape, None, plane, scaled.scale, *draw)
        if keeps:
            layer._drawn.value = self, scaled, plane, made
        return made

    def shipped(self, layer: nn.Module, mask: Tensor, put: Put) -> dict[str, Any]:
        return {"scale": layer.scaled.scale}

    def spec(self) -> dict:
        found = super().spec()
        del found["scale"]
        return found
