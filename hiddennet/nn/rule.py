"""Rule: which of a layer's weights are kept. The layer asks its rule and knows no kinds; a new rule is a subclass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict
from typing import ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.source import plain_fields


class Rule:
    """What a hidden layer asks. A rule is a value (a frozen dataclass); what changes is the layer's.

    Attributes:
        kind: its name in specs and registries.
        has_scores: whether the layer gets a score for each weight.
        selects: whether its masks are chosen by comparing numbers and kept until they move, see Selecting.
        steady: whether `state` draws and changes nothing, so that a weight may be made before its layer's forward.
        ships: what an artifact holds of it: "mask", "all", or "expectation" (the scores, which multiply the weights).
    """

    kind: ClassVar[str]
    has_scores: ClassVar[bool] = True
    selects: ClassVar[bool] = False
    ships: ClassVar[str] = "mask"
    steady: ClassVar[bool] = False

    def attach(self, layer: nn.Module) -> Rule:
        """Register what the layer must keep for the rule, beside scores; return the rule that it holds."""
        return self

    def __post_init__(self) -> None:
        plain_fields(self)

    def remake(self, layer: nn.Module) -> None:
        """Make again what `attach` registered that no state dict holds, on the layer's device."""

    def scores(self, layer: nn.Module, training: bool) -> Tensor | None:
        """The scores that the mask of `state` reads: float32 of the weight's shape, differentiable."""
        return layer.scores

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        """The mask of a forward, in training or in evaluation, for the scores as they are now."""
        raise NotImplementedError(f"{type(self).__name__}: expected a rule that defines state() or keep()")

    @torch.no_grad()
    def mask(self, layer: nn.Module) -> Tensor:
        """What evaluation keeps: bool of the weight's shape."""
        mask = self.state(layer, training=False)
        return ops.rule_mask(self.scores(layer, training=False), mask, layer.weight_shape, layer=layer.source.layer)

    def k(self, layer: nn.Module) -> int | None:
        """How many weights are kept whatever the scores; None: that depends on them."""
        return None

    def kept(self, layer: nn.Module) -> float:
        """How many weights are kept, an expectation where they are drawn."""
        k = self.k(layer)
        return int(layer.mask().count_nonzero()) if k is None else k

    def after_forward(self, layer: nn.Module) -> None:
        """Called after each forward in training."""

    def density_of(self, layer: nn.Module) -> float | None:
        """The kept fraction as the rule alone tells it; None: it does not."""
        return None

    def importance(self, layer: nn.Module) -> Tensor | None:
        """What the mask is ranked by, the higher the better kept: float32; None without scores."""
        return None if layer.scores is None else layer.scores.detach()

    def prunable(self, layer: nn.Module) -> Tensor | None:
        """The packed bits, 1 = may be kept, that pruning in rounds clears in place; None: the rule has none."""
        return None

    def spec(self) -> dict:
        """A plain dict that tells this rule from another; of state dicts and artifacts."""
        return {"kind": self.kind, **asdict(self)}


class Selecting(Rule):
    """A rule that compares numbers with each other: its mask is made once and kept until they move.

    Most rules of one's own are this and define `keep`: masks made in Python run through every op, and scores learn by
    the straight-through derivative of a selection by magnitude or by value, as in edge-popup.

    Attributes:
        by: "magnitude" or "value": by which order's derivative the scores learn.
        alone: whether a layer can select without the others of its network.
        rows: whether its masks are rows of topk_select, which layer.selection holds then.
    """

    selects: ClassVar[bool] = True
    steady: ClassVar[bool] = True
    by: str = "magnitude"
    alone: ClassVar[bool] = True
    rows: ClassVar[bool] = False

    def keep(self, layer: nn.Module, scores: Tensor) -> Tensor:
        """The mask for these scores: bool of the weight's shape. Without a gradient, and without waiting for a GPU."""
        raise NotImplementedError(f"{type(self).__name__}: expected a rule that defines keep() or select()")

    def ranked(self, layer: nn.Module) -> Tensor:
        """The tensor that is compared."""
        return layer.scores

    def group(self, layer: nn.Module) -> Hashable:
        """Layers of one group are selected by one call."""
        return type(self)

    def select(self, layers: Sequence[nn.Module]) -> list[ops.Mask]:
        """The masks of layers of one group, made without a gradient."""
        found = []
        for layer in layers:
            rule = layer.rule
            bits = ops.pack_mask(rule.keep(layer, rule.ranked(layer).detach()))
            found.append(ops.Mask("bits", layer.selection, bits=bits, order=rule.by))
        return found

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        return layer.selected()

    def importance(self, layer: nn.Module) -> Tensor | None:
        scores = super().importance(layer)
        return scores.abs() if scores is not None and self.by == "magnitude" else scores
