"""WeightSource: where a layer's weights come from, as what an op needs of them (csrc/base/source.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiddennet.ops.checks import check_seed, check_tensor
from hiddennet.ops.generate_weight import fill, sign_plane
from hiddennet.ops.inits import KINDS, InitScale, init_scale


@dataclass(frozen=True)
class WeightSource:
    """Built by the class methods below. Only signs keep a tensor: one bit a weight."""

    kind: str
    shape: torch.Size
    stored: Tensor | None = None
    plane: Tensor | None = None
    scale: float = 0.0
    seed: int = 0
    layer: int = 0
    redraw: int = 0
    through: bool = False  # stored weights: pass the gradient of pruned weights too

    @classmethod
    def store(cls, weight: Tensor, *, layer: int = 0, through: bool = False) -> WeightSource:
        """A float32 tensor. It gets the masked gradient, or with `through` that of every weight (neural wirings)."""
        check_tensor("WeightSource.store", "weight", weight, dtypes=(torch.float32,))
        return cls("stored", weight.shape, stored=weight, layer=layer, through=through)

    @classmethod
    def generate(
        cls,
        shape: tuple[int, ...],
        init: str = "signed_constant",
        *,
        seed: int,
        layer: int = 0,
        redraw: int = 0,
        mode: str = "fan_in",
        nonlinearity: str = "relu",
        density: float | None = None,
        device: torch.device | str = "cpu",
    ) -> WeightSource:
        """Weights drawn by the counter generator; arguments as in generate_weight."""
        op = "WeightSource.generate"
        check_seed(op, "seed", seed, 63)
        check_seed(op, "layer", layer, 32)
        check_seed(op, "redraw", redraw, 32)
        scaled = init_scale(tuple(shape), init, mode=mode, nonlinearity=nonlinearity, density=density)
        size = torch.Size(shape)
        plane = None
        if scaled.kind == "signs":
            plane = sign_plane(size.numel(), seed=seed, layer=layer, redraw=redraw, device=device)
        return cls(scaled.kind, size, None, plane, scaled.scale, seed, layer, redraw)

    def arguments(self) -> tuple[int, Tensor | None, Tensor | None, float, int, int, int]:
        """The ops' (source, stored, plane, scale, seed, layer, redraw)."""
        return KINDS.index(self.kind), self.stored, self.plane, self.scale, self.seed, self.layer, self.redraw

    def weight(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """All weights, none masked: a new tensor for generated ones, the stored tensor itself otherwise."""
        if self.stored is not None:
            return self.stored
        out = torch.empty(self.shape, dtype=dtype, device=device, memory_format=memory_format)
        scaled = InitScale(self.kind, self.scale)
        return fill(out, scaled, seed=self.seed, layer=self.layer, redraw=self.redraw)
