"""Ways of a convolution: the same layer whichever way a direction takes, and a choice that is made once and kept."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import hiddennet as hn
from hiddennet import env, tuned
from hiddennet.nn import Fixed, Generated, Stored, TopK
from hiddennet.ops import conv_ways
from tests.checks import assert_no_worse_than

SHAPE = (24, 20, 3, 3)


pytestmark = pytest.mark.usefixtures("measuring")


def _layer(rule=None, source=None, bias: bool = False) -> hn.HiddenConv2d:
    torch.manual_seed(3)
    layer = hn.HiddenConv2d(20, 24, 3, 1, 1, bias=bias, rule=rule or TopK(0.5), source=source or Generated())
    return layer.to(memory_format=torch.channels_last)


def _gradients(layer, x, dtype, plan: str | None) -> list[torch.Tensor]:
    layer.plan = plan
    layer.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    return [y, x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


LAYERS = {
    "edge-popup": lambda: _layer(),
    "bias": lambda: _layer(bias=True),
    "weights that learn": lambda: _layer(TopK(0.5), Stored(trainable=True)),
    "weights of a fixed mask": lambda: _layer(
        Fixed(torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.1), Stored(trainable=True)
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_every_way_gives_the_layer_and_its_gradients(name, dtype, measuring):
    layer, x = LAYERS[name](), torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last)
    want = _gradients(layer, x, dtype, "effective_weight")
    exact = [t.double() for t in _gradients(layer, x, torch.float32, "effective_weight")]
    for way in conv_ways.WAYS:
        measuring.clear()
        conv_ways._chosen.clear()
        tuned.Measured._own.clear()
        tuned.cache_file().unlink(missing_ok=True)
        measuring[way] = 1.0
        got = _gradients(layer, x, dtype, None)
        chosen = set(conv_ways._chosen.values())
        served = way in ("tiles",) if dtype is torch.bfloat16 else way in ("panels", "lists")
        assert (way in chosen) == (served or way == "effective_weight"), (way, chosen)
        assert len(got) == len(want)
        for a, b, c in zip(got, want, exact, strict=True):
            assert a.dtype is b.dtype and a.shape == b.shape
            assert_no_worse_than(a, b, c, floor=1e-6 if dtype is torch.float32 else 2**-7)


def test_a_choice_is_made_once_and_kept_for_other_processes(measuring):
    layer, x = _layer(), torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last)
    measuring["tiles"] = 1.0
    _gradients(layer, x, torch.bfloat16, None)
    kept = json.loads(tuned.cache_file().read_text())
    assert set(conv_ways._chosen.values()) == {"tiles"} and len(conv_ways._chosen) == 3
    measuring["effective_weight"] = 0.5
    conv_ways._chosen.clear()
    tuned.Measured._own.clear()
    _gradients(layer, x, torch.bfloat16, None)
    assert set(conv_ways._chosen.values()) == {"tiles"}, "as the cache says"
    assert json.loads(tuned.cache_file().read_text()) == kept
    lines = env.plans()
    assert len(lines) == 3 and all(line.startswith("tiles ") for line in lines)
    assert any("input gradient: 9x20x6x5 by 24x20x3x3" in line for line in lines)


def test_a_broken_choice_is_measured_again(measuring):
    layer, x = _layer(), torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last)
    measuring["tiles"] = 1.0
    _gradients(layer, x, torch.bfloat16, None)
    text = tuned.cache_file().read_text().replace('"tiles"', '"a way of later"')
    tuned.cache_file().write_text(text)
    conv_ways._chosen.clear()
    tuned.Measured._own.clear()
    _gradients(layer, x, torch.bfloat16, None)
    assert set(conv_ways._chosen.values()) == {"tiles"}


@pytest.mark.parametrize("switch", ["fixed", "deterministic", "contiguous", "groups", "compiled"])
def test_where_the_library_computes_alone(switch, measuring, monkeypatch):
    measuring["panels"] = measuring["lists"] = 1.0
    layer, x = _layer(), torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last)
    if switch == "fixed":
        monkeypatch.setenv("HIDDENNET_PLANS", "fixed")
    if switch == "contiguous":
        x = x.contiguous()
    if switch == "groups":
        layer = hn.HiddenConv2d(20, 24, 3, 1, 1, groups=2)
    call = torch.compile(layer, backend="eager", fullgraph=True) if switch == "compiled" else layer
    torch.use_deterministic_algorithms(switch == "deterministic")
    try:
        call(x).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert not conv_ways._chosen


def test_an_unknown_mode_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HIDDENNET_PLANS", "fast")
    with pytest.raises(ValueError, match="expected HIDDENNET_PLANS to be auto or fixed, got 'fast'"):
        _layer()(torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last))


def test_a_plan_that_does_not_serve_is_refused():
    layer, x = _layer(), torch.randn(9, 20, 6, 5)
    layer.plan = "tiles"
    with pytest.raises(ValueError, match="expected bfloat16 for plan 'tiles'"):
        layer(x.contiguous(memory_format=torch.channels_last))
    layer.plan = "measured"
    with pytest.raises(ValueError, match="expected a channels_last input on a CPU"):
        layer(x)


def test_the_gradient_of_a_gradient_is_the_librarys(measuring):
    measuring["panels"] = measuring["lists"] = 1.0
    layer, x = _layer(), torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last)

    def penalty(plan: str | None) -> torch.Tensor:
        layer.plan, leaf = plan, x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        (slope,) = torch.autograd.grad(layer(leaf).pow(3).sum(), leaf, create_graph=True)
        (found,) = torch.autograd.grad(slope.square().sum(), leaf)
        return found

    torch.testing.assert_close(penalty(None), penalty("effective_weight"), rtol=1e-3, atol=1e-2)


def test_other_peoples_models_and_habits(measuring):
    """torchvision's network under autocast; activations made again; evaluation; a fixed mask; a last batch of one."""
    import torchvision

    measuring["tiles"] = 1.0
    torch.manual_seed(0)
    model = hn.hide(torchvision.models.resnet18(num_classes=5), source=Generated(seed=1))
    model = model.to(memory_format=torch.channels_last)
    x = torch.randn(3, 3, 20, 20).contiguous(memory_format=torch.channels_last)

    def loss(mode: str, again: bool) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in hn.hidden_layers(model).values():
            layer.plan = None if mode == "auto" else "effective_weight"
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = checkpoint(model, x, use_reentrant=False) if again else model(x)
        value = F.cross_entropy(y.float(), torch.arange(3))
        value.backward()
        return value.detach(), model.layer1[0].conv1.scores.grad.clone()

    state = {name: t.clone() for name, t in model.state_dict().items()}
    found = []
    for mode, again in (("library", False), ("auto", False), ("auto", True)):
        model.load_state_dict(state)
        hn.refresh(model)
        found.append(loss(mode, again))
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=5e-2, atol=5e-2)
        cosine = F.cosine_similarity(gradient.flatten(), found[0][1].flatten(), dim=0)
        assert cosine > 0.95, cosine
    torch.testing.assert_close(found[1][1], found[2][1], rtol=0, atol=0)
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model(x[:1]).isfinite().all()
    assert "tiles" in conv_ways._chosen.values()


def test_a_frozen_layer_still_hands_the_gradient_on(measuring):
    measuring["lists"] = 1.0
    net = nn.Sequential(nn.Conv2d(4, 20, 3, padding=1), _layer()).to(memory_format=torch.channels_last)
    net[1].scores.requires_grad_(False)
    x = torch.randn(9, 4, 6, 5).contiguous(memory_format=torch.channels_last)
    net(x).sum().backward()
    assert net[0].weight.grad.any() and net[1].scores.grad is None
    assert {d for d, _ in conv_ways._chosen} == {"forward", "input_gradient"}


def test_a_kept_weight_of_zero_still_learns(measuring):
    measuring["lists"] = 1.0
    layer = _layer(Fixed(torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.1), Stored(trainable=True))
    with torch.no_grad():
        layer.stored.zero_()
    hn.refresh(layer)
    x = torch.randn(9, 20, 6, 5).contiguous(memory_format=torch.channels_last)
    layer(x).sum().backward()
    assert bool((layer.stored.grad.ne(0) == layer.mask()).all())
    assert ("kept_gradient", "lists") in {(d, way) for (d, _), way in conv_ways._chosen.items()}
