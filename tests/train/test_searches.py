"""A run says once that masks take a search at most steps, how often, and why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.train.searches import STEPS, Searches


def network() -> nn.Module:
    torch.manual_seed(0)
    return hn.hide(nn.Sequential(nn.Linear(40, 60, bias=False), nn.Linear(60, 30, bias=False))).train()


def run(model: nn.Module, searches: Searches, change, begin: int = 0) -> list[str]:
    said = []
    for step in range(begin, begin + 2 * STEPS + 1):
        if (step - begin) % STEPS == 0:
            said.append(searches.look(model, step))
        model(torch.zeros(1, 40))
        change(model)
    return [one for one in said if one is not None]


@torch.no_grad()
def _jumps(model: nn.Module) -> None:
    model[1].scores.mul_(100 if model[1].scores.abs().max() < 1 else 0.01)


@torch.no_grad()
def _ties(model: nn.Module) -> None:
    model[0].scores.fill_(0.25)
    model[1].scores.fill_(0.5)


@torch.no_grad()
def _learns(model: nn.Module) -> None:
    for layer in model:
        layer.scores.add_(1e-5)


@pytest.mark.parametrize(
    ("change", "layers", "why"),
    [(_jumps, "1 of 2 hidden layers (1)", "move further"), (_ties, "2 of 2 hidden layers (0, 1)", "nearly equal")],
)
def test_most_selections_search(change, layers, why):
    model, searches = network(), Searches()
    (said,) = run(model, searches, change)
    assert said.startswith("warning: in ") and f" of the last {STEPS} steps the masks of {layers} took" in said
    assert why in said and "; the masks are exact either way" in said and "\n" not in said
    assert int(said.split()[2]) > STEPS // 2
    assert not run(model, searches, change, 2 * STEPS + 1)  # once


def test_nothing_to_say():
    assert not run(network(), Searches(), _learns)
    assert not run(nn.Sequential(nn.Linear(40, 3)), Searches(), lambda model: None)
    sampled = hn.hide(nn.Sequential(nn.Linear(40, 3)), rule=hn.nn.Sampled())
    assert not run(sampled, Searches(), lambda model: None)
