"""Weights that are made before the first layer: taken once, of the bits that each layer makes itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import hiddennet as hn
from hiddennet.nn import ahead
from tests.checks import assert_equal

SOURCES = {
    "signs": lambda: hn.Generated("signed_constant", seed=3),
    "constants": lambda: hn.Generated("unsigned_constant", seed=3),
    "normals": lambda: hn.Generated("kaiming_normal", seed=3),
    "stored": lambda: hn.Stored(trainable=True),
    "through": lambda: hn.Stored(trainable=True, gradient="through"),
}
RULES = {
    "magnitude": lambda: hn.TopK(0.5),
    "kth value": lambda: hn.nn.KthValue(0.5),
    "all layers": lambda: hn.TopK(0.4, scope="global"),
    "n of m": lambda: hn.nn.Grouped(1, 2),
    "rounded": lambda: hn.nn.Rounded(0.0),
    "learned threshold": lambda: hn.nn.Rounded(0.1, learn_threshold=True),
    "scored": lambda: hn.nn.Rounded(0.0, quantized=False),
    "all": lambda: hn.nn.All(),
}


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """On a CPU, too."""
    monkeypatch.setattr(ahead, "DEVICES", ("cuda", "cpu"))


def network(rule, source, layout=torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False), nn.Conv2d(16, 6, 1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(6 * 16, 4))
    return hn.hide(model, source=lambda *_: source(), rule=lambda *_: rule()).to(memory_format=layout)


def counted(monkeypatch) -> list[int]:
    calls, own = [], ahead._network_weight
    monkeypatch.setattr(ahead, "_network_weight", lambda out, *more: calls.append(len(out)) or own(out, *more))
    return calls


def step(model: nn.Module, dtype, device, read: bool = True) -> list[torch.Tensor | None]:
    x = torch.linspace(-1, 1, 3 * 4 * 64, device=device).view(3, 4, 8, 8)
    model.zero_grad()
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        loss = F.cross_entropy(model(x).float(), torch.arange(3, device=device))
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if read)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    ("rule", "source"),
    [
        *((rule, "signs") for rule in RULES if rule != "all"),
        *(("magnitude", source) for source in SOURCES),
        ("all", "stored"),
    ],
)
def test_the_same_bits(rule, source, dtype, layout, device, monkeypatch):
    model = network(RULES[rule], SOURCES[source], layout).to(device)
    calls = counted(monkeypatch)
    found = step(model, dtype, device)
    assert calls == [4]
    monkeypatch.setattr(ahead, "serves", lambda layer: False)
    for got, want in zip(found, step(model, dtype, device), strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert_equal(got, want)
    assert calls == [4]


def test_rules_that_draw_make_their_own(device, monkeypatch):
    calls = counted(monkeypatch)
    for rule in (
        hn.nn.Sampled,
        lambda: hn.nn.Rounded(0.0, rounding="probabilistic"),
        lambda: hn.nn.Rounded(0.0, noise=1.0),
    ):
        step(network(rule, SOURCES["signs"]).to(device), None, device)
    assert not calls


def test_another_dtype_is_asked_for_once(device, monkeypatch):
    model = network(RULES["magnitude"], SOURCES["signs"]).to(device)
    kinds, own = [], ahead._network_weight
    monkeypatch.setattr(
        ahead, "_network_weight", lambda out, *more: kinds.append({t.dtype for t in out}) or own(out, *more)
    )
    model.to(torch.bfloat16)
    for _ in range(3):
        y = model(torch.ones(2, 4, 8, 8, dtype=torch.bfloat16, device=device))
        y.sum().backward()
    assert kinds == [{torch.float32}, {torch.bfloat16}, {torch.bfloat16}]


def test_layers_called_twice_or_recomputed(device):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)

        def forward(self, x):
            x = checkpoint(lambda t: self.a(t).relu(), x, use_reentrant=False)
            return self.b(self.b(x))

    torch.manual_seed(0)
    model = hn.hide(Net()).to(device)
    plain = copy.deepcopy(model)
    x = torch.randn(3, 5, device=device)
    for net, on in ((model, True), (plain, False)):
        with pytest.MonkeyPatch.context() as patch:
            if not on:
                patch.setattr(ahead, "serves", lambda layer: False)
            net(x).square().sum().backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert_equal(p.grad, q.grad)
    assert all(layer._ahead is None for layer in hn.hidden_layers(model).values())


def test_evaluation_and_single_layers_have_none(device, monkeypatch):
    calls = counted(monkeypatch)
    model = network(RULES["magnitude"], SOURCES["signs"]).to(device).eval()
    with torch.no_grad():
        model(torch.ones(1, 4, 8, 8, device=device))
    hn.hide(nn.Sequential(nn.Linear(3, 4)).to(device))(torch.ones(2, 3, device=device))
    assert not calls


def test_one_node_for_all_that_scores_learn_of(device):
    model = network(RULES["magnitude"], SOURCES["signs"]).to(device)
    loss = F.cross_entropy(model(torch.ones(2, 4, 8, 8, device=device)), torch.arange(2, device=device))
    found, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        found.add(node)
        waiting += [after for after, _ in node.next_functions if after is not None and after not in found]
    assert [node.name() for node in found].count("_WeightsBackward") == 1
    assert not any("MaskedWeight" in node.name() for node in found)


def test_what_is_owed_is_each_layers_own(device):
    model = network(RULES["magnitude"], SOURCES["signs"]).to(device)
    scores = [layer.scores for layer in hn.hidden_layers(model).values()]
    want = step(model, None, device)[1:]
    hn.optim.ScoreSGD(scores, 0.1)
    step(model, None, device, read=False)
    assert all(p.owed is not None for p in scores)
    for got, expected in zip((p.grad for p in model.parameters()), want, strict=True):
        assert_equal(got, expected)


def test_scores_written_to_before_the_backward_are_refused(device):
    model = network(RULES["magnitude"], SOURCES["signs"]).to(device)
    loss = model(torch.ones(2, 4, 8, 8, device=device)).sum()
    with torch.no_grad():
        model[0].scores.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_frozen_layer_and_one_that_is_not_called(device):
    model = network(RULES["magnitude"], SOURCES["signs"]).to(device)
    model[2].scores.requires_grad_(False)
    model.forward = lambda x: nn.Sequential.forward(model[:4], x)
    model(torch.ones(2, 4, 8, 8, device=device)).sum().backward()
    assert [layer.scores.grad is None for layer in hn.hidden_layers(model).values()] == [False, True, False, True]
