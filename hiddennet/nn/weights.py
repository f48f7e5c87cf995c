"""WeightState: where a hidden layer's weights are kept, or from what they are made, by its source."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.latent import BOUND, activated, draw_latent
from hiddennet.nn.rules import All, Fixed, TopK
from hiddennet.nn.sources import Activated, Flipped, Generated, Redrawn, Stored
from hiddennet.ops.generate_weight import fill, sign_plane


class WeightState:
    """The part of a hidden layer that belongs to its source.

    Attributes:
        scaled: kind and scale of generated weights. sign_plane: uint8 bits of constants with signs.
        redraws: int16 of the weight's shape, which redraw a weight is of. drawn: float32 working copy of such weights.
    """

    def _add_source(self, source, device: torch.device) -> None:
        self.source = source
        if isinstance(source, Stored):
            weight = source.weight if source.weight is not None else self.weight.detach()
            if weight.shape != self.weight_shape:
                raise ValueError(
                    f"{type(self).__name__}: expected a stored weight of shape {tuple(self.weight_shape)}, "
                    f"got {tuple(weight.shape)}"
                )
            self.weight = nn.Parameter(
                weight.detach().to(device=device, dtype=torch.float32), requires_grad=source.trainable
            )
            self.source = Stored(None, source.trainable, source.gradient, source.layer or 0)
            self._worn = False
            return
        if not isinstance(source, Generated):
            raise TypeError(
                f"{type(self).__name__}: expected source to be Generated or Stored, got {type(source).__name__}"
            )
        if isinstance(self.rule, TopK) and not self.rule.has_scores:
            raise ValueError(f"{type(self).__name__}: expected a Stored source for TopK(of='weights'), got {source}")
        if source.layer is None:
            self.source = source = dataclasses.replace(source, layer=0)
        self.scaled = source.scaled(self.weight_shape, self._nominal_density())
        if isinstance(source, Flipped):
            self.weight = nn.Parameter(self._first_weights(device), requires_grad=source.trainable)
            self._worn = False
            return
        del self.weight
        self.register_parameter("weight", None)
        redrawn = isinstance(source, Redrawn)
        self._worn = redrawn and (self.scaled.drawn or source.decayed)
        latent = isinstance(source, Activated)
        if latent:
            self._add_latent(device)
        signs = self.scaled.kind == "signs" and not self._worn and not latent
        self.register_buffer("sign_plane", self._first_plane(device) if signs else None, persistent=redrawn)
        redraws = torch.zeros(self.weight_shape, dtype=torch.int16, device=device)
        self.register_buffer("redraws", redraws if self._worn and not source.decayed else None)
        kept = self._first_weights(device) if self._worn or latent else None
        self.register_buffer("drawn", kept, persistent=self._decayed)
        self._drawn_is_stale = False

    def _add_latent(self, device: torch.device) -> None:
        activation = self.source.activation
        self.latent = nn.Parameter(draw_latent(torch.empty(self.weight_shape, device=device), activation))
        if activation == "ternary":
            self.low = nn.Parameter(torch.full((1,), -BOUND, device=device))
            self.high = nn.Parameter(torch.full((1,), BOUND, device=device))

    def activated_weight(self) -> Tensor:
        """The weights of an Activated source: float32, differentiable in the latent scores."""
        activation = self.source.activation
        bounds = (self.low, self.high) if activation == "ternary" else None
        return activated(self.drawn, self.latent, activation, bounds)

    @property
    def _decayed(self) -> bool:
        return isinstance(self.source, Redrawn) and self.source.decayed

    def _first_plane(self, device: torch.device) -> Tensor | None:
        if device.type == "meta":
            return None
        source = self.source
        return sign_plane(
            self.weight_shape.numel(), seed=source.seed, layer=source.layer, redraw=source.redraw, device=device
        )

    def _first_weights(self, device: torch.device) -> Tensor:
        out, source = torch.empty(self.weight_shape, device=device), self.source
        if device.type != "meta":
            fill(out, self.scaled, seed=source.seed, layer=source.layer, redraw=source.redraw)
        return out

    @property
    def redrawable(self) -> Tensor:
        """What hiddennet.redraw changes: the sign plane, or the float32 weights."""
        return self.sign_plane if self.sign_plane is not None else self._drawn_weights()

    def _drawn_weights(self) -> Tensor:
        """The working copy of redrawn weights, made again after a state dict was loaded."""
        if self._drawn_is_stale and self.redraws is not None:
            source = self.source
            self.drawn.copy_(ops.redrawn_weight(self.redraws, self.scaled, seed=source.seed, layer=source.layer))
        self._drawn_is_stale = False
        return self.drawn

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        signs = state_dict.pop(f"{prefix}signs", None) if isinstance(self.source, Flipped) else None
        if signs is not None:
            state_dict[f"{prefix}weight"] = with_signs(self._first_weights(signs.device), signs)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if signs is not None:
            del state_dict[f"{prefix}weight"]
            state_dict[f"{prefix}signs"] = signs
        self._drawn_is_stale = True

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.source, Flipped):
            del destination[f"{prefix}weight"]
            destination[f"{prefix}signs"] = ops.pack_mask(torch.signbit(self.known_magnitudes()))

    @torch.no_grad()
    def known_magnitudes(self) -> Tensor:
        """The Flipped weights, whose magnitudes are sure to be the seed's.

        Raises RuntimeError when they no longer are: what trained the weights did more than flip them.
        """
        first = self._first_weights(self.weight.device)
        # normals differ by a last bit between a CPU, where the layer may have been made, and a GPU
        if not torch.allclose(self.weight.abs(), first.abs(), rtol=1e-6, atol=0.0):
            raise RuntimeError(
                f"{type(self).__name__}: expected Flipped weights to keep the magnitudes that their seed gives, got "
                "others; train their signs with hiddennet.optim.Bop, or use Stored(trainable=True) for weights that "
                "any optimiser may change"
            )
        return self.weight.detach()

    def _nominal_density(self) -> float | None:
        """The kept fraction known from the rule alone."""
        if isinstance(self.rule, TopK):
            return self.rule.density
        if isinstance(self.rule, Fixed):
            return None if self._kept is None else self._kept / max(1, self.weight_shape.numel())
        return 1.0 if isinstance(self.rule, All) else None

    def source_state(self) -> ops.WeightSource:
        """The source as the ops take it."""
        source = self.source
        if isinstance(source, (Stored, Flipped)):
            through = source.gradient == "through"
            return ops.WeightSource(
                "stored", self.weight_shape, stored=self.weight, layer=source.layer, through=through
            )
        if isinstance(source, Activated):
            return ops.WeightSource("stored", self.weight_shape, stored=self.activated_weight(), layer=source.layer)
        if self._worn:
            return ops.WeightSource("stored", self.weight_shape, stored=self._drawn_weights(), layer=source.layer)
        kind, scale = self.scaled
        return ops.WeightSource(
            kind,
            self.weight_shape,
            plane=self.sign_plane,
            scale=scale,
            seed=source.seed,
            layer=source.layer,
            redraw=source.redraw,
        )


def with_signs(weight: Tensor, signs: Tensor) -> Tensor:
    """The weight's magnitudes with the signs of a plane (uint8 [ceil(n / 8)], OIHW order, bit 1 = negative)."""
    negative, magnitude = ops.unpack_mask(signs, tuple(weight.shape)), weight.abs()
    return torch.where(negative, -magnitude, magnitude)


@torch.no_grad()
def source_weight(layer: WeightState) -> torch.Tensor:
    """All weights of a hidden layer, revealed or not: float32 of the weight's shape."""
    return ops.masked_weight(None, ops.Rule("all", layer.selection), source=layer.source_state())
