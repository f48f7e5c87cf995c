"""Sources: where a hidden layer's weights come from. A source is a description; the layer holds what it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from hiddennet.nn.latent import ACTIVATIONS
from hiddennet.ops.checks import check_choice, check_seed
from hiddennet.ops.inits import INITS, MODES, InitScale, init_scale

GRADIENTS = ("masked", "through")


@dataclass(frozen=True)
class Generated:
    """Frozen random weights, made from a seed whenever they are needed and never stored.

    Args:
        init: one of hiddennet.ops.INITS; constants keep one sign bit a weight in memory, the others nothing.
        seed: of the network, 0 <= seed < 2^63.
        layer: the layer's number in the generator's counter; `hide` counts layers itself where it is None.
        mode, nonlinearity: as in hiddennet.ops.init_scale.
        scale_fan: multiply the fan by the layer's density (edge-popup's "scaled" initialisations).
        redraw: how often the weights have been drawn anew.
        gain: factor on all weights.
    """

    init: str = "signed_constant"
    seed: int = 0
    layer: int | None = None
    mode: str = "fan_in"
    nonlinearity: str = "relu"
    scale_fan: bool = False
    redraw: int = 0
    gain: float = 1.0

    def __post_init__(self) -> None:
        check_choice("Generated", "init", self.init, tuple(INITS))
        check_choice("Generated", "mode", self.mode, MODES)
        check_seed("Generated", "seed", self.seed, 63)
        check_seed("Generated", "redraw", self.redraw, 32)
        if self.layer is not None:
            check_seed("Generated", "layer", self.layer, 32)

    def scaled(self, shape: torch.Size, density: float | None) -> InitScale:
        """Kind and scale for a weight of this shape; `density` is the layer's kept fraction, used by scale_fan."""
        if self.scale_fan and density is None:
            raise ValueError("Generated: expected a rule with a density for scale_fan; use TopK or Fixed")
        scale_by = density if self.scale_fan else None
        kind, scale = init_scale(
            tuple(shape), self.init, mode=self.mode, nonlinearity=self.nonlinearity, density=scale_by
        )
        return InitScale(kind, scale * self.gain)

    def spec(self) -> dict:
        """A plain dict that tells this source from another."""
        return {"kind": "generated", **asdict(self)}


@dataclass(frozen=True)
class Redrawn(Generated):
    """Random weights of which some are drawn anew while others stay (IteRand): hiddennet.redraw does so.

    A layer keeps what the seed alone does not tell: for signs one bit a weight, for other distributions two bytes that
    say which redraw the weight is of (beside a working copy of the weights, which no state dict holds).
    `decayed` weights (IteRand's "manual" mode) are mixtures of many draws and are kept as they are.
    """

    decayed: bool = False

    def spec(self) -> dict:
        return {**super().spec(), "kind": "redrawn"}


@dataclass(frozen=True)
class Flipped(Generated):
    """Random weights whose signs are learned (Bop) and whose magnitudes never change: +-|generated|.

    The layer holds them as a float32 parameter that gets the gradient of the revealed weights; a state dict and an
    artifact hold one sign bit a weight, the seed tells the rest.
    """

    trainable: bool = True
    gradient: str = "masked"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Flipped", "gradient", self.gradient, GRADIENTS)

    def spec(self) -> dict:
        found = {**super().spec(), "kind": "flipped"}
        del found["trainable"]
        return found


@dataclass(frozen=True)
class Activated(Generated):
    """Random weights times a function of trainable latent scores (Peek-a-Boo's "seed" layers).

    Args:
        activation: of hiddennet.nn.latent.ACTIVATIONS: "flipping" learns signs, "pruning" a mask, "ternary" both.

    The layer has `latent`, float32 of the weight's shape, and for "ternary" its two bounds `low` and `high`.
    """

    activation: str = "flipping"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Activated", "activation", self.activation, ACTIVATIONS)

    def spec(self) -> dict:
        return {**super().spec(), "kind": "activated"}


@dataclass(frozen=True)
class Stored:
    """Weights held in a tensor: learned, imported, or frozen.

    Args:
        weight: float32 of the layer's shape; None takes the layer's own.
        trainable: whether the weights get gradients.
        gradient: "masked" trains revealed weights only; "through" passes the gradient to every weight (neural wirings).
        layer: the layer's number in the counter of a sampled rule; `hide` counts layers itself where it is None.
    """

    weight: Tensor | None = field(default=None, compare=False)
    trainable: bool = False
    gradient: str = "masked"
    layer: int | None = None

    def __post_init__(self) -> None:
        check_choice("Stored", "gradient", self.gradient, GRADIENTS)

    def spec(self) -> dict:
        """A plain dict that tells this source from another; the weights themselves are in the state dict."""
        return {"kind": "stored", "gradient": self.gradient, "layer": self.layer}
