"""Weights that are made before the first layer: taken once, of the bits that each layer makes itself."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import hiddennet as hn
from hiddennet.nn import ahead
from hiddennet.nn.expose import expose
from hiddennet.ops.masked_weight import DTYPE_CODES
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
    monkeypatch.setattr(ahead, "_network_weight", lambda *given: calls.append(len(given[-1])) or own(*given))
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
    monkeypatch.setattr(ahead, "DEVICES", ())
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
    monkeypatch.setattr(ahead, "_network_weight", lambda *given: kinds.append(set(given[-1])) or own(*given))
    model.to(torch.bfloat16)
    for _ in range(3):
        y = model(torch.ones(2, 4, 8, 8, dtype=torch.bfloat16, device=device))
        y.sum().backward()
    assert kinds == [{DTYPE_CODES[dtype]} for dtype in (torch.float32, torch.bfloat16, torch.bfloat16)]


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
                patch.setattr(ahead, "DEVICES", ())
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


def _set(name, value):
    return lambda model: setattr(model[2], name, value)


def _more(model: nn.Module) -> None:
    model[5] = nn.Sequential(hn.nn.HiddenLinear(6 * 16, 4, rule=hn.TopK(0.25)))


def _others_scores(model: nn.Module) -> None:
    model[2].scores = nn.Parameter(model[2].scores.detach().flip(0).contiguous())


@torch.no_grad()
def _written(model: nn.Module) -> None:
    model[2].scores.copy_(model[2].scores.flip(0))


MOVES = {
    "nothing": lambda model: None,
    "scores written to": _written,
    "other scores": _others_scores,
    "another rule": _set("rule", hn.TopK(0.2, by="value")),
    "a rule of another kind": _set("rule", hn.nn.KthValue(0.7)),
    "another source": lambda model: setattr(model[2], "source", dataclasses.replace(model[2].source, layer=7)),
    "a plan": _set("plan", "library"),
    "another layer": _more,
    "a layer fewer": lambda model: model.__delitem__(2) or model.insert(2, nn.Conv2d(8, 16, 3)),
    "channels_last": lambda model: model.to(memory_format=torch.channels_last),
    "frozen scores": lambda model: model[2].scores.requires_grad_(False),
    "a layer in evaluation": lambda model: model[2].eval(),
    "evaluation and back": lambda model: model.eval().train(),
    "forgotten": hn.refresh,
    "loaded": lambda model: model.load_state_dict(copy.deepcopy(model.state_dict())),
    "a mask that was read": lambda model: model[2].mask(),
}


@pytest.mark.parametrize(("source", "scope"), [("signs", "layer"), ("stored", "global")])
@pytest.mark.parametrize("move", MOVES)
def test_what_stands_is_seen_to_move(move, source, scope, device, monkeypatch):
    """A pass after the first asks the layers nothing: whatever is changed in between counts as if it did."""
    torch.manual_seed(0)
    model = network(lambda: hn.TopK(0.4, scope=scope), SOURCES[source]).to(device)
    if source == "stored":
        for layer in hn.hidden_layers(model).values():
            layer.stored.requires_grad_(False)
    other = copy.deepcopy(model)
    found = []
    for net, devices in ((model, ahead.DEVICES), (other, ())):
        monkeypatch.setattr(ahead, "DEVICES", devices)
        for _ in range(2):
            step(net, torch.bfloat16, device)
        torch.manual_seed(1)
        try:
            MOVES[move](net)
            found.append(step(net, torch.bfloat16, device) + step(net, torch.bfloat16, device))
        except (RuntimeError, ValueError) as error:
            found.append(str(error))
    if isinstance(found[0], str):
        assert found[0] == found[1]
        return
    for got, want in zip(*found, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert_equal(got, want)


def test_a_pass_of_what_stands_asks_the_layers_nothing(device, monkeypatch):
    model, asked = network(RULES["magnitude"], SOURCES["signs"]).to(device), []
    step(model, None, device)
    for kind, name in ((hn.TopK, "select"), (hn.nn.HiddenConv2d, "weight_of"), (hn.Generated, "state")):
        monkeypatch.setattr(kind, name, lambda *_, name=name: asked.append(name))
    step(model, None, device)
    assert not asked
    assert copy.deepcopy(model)[0]._standing is None
    assert pickle.loads(pickle.dumps(model[0]._standing)) is None
    kept = weakref.ref(model[0]._standing)
    expose(model)
    model(torch.ones(1, 4, 8, 8, device=device))
    del model
    gc.collect()
    assert kept() is None
