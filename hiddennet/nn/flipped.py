"""Random weights of which a layer learns the signs (Flipped), or latent scores whose function multiplies them
(Activated: theta * a(t)). The magnitudes are the seed's. Peek-a-Boo's layers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.source import GRADIENTS, Put, Take, stored_state, with_signs, without_weight
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


ACTIVATIONS = ("pruning", "flipping", "ternary", "none")
BOUND = 0.1  # lo = -0.1, hi = 0.1
_RANGES = {"pruning": (0.01, 0.10), "flipping": (0.01, 0.10), "ternary": (-1.0, 1.0), "none": (0.0, 1.0)}


class _Straight(torch.autograd.Function):
    """theta * a(t), where the backward takes a as the identity."""

    @staticmethod
    def forward(ctx, t, frozen, activation):
        ctx.save_for_backward(frozen)
        return frozen * (t.sign() if activation == "flipping" else (t > 0).to(t.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


class _Ternary(torch.autograd.Function):
    """sign(relu(t - hi)) - sign(relu(lo - t)), where the backward takes the signs as identities."""

    @staticmethod
    def forward(ctx, t, low, high):
        ctx.save_for_backward(t, low, high)
        return (t > high).to(t.dtype) - (t < low).to(t.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        t, low, high = ctx.saved_tensors
        above, below = grad * (t > high), grad * (t < low)
        return above + below, -below.sum().view_as(low), -above.sum().view_as(high)


def activated(frozen: Tensor, t: Tensor, activation: str, bounds: tuple[Tensor, Tensor] | None) -> Tensor:
    """frozen * a(t), differentiable in the latent scores t and the bounds (low, high) of "ternary"."""
    if activation in ("pruning", "flipping"):
        return _Straight.apply(t, frozen, activation)
    return frozen * _Ternary.apply(t, *bounds) if activation == "ternary" else frozen.clone()


@register("source", "activated")
@dataclass(frozen=True)
class Activated(SignsShipped):
    """Random weights times a function of trainable latent scores (Peek-a-Boo's "seed" layers).

    Args:
        activation: one of ACTIVATIONS. "pruning" learns a mask: 1 where t > 0, else 0; "flipping" signs: sign(t), 0 at
            0; both with the gradient of the identity. "ternary" both: 1 above `high`, -1 below `low`, else 0; its
            gradient is the identity's where it is not 0, and goes to the two bounds as well. "none": 1.

    The layer has `latent`, float32 of the weight's shape, and for "ternary" its two bounds `low` and `high`.
    """

    activation: str = "flipping"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Activated", "activation", self.activation, ACTIVATIONS)

    def attach_drawn(self, layer: nn.Module) -> None:
        without_weight(layer)
        device = layer.selection.device
        scores = torch.empty(layer.weight_shape, device=device)
        layer.latent = nn.Parameter(nn.init.uniform_(scores, *_RANGES[self.activation]))  # by torch's generator
        if self.activation == "ternary":
            layer.low = nn.Parameter(torch.full((1,), -BOUND, device=device))
            layer.high = nn.Parameter(torch.full((1,), BOUND, device=device))
        layer.register_buffer("drawn", self.first_weights(layer), persistent=False)

    def remake(self, layer: nn.Module) -> None:
        layer.drawn = self.first_weights(layer)

    def signed(self, layer: nn.Module) -> Tensor:
        """The weights: float32, differentiable in the latent scores."""
        bounds = (layer.low, layer.high) if self.activation == "ternary" else None
        return activated(layer.drawn, layer.latent, self.activation, bounds)

    def state(self, layer: nn.Module) -> ops.WeightSource:
        return stored_state(layer, self.signed(layer))

    def narrow(self, layer: nn.Module, mask: Tensor) -> Tensor:
        return mask & (self.signed(layer) != 0)
