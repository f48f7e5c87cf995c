"""Redrawn weights, and redraw, which draws those that are not kept anew. IteRand (Chijiwa et al. 2021), algorithm 1."""

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import hidden_layers, select
from hiddennet.nn.rules import Ranking, rows_of
from hiddennet.nn.source import Put, Source, Take, stored_state, without_weight
from hiddennet.nn.sources import Generated
from hiddennet.ops.inits import InitScale
from hiddennet.registry import register


@register("source", "redrawn")
@dataclass(frozen=True)
class Redrawn(Generated):
    """Random weights of which some are drawn anew while others stay (IteRand): hiddennet.redraw does so.

    A layer keeps what the seed alone does not tell: for signs one bit a weight, for other distributions two bytes that
    say which redraw the weight is of, `redraws` (beside a working copy, `drawn`, which no state dict holds). `decayed`
    weights (IteRand's "manual" mode) are mixtures of many draws and are kept as they are.
    """

    redrawable = True
    decayed: bool = False

    def attach_drawn(self, layer: nn.Module) -> None:
        without_weight(layer)
        copied = layer.scaled.drawn or self.decayed
        layer.register_buffer("sign_plane", None if copied else self.first_signs(layer))
        redraws = torch.zeros(layer.weight_shape, dtype=torch.int16, device=layer.selection.device)
        layer.register_buffer("redraws", redraws if copied and not self.decayed else None)
        layer.register_buffer("drawn", self.first_weights(layer) if copied else None, persistent=self.decayed)
        layer._copy_is_stale = False

    def remake(self, layer: nn.Module) -> None:
        super().remake(layer)
        if layer.drawn is not None and not self.decayed:
            layer.drawn, layer._copy_is_stale = torch.empty(layer.weight_shape, device=layer.selection.device), True

    def state(self, layer: nn.Module) -> ops.WeightSource:
        return super().state(layer) if layer.drawn is None else stored_state(layer, self.copied(layer))

    def copied(self, layer: nn.Module) -> Tensor:
        """The working copy, made again after a state dict was loaded."""
        if layer._copy_is_stale and layer.redraws is not None:
            layer.drawn.copy_(ops.redrawn_weight(layer.redraws, layer.scaled, seed=self.seed, layer=self.layer))
        layer._copy_is_stale = False
        return layer.drawn

    def redrawn_in_place(self, layer: nn.Module) -> Tensor:
        """What redraw changes: the packed signs, or the float32 weights."""
        return layer.sign_plane if layer.sign_plane is not None else self.copied(layer)

    def load(self, layer: nn.Module, state: dict[str, Any], prefix: str) -> None:
        layer._copy_is_stale = True

    def shipped(self, layer: nn.Module, mask: Tensor, put: Put) -> dict[str, Any]:
        """Which redraw each kept weight is of (1 or 2 bytes); signs and mixtures as they are."""
        if layer.redraws is None:
            return Source.shipped(self, layer, mask, put)
        redraws = layer.redraws.cpu().contiguous()[mask].int()
        width = 2 if redraws.numel() and int(redraws.max()) > 255 else 1
        for byte in range(width):
            put("redraws", (redraws >> (8 * byte) & 255).to(torch.uint8))
        kind, scale = layer.scaled
        weights = {"as": "redraws", "bytes": width, "kind": kind, "scale": scale}
        return {**self.shipped_as_stored(layer), "weights": weights}

    @classmethod
    def received(cls, entry: dict[str, Any], mask: Tensor | None, take: Take) -> Tensor:
        weights, kept, source = entry["weights"], entry["kept"], entry["drawn_from"]
        if weights["as"] != "redraws":
            return super().received(entry, mask, take)
        redraws = sum(take("redraws", kept).int() << (8 * byte) for byte in range(weights["bytes"]))
        shape = torch.Size(entry["shape"])
        flat = torch.ones(shape.numel(), dtype=torch.bool) if mask is None else mask.flatten()
        whole = torch.zeros(flat.numel(), dtype=torch.int16).masked_scatter_(flat, redraws.to(torch.int16)).view(shape)
        scaled = InitScale(weights["kind"], weights["scale"])
        return ops.redrawn_weight(whole, scaled, seed=source["seed"], layer=source["layer"]).flatten()[flat]


def redrawn_layers(model: nn.Module) -> dict[str, HiddenMixin]:
    """The hidden layers whose weights can be drawn anew, by name."""
    return {name: layer for name, layer in hidden_layers(model).items() if layer.source.redrawable}


@torch.no_grad()
def redraw(
    model: nn.Module,
    number: int,
    *,
    rate: float = 1.0,
    share: float = 1.0,
    decay: float | None = None,
    mix: float | None = None,
) -> None:
    """Draw weights that are not kept anew, in place; kept ones stay as they are, to the bit.

    Each is replaced with probability `rate` by the draw `number` of its layer's distribution: a function of (seed,
    layer, index, number) alone, so ranks, devices, memory formats and resumed runs agree.

    Args:
        model: a model with layers of source Redrawn and rule TopK or KthValue.
        number: which redraw this is, from 1.
        share: only this share of a layer's pruned weights, those of the lowest scores, may be redrawn.
        decay, mix: in place of replacing: weight <- decay x weight + mix x new draw; for Redrawn(decayed=True).

    Raises:
        ValueError: no such layer, or rate, share or number out of range.
    """
    layers = list(redrawn_layers(model).values())
    if not layers:
        raise ValueError("redraw: expected a model with layers of source Redrawn, got none; hide() it with one")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"redraw: expected a share in (0, 1], got {share}")
    select(model)
    groups: dict[tuple, list[HiddenMixin]] = defaultdict(list)
    for layer in layers:
        if layer.scores is None or not getattr(layer.rule, "rows", False):
            raise ValueError(f"redraw: expected rules that rank scores (TopK, KthValue), got {layer.rule}")
        if (decay is not None) != layer.source.decayed:
            raise ValueError("redraw: expected decay and mix exactly where the source is Redrawn(decayed=True)")
        if layer.scaled.kind != "constant" or layer.source.decayed:  # every draw of a constant is the same
            groups[(layer.scores.device, layer.rule.by, layer.source.seed, layer.redraws is None)].append(layer)
    for (_, by, seed, untracked), members in groups.items():
        ops.rerandomize_(
            [layer.source.redrawn_in_place(layer) for layer in members],
            [layer.scores.detach() for layer in members],
            _protected(members, share),
            [layer.scaled for layer in members],
            seed=seed,
            layers=[layer.source.layer for layer in members],
            redraw=number,
            rate=rate,
            by=by,
            redraws=None if untracked else [layer.redraws for layer in members],
            decay=decay,
            mix=mix,
        )


def _protected(layers: list[HiddenMixin], share: float) -> Tensor:
    """Selection rows of the weights that must stay."""
    if share == 1.0:
        return rows_of(layers)
    rules = [dataclasses.replace(layer.rule, density=1 - share * (1 - layer.rule.density)) for layer in layers]
    ranked = [layer.scores.detach() for layer in layers]
    rows = torch.zeros(len(layers), 4, dtype=torch.int32, device=ranked[0].device)
    return Ranking(ranked, rules[:1] if layers[0].rule.scope == "global" else rules, rows).select()
