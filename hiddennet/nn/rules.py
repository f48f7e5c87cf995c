"""Rules: which weights a hidden layer reveals. A rule is a description; the layer holds scores and selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from torch import Tensor

from hiddennet import ops
from hiddennet.ops.checks import ORDERS, check_choice, check_seed

SCOPES = ("layer", "global")
EVALUATIONS = ("expectation", "draw")


ROUNDINGS = ("naive", "probabilistic", "all_ones")
REMOVED = ("floor", "ceil", "decimal")


def kept_count(n: int, density: float, removed: str = "floor") -> int:
    """How many of n weights a density keeps: n - int((1 - density) n), edge-popup's rounding.

    removed: "ceil" rounds the pruned number up, as Rare Gems' global edge-popup does; "decimal" takes 1 - density as
    the decimal that was written, as neural wirings do, where floats give 0.19999999999999996 for 1 - 0.8.
    """
    pruned = (round(1 - density, 12) if removed == "decimal" else 1 - density) * n
    return n - (min(n, math.ceil(pruned)) if removed == "ceil" else int(pruned))


@dataclass(frozen=True)
class TopK:
    """The highest scores. Edge-popup eq. 3.

    Args:
        density: kept fraction in [0, 1]; exactly n - int((1 - density) n) of n weights are kept.
        by: rank "magnitude" (edge-popup) or signed "value" (IteRand).
        scope: "layer" ranks each layer by itself, "global" all layers of the model together.
        of: "scores", or "weights": a layer without scores that ranks its own stored weights (neural wirings).
        removed: how the pruned number is rounded, see kept_count.
    """

    density: float
    by: str = "magnitude"
    scope: str = "layer"
    of: str = "scores"
    removed: str = "floor"
    keeps_ties: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.density <= 1.0:
            raise ValueError(f"TopK: expected a density in [0, 1] (the kept fraction), got {self.density}")
        check_choice("TopK", "by", self.by, ORDERS)
        check_choice("TopK", "scope", self.scope, SCOPES)
        check_choice("TopK", "of", self.of, ("scores", "weights"))
        check_choice("TopK", "removed", self.removed, REMOVED)

    def count(self, n: int) -> int:
        """How many of n ranked weights are kept."""
        return kept_count(n, self.density, self.removed)

    @property
    def has_scores(self) -> bool:
        return self.of == "scores"

    def spec(self) -> dict:
        ranking = {"by": self.by, "scope": self.scope, "of": self.of, "removed": self.removed}
        return {"kind": "topk", "density": self.density, **ranking}


@dataclass(frozen=True)
class KthValue(TopK):
    """Scores at or above a layer's kth smallest: IteRand's mask (Chijiwa et al. 2021, section 3).

    With p = 1 - density and n scores, kth = 1 + round(p (n - 1)), half to even. Scores equal to the kth are all kept,
    so that more than n - kth + 1 may be; at least the largest always is.

    Args:
        density: kept fraction in [0, 1].
    """

    by: str = field(default="value", init=False)
    scope: str = field(default="layer", init=False)
    of: str = field(default="scores", init=False)
    removed: str = field(default="floor", init=False)
    keeps_ties: ClassVar[bool] = True

    def count(self, n: int) -> int:
        """How many of n scores are kept, when no two are equal."""
        return n - removed_below_kth(n, self.density)

    def spec(self) -> dict:
        return {"kind": "kth_value", "density": self.density}


@dataclass(frozen=True)
class TargetedDropout(TopK):
    """The largest of the layer's own stored weights; in training each other weight too, unless it is dropped.

    Gomez et al. 2019 (arXiv 1905.13678), as "Discovering Neural Wirings" compares with it: the candidates are all
    weights but the largest. Gradients reach what takes part in the step (with a source Stored(trainable=True), whose
    gradient is "masked").

    Args:
        density: kept fraction in [0, 1] in evaluation.
        drop: probability with which a candidate is left out of a training forward, in [0, 1].
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        scope, removed: as in TopK.
    """

    by: str = field(default="magnitude", init=False)
    scope: str = field(default="layer", kw_only=True)
    of: str = field(default="weights", init=False)
    removed: str = field(default="decimal", kw_only=True)
    drop: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.drop <= 1.0:
            raise ValueError(f"TargetedDropout: expected drop to be a probability in [0, 1], got {self.drop}")
        check_seed("TargetedDropout", "seed", self.seed, 63)

    def spec(self) -> dict:
        return {"kind": "targeted_dropout", **asdict(self)}


def select_rows(ranked: Sequence[Tensor], rules: Sequence[TopK], hint: Tensor | None) -> Tensor:
    """Selection rows, int32 [layers, 4], of tensors ranked by TopK rules of one order and kind, in one call.

    rules: one a tensor, or a single one that ranks all tensors together.
    """
    sizes = [t.numel() for t in ranked]
    if len(rules) == 1:
        sizes = [sum(sizes)]
    k = [rule.count(n) for rule, n in zip(rules, sizes, strict=True)]
    rows = ops.topk_select(ranked, k, by=rules[0].by, hint=hint)
    if rules[0].keeps_ties:
        rows[:, 1] = 0
    return rows


def removed_below_kth(n: int, density: float) -> int:
    """kth - 1 = round(p (n - 1)) of IteRand, p = 1 - density taken as the decimal that was written."""
    p = round(1 - density, 12)
    return round(0.01 * (p * 100) * (n - 1))


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
class Rounded:
    """Scores in [0, 1], rounded, among the weights not yet struck out. Gem-Miner (Sreenivasan et al. 2022, section 3).

    The layer keeps `flags`, one bit a weight: 1 = not struck out. The mask is 1[score > threshold] and flag, or, with
    quantized=False, score x flag while training. The gradient passes straight through to every score with its flag set.

    Args:
        threshold: scores above it, strictly, are rounded to 1.
        quantized: whether training computes with rounded scores.
        rounding: in evaluation and, with quantized, in training: "naive" by the threshold; "probabilistic" to 1 with
            the score as its probability, drawn anew at each training forward and once for evaluation; "all_ones" to 1.
        noise: standard deviation of a normal added to scores before "naive" rounding.
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        learn_threshold: the threshold is a parameter of each layer (of the layer's scores' range [0, 1]).
        threshold_gradient: -1 is the sign of the straight-through derivative, +1 what the original computes.
    """

    threshold: float = 0.5
    quantized: bool = True
    rounding: str = "naive"
    noise: float = 0.0
    seed: int = 0
    learn_threshold: bool = False
    threshold_gradient: int = -1
    has_scores = True

    def __post_init__(self) -> None:
        check_choice("Rounded", "rounding", self.rounding, ROUNDINGS)
        check_seed("Rounded", "seed", self.seed, 63)
        if not self.noise >= 0.0:
            raise ValueError(f"Rounded: expected a noise of 0 or more, got {self.noise}")
        if self.learn_threshold and (self.rounding != "naive" or not self.quantized or self.noise):
            raise ValueError("Rounded: expected naive rounding of quantized scores without noise with learn_threshold")

    def spec(self) -> dict:
        return {"kind": "rounded", **asdict(self)}


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


Rule = TopK | Threshold | Rounded | Sampled | Fixed | All
