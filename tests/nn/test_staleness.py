"""What layers and wirings made of scores and weights is right at every forward, however these were changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from tests import reference
from tests.checks import assert_equal


class Vgg(nn.Module):
    """A network whose parts are called by themselves, as torchvision's are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def exact(model: nn.Module) -> None:
    for name, layer in hn.hidden_layers(model).items():
        want = reference.topk_mask(layer.scores, layer.k, by="magnitude")
        used = layer.effective_weight().detach() != 0
        assert_equal(used, want & (layer.source_weight() != 0), name)
        assert_equal(layer.mask(), want, name)


OPTIMISERS = {
    "fused SGD": lambda p: torch.optim.SGD(p, 0.5, fused=True),
    "fused Adam": lambda p: torch.optim.Adam(p, 0.1, fused=True),
    "foreach": lambda p: torch.optim.SGD(p, 0.5, foreach=True),
    "ours": lambda p: hn.optim.ScoreSGD(p, 0.5),
}


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_part_of_a_hidden_network_called_alone(name, evaluated):
    torch.manual_seed(0)
    model = hn.hide(Vgg())
    optimizer = OPTIMISERS[name]([p for n, p in model.named_parameters() if n.startswith("features") and "scores" in n])
    if evaluated:
        model.eval()
    for _ in range(4):
        optimizer.zero_grad()
        model.features(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        exact(model)


def test_data_written_in_training_is_seen_by_the_next_call_of_a_part():
    model = hn.hide(Vgg())
    for _ in range(3):
        model.features(torch.randn(2, 3, 8, 8))
        for layer in hn.hidden_layers(model).values():
            layer.scores.data.normal_()
        exact(model)
    model(torch.randn(2, 3, 8, 8))
    model.head.scores.data.normal_()
    exact(model)


def test_data_written_in_evaluation_is_seen_after_refresh():
    model = nn.ModuleDict({"net": hn.hide(Vgg()), "wiring": hn.nn.Wiring(12, 9, density=0.3)}).eval()
    x = torch.randn(2, 3, 8, 8)
    model["net"](x), model["wiring"](torch.randn(2, 12))
    for layer in hn.hidden_layers(model).values():
        layer.scores.data.normal_()
    model["wiring"].weight.data.normal_()
    hn.refresh(model)
    exact(model)
    used = model["wiring"].effective_weight().detach() != 0
    assert_equal(used, reference.topk_mask(model["wiring"].weight, model["wiring"].edges, by="magnitude"))


def test_nothing_made_in_a_captured_graph_is_kept(monkeypatch):
    """A replay writes scores that no version and no optimiser tells of."""
    from hiddennet.nn import memo

    memory = memo.Memo()
    weight = torch.randn(4)
    memory.keep("value", weight)
    assert memory.current(weight)
    captured = type("Captured", (), {"is_cuda": True, "is_inference": lambda self: False})()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    memory.keep("value", captured)
    assert not memory.current(captured)


def test_modules_move_and_swap_their_parameters():
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model = hn.hide(Vgg())
        model(torch.randn(2, 3, 8, 8))
        model.double().float()
        exact(model)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_a_pass_that_fails_leaves_nothing_stale():
    model = hn.hide(Vgg())
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 4, 8, 8))
    with torch.no_grad():
        for layer in hn.hidden_layers(model).values():
            layer.scores.normal_()
    exact(model)


@pytest.mark.parametrize("place", ["sequential", "attribute", "list"])
def test_a_layer_that_stands_in_two_places_is_hidden_in_both(place, tmp_path):
    layer = nn.Linear(6, 6)
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    model = {
        "sequential": lambda: nn.Sequential(layer, nn.ReLU(), layer),
        "attribute": lambda: _Twice(layer),
        "list": lambda: nn.Sequential(nn.Sequential(*[layer] * 4)),
    }[place]()
    hn.hide(model)
    assert type(layer) is hn.HiddenLinear and all(type(m) is not nn.Linear for m in model.modules())
    x = torch.randn(3, 6)
    model(x)
    assert calls  # hooks stay
    model.eval()
    hn.export(model, tmp_path / "a.safetensors")
    plain = nn.Linear(6, 6)
    twin = {
        "sequential": lambda: nn.Sequential(plain, nn.ReLU(), plain),
        "attribute": lambda: _Twice(plain),
        "list": lambda: nn.Sequential(nn.Sequential(*[plain] * 4)),
    }[place]()
    assert_equal(hn.load(tmp_path / "a.safetensors", twin)(x), model(x))


class _Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.a = layer
        self.b = self.a

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))
