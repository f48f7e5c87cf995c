"""Redrawing weights that are not revealed: IteRand (Chijiwa et al. 2021), algorithm 1."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.network import hidden_layers, select
from hiddennet.nn.rules import TopK, select_rows
from hiddennet.nn.sources import Redrawn

if TYPE_CHECKING:
    from hiddennet.nn.hidden import HiddenMixin


def redrawn_layers(model: nn.Module) -> dict[str, HiddenMixin]:
    """The hidden layers whose weights can be drawn anew, by name."""
    return {name: layer for name, layer in hidden_layers(model).items() if isinstance(layer.source, Redrawn)}


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
    """Draw weights that are not revealed anew, in place; revealed ones stay as they are, to the bit.

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
        if not isinstance(layer.rule, TopK):
            raise ValueError(f"redraw: expected rules that rank scores (TopK, KthValue), got {layer.rule}")
        if (decay is not None) != layer.source.decayed:
            raise ValueError("redraw: expected decay and mix exactly where the source is Redrawn(decayed=True)")
        if layer.scaled.kind != "constant" or layer.source.decayed:  # every draw of a constant is the same
            groups[(layer.scores.device, layer.rule.by, layer.source.seed, layer.redraws is None)].append(layer)
    for (_, by, seed, untold), members in groups.items():
        ops.rerandomize_(
            [layer.redrawable for layer in members],
            [layer.scores.detach() for layer in members],
            _protected(members, share),
            [layer.scaled for layer in members],
            seed=seed,
            layers=[layer.source.layer for layer in members],
            redraw=number,
            rate=rate,
            by=by,
            redraws=None if untold else [layer.redraws for layer in members],
            decay=decay,
            mix=mix,
        )


def _protected(layers: list[HiddenMixin], share: float) -> Tensor:
    """Selection rows of the weights that must stay."""
    if share == 1.0:
        return torch.stack([layer.selection for layer in layers])
    rules = [dataclasses.replace(layer.rule, density=1 - share * (1 - layer.rule.density)) for layer in layers]
    ranked = [layer.scores.detach() for layer in layers]
    if layers[0].rule.scope == "global":
        return select_rows(ranked, rules[:1], None)
    return select_rows(ranked, rules, None)
