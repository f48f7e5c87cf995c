"""Rules: which weights a hidden layer reveals. A rule is a description; the layer holds scores and selection."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hiddennet.ops.checks import ORDERS, check_choice, check_seed

SCOPES = ("layer", "global")
EVALUATIONS = ("expectation", "draw")


def kept_count(n: int, density: float) -> int:
    """How many of n weights a density keeps: n - int((1 - density) n), edge-popup's rounding."""
    return n - int((1 - density) * n)


@dataclass(frozen=True)
class TopK:
    """The highest scores. Edge-popup eq. 3.

    Args:
        density: kept fraction in [0, 1]; exactly n - int((1 - density) n) of n weights are kept.
        by: rank "magnitude" (edge-popup) or signed "value" (IteRand).
        scope: "layer" ranks each layer by itself, "global" all layers of the model together.
        of: "scores", or "weights": a layer without scores that ranks its own stored weights (neural wirings).
    """

    density: float
    by: str = "magnitude"
    scope: str = "layer"
    of: str = "scores"

    def __post_init__(self) -> None:
        if not 0.0 <= self.density <= 1.0:
            raise ValueError(f"TopK: expected a density in [0, 1] (the kept fraction), got {self.density}")
        check_choice("TopK", "by", self.by, ORDERS)
        check_choice("TopK", "scope", self.scope, SCOPES)
        check_choice("TopK", "of", self.of, ("scores", "weights"))

    @property
    def has_scores(self) -> bool:
        return self.of == "scores"

    def spec(self) -> dict:
        return {"kind": "topk", "density": self.density, "by": self.by, "scope": self.scope, "of": self.of}


@dataclass(frozen=True)
class Threshold:
    """Scores (or magnitudes) at or above t; ties at t are kept."""

    t: float
    by: str = "value"
    has_scores = True

    def __post_init__(self) -> None:
        check_choice("Threshold", "by", self.by, ORDERS)

    def spec(self) -> dict:
        return {"kind": "threshold", "t": self.t, "by": self.by}


@dataclass(frozen=True)
class Sampled:
    """Bernoulli(sigmoid(score)), drawn anew at each training forward. Zhou et al. 2019, section 4.1 ("supermasks").

    Args:
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        evaluation: "expectation" multiplies weights by sigmoid(score); "draw" uses one fixed draw.
    """

    seed: int = 0
    evaluation: str = "expectation"
    has_scores = True

    def __post_init__(self) -> None:
        check_seed("Sampled", "seed", self.seed, 63)
        check_choice("Sampled", "evaluation", self.evaluation, EVALUATIONS)

    def spec(self) -> dict:
        return {"kind": "sampled", "seed": self.seed, "evaluation": self.evaluation}


@dataclass(frozen=True)
class Fixed:
    """A mask that does not change: bool of the layer's weight shape. A layer keeps its bits; its rule holds None."""

    mask: Tensor | None = field(compare=False)
    has_scores = False

    def spec(self) -> dict:
        return {"kind": "fixed"}


@dataclass(frozen=True)
class All:
    """Every weight."""

    has_scores = False

    def spec(self) -> dict:
        return {"kind": "all"}


Rule = TopK | Threshold | Sampled | Fixed | All
