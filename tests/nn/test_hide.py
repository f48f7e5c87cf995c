"""hide: any model's layers become hidden, in place; the whole network is selected in one call."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.models.dnw.base import NodeConvs
from hiddennet.nn import rules
from tests import reference
from tests.checks import assert_equal


def _vision(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    if name == "vit":
        return models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
    return getattr(models, name)(num_classes=10)


def _small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10, bias=False))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_torchvision_models_become_hidden_networks(name, scope):
    model = _vision(name)
    count = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    count += sum(isinstance(m, nn.MultiheadAttention) for m in model.modules())  # their input projections
    assert hn.hide(model, hn.Generated(seed=1), hn.TopK(0.3, scope=scope)) is model
    layers = hn.hidden_layers(model)
    assert len(layers) == count
    assert [layer.source.layer for layer in layers.values()] == list(range(count))
    x = torch.randn(2, 3, 32, 32)
    model(x).sum().backward()
    assert all(layer.scores.grad is not None for layer in layers.values())
    assert hn.density(model) == pytest.approx(0.3, abs=2e-3)
    masks = hn.masks(model)
    scores = [layer.scores for layer in layers.values()]
    if scope == "global":
        kept = sum(int(m.sum()) for m in masks.values())
        want = reference.topk_mask_global(scores, kept, by="magnitude")
    else:
        want = [reference.topk_mask(layer.scores, layer.k, by="magnitude") for layer in layers.values()]
    for mask, wanted in zip(masks.values(), want, strict=True):
        assert_equal(mask, wanted)


def test_one_selection_a_forward_for_the_whole_network(monkeypatch):
    model, calls = hn.hide(_small()), []
    original = rules.topk_select_
    monkeypatch.setattr(rules, "topk_select_", lambda s, *more: calls.append(len(s)) or original(s, *more))
    x = torch.randn(2, 3, 8, 8)
    model(x), model(x)
    assert calls == [2, 2]  # training: always; two layers in one call
    calls.clear()
    model.eval()
    model(x), model(x)
    assert calls == [2]  # once for all of the evaluation
    calls.clear()
    with torch.no_grad():
        model[3].scores.mul_(-2)
    model(x), model(x)
    assert calls == [2]


def test_evaluation_after_a_fused_optimiser_sees_the_new_scores():
    """A fused step on a CPU changes parameters without raising their version."""
    model, x = hn.hide(_small()), torch.randn(2, 3, 8, 8)
    optimizer = torch.optim.SGD([layer.scores for layer in hn.hidden_layers(model).values()], lr=100.0, fused=True)
    model(x).square().sum().backward()
    optimizer.step()
    model.eval()
    model(x)
    for layer in hn.hidden_layers(model).values():
        assert_equal(layer.mask(), reference.topk_mask(layer.scores, layer.k, by="magnitude"))


def test_training_a_part_alone_still_selects_its_own():
    model = hn.hide(_small())
    conv = model[0]
    for _ in range(3):
        out = conv(torch.randn(1, 3, 8, 8))
        out.sum().backward()
        with torch.no_grad():
            conv.scores.add_(torch.randn_like(conv.scores))
        assert_equal(conv.mask(), reference.topk_mask(conv.scores, conv.k, by="magnitude"))


def test_include_exclude_and_functions_of_the_layer():
    model = hn.hide(_small(), include="0")
    assert list(hn.hidden_layers(model)) == ["0"]
    model = hn.hide(_small(), exclude=lambda name, module: isinstance(module, nn.Conv2d))
    assert list(hn.hidden_layers(model)) == ["3"]
    model = hn.hide(
        _small(),
        source=lambda name, module: hn.Generated("kaiming_normal", seed=len(name)),
        rule=lambda name, module: hn.TopK(0.2 if isinstance(module, nn.Linear) else 0.9),
    )
    assert [layer.rule.density for layer in hn.hidden_layers(model).values()] == [0.9, 0.2]
    model = hn.hide(hn.hide(_small(), include="0"), include="3")  # in two goes: numbers go on, one hook
    assert [layer.source.layer for layer in hn.hidden_layers(model).values()] == [0, 1]
    assert len(model._forward_pre_hooks) == 1


def test_stored_none_keeps_the_models_own_weights_and_bias():
    model = _small()
    weight, bias = model[0].weight.detach().clone(), model[0].bias
    hn.hide(model, hn.Stored(), hn.TopK(0.5))
    assert_equal(model[0].stored, weight)
    assert not model[0].stored.requires_grad
    assert model[0].bias is bias


def test_a_module_used_twice_stays_one_module():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU()), "b": nn.Sequential(shared)})
    hn.hide(model)
    assert model["a"][0] is model["b"][0]
    assert isinstance(model["a"][0], hn.HiddenLinear)


def test_layers_that_say_so_and_those_of_psg_are_left_alone():
    model = nn.Sequential(NodeConvs(4), nn.Linear(8, 8), hn.nn.PSGLinear(8, 8))
    hn.hide(model)
    assert list(hn.hidden_layers(model)) == ["1"]


def test_deepcopy_pickle_and_device_move_keep_the_network():
    model, x = hn.hide(_small(), rule=hn.TopK(0.4, scope="global")), torch.randn(2, 3, 8, 8)
    model.eval()
    want = model(x)
    assert_equal(copy.deepcopy(model)(x), want)
    assert_equal(pickle.loads(pickle.dumps(model))(x), want)
    assert_equal(model.to("cpu")(x), want)


def test_same_seed_same_network_whatever_torchs_seed():
    x = torch.randn(2, 3, 8, 8)
    outs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(8 * 36, 10, bias=False))
        outs.append(hn.hide(model, hn.Generated(seed=9), hn.All())(x))
    assert_equal(outs[0], outs[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hn.hide("model"), TypeError, "expected model to be an nn.Module, got str"),
        (lambda: hn.hide(nn.Linear(2, 2)), TypeError, "use HiddenConv2d or HiddenLinear"),
        (lambda: hn.hide(nn.Sequential(nn.ReLU())), ValueError, "got none of 0"),
        (lambda: hn.hide(_small(), include="conv*"), ValueError, "include to name .* got 'conv\\*'; .* are 0, 3"),
        (lambda: hn.hide(_small(), exclude=["0", "7"]), ValueError, "exclude .* got '7'"),
        (lambda: hn.hide(_small(), exclude=["0", "3"]), ValueError, "expected layers to hide, got none of 2"),
        (lambda: hn.density(_small()), ValueError, "hide\\(\\) it first"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.cuda
def test_a_training_step_replays_as_a_cuda_graph():
    model = hn.hide(_small(), rule=hn.TopK(0.5)).cuda()
    twin = copy.deepcopy(model)
    x = torch.randn(4, 3, 8, 8, device="cuda")
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.1)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            model(x).square().mean().backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.zero_grad(set_to_none=False)
        model(x).square().mean().backward()
        optimizer.step()
    other = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.1)
    for _ in range(4):
        graph.replay()
        other.zero_grad()
        twin(x).square().mean().backward()
        other.step()
    hn.refresh(model)
    for mask, want in zip(hn.masks(model).values(), hn.masks(twin).values(), strict=True):
        assert_equal(mask, want)


def test_a_lazy_layer_is_refused_before_its_shape_is_known():
    model = nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 4))
    with pytest.raises(ValueError, match=r"expected a weight of known shape, got none yet in 0 \(LazyLinear\); call"):
        hn.hide(model)
    assert hn.hidden_layers(hn.hide(model, exclude="0")).keys() == {"1"}
    known = nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 4))
    known(torch.randn(2, 3))
    assert hn.hidden_layers(hn.hide(known)).keys() == {"0", "1"}


@pytest.mark.parametrize("plain", [nn.Linear(6, 4), nn.Conv2d(6, 4, 3), nn.ConvTranspose2d(6, 4, 3)], ids=str)
def test_a_hidden_layer_does_not_pass_over_a_call_to_reset_itself(plain):
    model = hn.hide(nn.Sequential(plain))
    before = model[0].scores.clone()
    with pytest.raises(RuntimeError, match=r"expected no reset_parameters.*reset_scores"):
        model[0].reset_parameters()
    assert torch.equal(model[0].scores, before)
    model[0].reset_scores()
    assert not torch.equal(model[0].scores, before)
