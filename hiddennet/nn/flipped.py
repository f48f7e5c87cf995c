"""Flipped: random weights whose signs are learned and whose magnitudes never change. Peek-a-Boo's layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.source import GRADIENTS, Put, Take, stored_state, with_signs
from hiddennet.nn.sources import Generated
from hiddennet.ops.checks import check_choice
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.inits import InitScale
from hiddennet.registry import register


class SignsShipped(Generated):
    """Generated magnitudes of which an artifact holds the signs, one bit a kept weight."""

    def signed(self, layer: nn.Module) -> Tensor:
        """The weights with their signs as they are now."""
        raise NotImplementedError

    def shipped(self, layer: nn.Module, mask: Tensor, put: Put) -> dict[str, Any]:
        put("sign_bits", ops.pack_mask(torch.signbit(self.signed(layer).detach().cpu().contiguous()[mask])))
        kind, scale = layer.scaled
        return {**self.shipped_as_stored(layer), "weights": {"as": "signs", "kind": kind, "scale": scale}}

    @classmethod
    def received(cls, entry: dict[str, Any], mask: Tensor | None, take: Take) -> Tensor:
        weights, kept, source = entry["weights"], entry["kept"], entry["drawn_from"]
        drawn = torch.empty(tuple(entry["shape"]))
        fill(drawn, InitScale(weights["kind"], weights["scale"]), **{k: source[k] for k in ("seed", "layer", "redraw")})
        return with_signs(drawn.flatten() if mask is None else drawn[mask], take("sign_bits", (kept + 7) // 8))


@register("source", "flipped")
@dataclass(frozen=True)
class Flipped(SignsShipped):
    """Random weights whose signs are learned (Bop) and whose magnitudes never change: +-|generated|.

    The layer holds them as a float32 parameter that gets the gradient of the kept weights; a state dict and an
    artifact hold one sign bit a weight, the seed tells the rest.
    """

    trainable: bool = True
    gradient: str = "masked"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Flipped", "gradient", self.gradient, GRADIENTS)

    @property
    def learns(self) -> str:
        return "signs" if self.trainable else "nothing"

    def attach_drawn(self, layer: nn.Module) -> None:
        layer.weight = nn.Parameter(self.first_weights(layer), requires_grad=self.trainable)

    def state(self, layer: nn.Module) -> ops.WeightSource:
        return stored_state(layer, layer.stored, through=self.gradient == "through")

    def save(self, layer: nn.Module, state: dict[str, Any], prefix: str) -> None:
        del state[f"{prefix}weight"]
        state[f"{prefix}signs"] = ops.pack_mask(torch.signbit(self.signed(layer)))

    def load(self, layer: nn.Module, state: dict[str, Any], prefix: str) -> None:
        signs = state.pop(f"{prefix}signs", None)
        if signs is not None:
            state[f"{prefix}weight"] = with_signs(self.first_weights(layer, signs.device), signs)

    @torch.no_grad()
    def signed(self, layer: nn.Module) -> Tensor:
        """The layer's weights, whose magnitudes are sure to be the seed's.

        Raises RuntimeError when they no longer are: what trained the weights did more than flip them.
        """
        first = self.first_weights(layer, layer.stored.device)
        # normals differ by a last bit between a CPU, where the layer may have been made, and a GPU
        if not torch.allclose(layer.stored.abs(), first.abs(), rtol=1e-6, atol=0.0):
            raise RuntimeError(
                f"{type(layer).__name__}: expected Flipped weights to keep the magnitudes that their seed gives, got "
                "others; train their signs with hiddennet.optim.Bop, or use Stored(trainable=True) for weights that "
                "any optimiser may change"
            )
        return layer.stored.detach()

    def spec(self) -> dict:
        found = super().spec()
        del found["trainable"]
        return found
