"""In evaluation weights are made once and kept, and never when anything that they are made of has moved."""

from __future__ import annotations

import copy
import io
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hiddennet as hn
from hiddennet import ops
from hiddennet.nn import Rule
from hiddennet.ops.masked_weight import MaskedWeight


@pytest.fixture
def made(monkeypatch) -> list:
    """A list that grows by one for each weight that is made without a gradient."""
    found, write = [], MaskedWeight.write

    def counted(self, dtype):
        found.append(self)
        return write(self, dtype)

    monkeypatch.setattr(MaskedWeight, "write", counted)
    return found


class Net(nn.Module):
    """Convolutions, one of them in two places, another kind of layer, attention, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=True)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.line = nn.Conv1d(8, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.twice(self.twice(self.first(x).relu()).relu())
        x = self.line(x.flatten(2)).transpose(1, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def net(source=None, rule=None) -> nn.Module:
    torch.manual_seed(0)
    return hn.hide(Net(), source or hn.Generated("signed_constant", seed=3), rule or hn.TopK(0.5)).eval()


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def anew(model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    """What a copy that has kept nothing computes."""
    return copy.deepcopy(model)(x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("cast", [False, True])
def test_made_once(made, mode, cast):
    model = net()
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        want = anew(model)
        made.clear()
        with mode():
            assert torch.equal(model(X), want) and made
            made.clear()
            for _ in range(3):
                assert torch.equal(model(X), want)
    assert not made


@pytest.mark.parametrize(
    "source, rule",
    [
        (hn.Stored(trainable=True), hn.TopK(0.5, of="weights")),
        (hn.Stored(), hn.TopK(0.3, scope="global")),
        (hn.Generated("kaiming_normal"), hn.nn.Threshold(0.1)),
        (hn.Generated("kaiming_uniform"), hn.nn.Sampled()),
        (hn.nn.Redrawn("signed_constant"), hn.nn.KthValue(0.5)),
        (hn.nn.Flipped("kaiming_normal"), hn.nn.Rounded()),
        (hn.Stored(), hn.nn.All()),
    ],
)
def test_of_every_kind(made, source, rule):
    model = net(source, rule)
    want = anew(model)
    with torch.no_grad():
        model(X)
        made.clear()
        assert torch.equal(model(X), want) and not made
        for layer in hn.hidden_layers(model).values():
            for numbers in (layer.scores, layer.stored):
                if numbers is not None:
                    numbers.normal_()
        assert torch.equal(model(X), anew(model)) and not torch.equal(model(X), want)


def step(optimizer: Callable, **more) -> Callable:
    def take(model: nn.Module) -> None:
        taken = optimizer([p for n, p in model.named_parameters() if n.endswith("scores")], 0.5, **more)
        for group in taken.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        taken.step()

    return take


def _other_state(model: nn.Module, **more) -> None:
    torch.manual_seed(9)
    model.load_state_dict(hn.hide(Net(), hn.Generated("signed_constant", seed=3), hn.TopK(0.5)).state_dict(), **more)


def _data(model: nn.Module) -> None:
    for layer in hn.hidden_layers(model).values():
        layer.scores.data.normal_()
    hn.refresh(model)


def _rule(model: nn.Module) -> None:
    for layer in hn.hidden_layers(model).values():
        layer.rule = hn.TopK(0.2)


def _in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for layer in hn.hidden_layers(model).values():
            layer.scores.copy_(layer.scores.roll(1))


def _parameter(model: nn.Module) -> None:
    for layer in hn.hidden_layers(model).values():
        layer.scores = nn.Parameter(layer.scores.detach().roll(1))


def _plane(model: nn.Module) -> None:
    for layer in hn.hidden_layers(model).values():
        layer.sign_plane.bitwise_not_()


MOVES = {
    "fused SGD": step(torch.optim.SGD, fused=True),
    "fused Adam": step(torch.optim.Adam, fused=True),
    "foreach SGD": step(torch.optim.SGD, foreach=True),
    "ours": step(hn.optim.ScoreSGD),
    "load_state_dict": _other_state,
    "load_state_dict, assigned": lambda model: _other_state(model, assign=True),
    "data and refresh": _data,
    "another rule": _rule,
    "in place": _in_place,
    "another parameter": _parameter,
    "signs": _plane,
    "train and back": lambda model: (model.train(), model.first.scores.data.normal_(), model.eval()),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", MOVES)
def test_what_moved_is_seen(name, mode):
    model = net()
    with mode():
        before = model(X)
        assert torch.equal(model(X), before)
    MOVES[name](model)
    with mode():
        after = model(X)
        assert torch.equal(after, model(X))
    assert torch.equal(after, anew(model)) and not torch.equal(after, before)


def test_flags_that_are_struck_out_are_seen():
    model = net(rule=hn.nn.Rounded(threshold=0.0))
    layers = list(hn.hidden_layers(model).values())
    with torch.no_grad():
        before = model(X)
        ops.strike_out_([layer.scores for layer in layers], [layer.flags for layer in layers], [300])
        assert torch.equal(model(X), anew(model)) and not torch.equal(model(X), before)


def test_dtypes_and_memory_formats_are_told_apart():
    model = net()
    with torch.no_grad():
        model(X)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(model(X), anew(model))
            model.to(memory_format=torch.channels_last)
            last = X.contiguous(memory_format=torch.channels_last)
            assert torch.equal(model(last), anew(model, last))
            assert model.first._kept.value[-1].is_contiguous(memory_format=torch.channels_last)
            model.to(memory_format=torch.contiguous_format)
            assert torch.equal(model(X), anew(model))


def test_a_switch_to_training_frees_the_memory():
    model = net()
    with torch.no_grad():
        model(X)
    layers = hn.hidden_layers(model).values()
    kept = [weakref.ref(layer._kept.value[-1]) for layer in layers]
    assert len(kept) == 6 and all(weight() is not None for weight in kept)
    model.train()
    assert all(weight() is None for weight in kept)
    with torch.no_grad():
        model(X)
    assert all(layer._kept.value is None for layer in layers)


def test_copies_pickles_and_state_dicts_have_none():
    model = net()
    with torch.no_grad():
        model(X)
    file, bare = io.BytesIO(), io.BytesIO()
    torch.save(model, file)
    torch.save(copy.deepcopy(model), bare)
    assert abs(file.tell() - bare.tell()) < 64
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(model), loaded):
        assert all(layer._kept.value is None for layer in hn.hidden_layers(other).values())
        with torch.no_grad():
            assert torch.equal(other(X), model(X))


def test_what_learns_keeps_its_gradient_in_evaluation():
    model = net()
    with torch.no_grad():
        model(X)
    model(X).square().sum().backward()
    assert all(layer.scores.grad.any() for layer in hn.hidden_layers(model).values() if layer.scores.shape[0] > 1)
    frozen = net().requires_grad_(False)
    x = X.clone().requires_grad_()
    with torch.inference_mode():
        frozen(X)
    frozen(x).square().sum().backward()  # through weights that were kept, or made
    want = X.clone().requires_grad_()
    copy.deepcopy(frozen)(want).square().sum().backward()
    assert torch.equal(x.grad, want.grad) and bool(x.grad.any())


@dataclass(frozen=True)
class Remembering(Rule):
    """A rule whose mask depends on what no tensor of the layer tells."""

    kind = "remembering"

    def state(self, layer, training):
        keep = layer.scores > getattr(layer, "wish", 0.0)
        return ops.Mask.packed(ops.pack_mask(keep))


@pytest.mark.parametrize(
    "rule",
    [Remembering(), hn.nn.Sampled(evaluation="draw"), hn.nn.Rounded(noise=0.1), hn.nn.Rounded(learn_threshold=True)],
)
def test_masks_that_are_made_at_each_forward(made, rule):
    model = net(rule=rule)
    with torch.no_grad():
        model(X)
        made.clear()
        assert torch.equal(model(X), anew(model)) and made
        for layer in hn.hidden_layers(model).values():
            layer.wish = 0.05
        assert torch.equal(model(X), anew(model))
        assert all(layer._kept.value is None for layer in hn.hidden_layers(model).values())


class Careless(nn.Linear):
    """A layer that writes to what it reads."""

    def forward(self, x):
        return F.linear(x, self.weight.mul_(0.5), self.bias)


def test_a_layer_that_writes_to_its_weight_does_so_once():
    model = hn.hide(nn.Sequential(Careless(6, 4)), hn.Generated("signed_constant"), hn.TopK(0.5)).eval()
    x = torch.randn(3, 6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            first = model(x)
            assert bool(first.any()) and all(torch.equal(model(x), first) for _ in range(3))


def test_recorded_code_makes_its_weights():
    """So that what was traced, exported or compiled follows the scores, or holds what it held before."""
    model, x = hn.hide(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).eval(), torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        model(x)
        traced = torch.jit.trace(model, x, check_trace=False)
        exported = torch.export.export(model, (x,))
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        graph = torch.fx.experimental.proxy_tensor.make_fx(model)(x)
        want = anew(model, x)
        assert all(torch.equal(made(x), want) for made in (traced, exported.module(), compiled, graph))
        assert "hiddennet::masked_weight" in str(traced.inlined_graph) and "hiddennet.masked_weight" in str(graph.graph)
        assert "masked_weight" in str(exported.graph)
        model[0].scores.copy_(model[0].scores.flip(0))
        assert torch.equal(compiled(x), anew(model, x)) and not torch.equal(compiled(x), want)


def test_wrapped_models(made):
    model = net()
    want = anew(model)
    with torch.no_grad():
        wrapped = nn.DataParallel(model)
        assert torch.equal(wrapped(X), want)
        made.clear()
        assert torch.equal(wrapped(X), want) and not made
        # what the threads of several GPUs get
        replica = model.first._replicate_for_data_parallel()
        replica._parameters, replica._buffers = dict(model.first._parameters), dict(model.first._buffers)
        replica._is_replica = True
        kept = model.first._kept.value
        assert torch.equal(replica(X), model.first(X)) and made and model.first._kept.value is kept
        averaged = torch.optim.swa_utils.AveragedModel(model)
        averaged.update_parameters(model)
        assert torch.equal(averaged.eval()(X), want)


def test_functional_calls_see_their_own_numbers():
    model = net()
    with torch.no_grad():
        want = model(X)
        others = {n: torch.randn_like(p) if n.endswith("scores") else p for n, p in model.named_parameters()}
        found = torch.func.functional_call(model, others, (X,))
        twin = copy.deepcopy(model)
        for name, p in twin.named_parameters():
            p.copy_(others[name])
        assert torch.equal(found, twin(X)) and not torch.equal(found, want)
        assert torch.equal(model(X), want)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_networks_of_others(made, library):
    module = pytest.importorskip(library)
    torch.manual_seed(0)
    build = {
        "torchvision": lambda: module.models.resnet18(num_classes=10),
        "timm": lambda: module.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, patch_size=8, depth=2),
    }
    model, x = hn.hide(build[library]()).eval(), torch.randn(2, 3, 32, 32)
    want = anew(model, x)
    with torch.inference_mode():
        assert torch.equal(model(x), want)
        made.clear()
        assert torch.equal(model(x), want) and not made
    step(torch.optim.SGD, fused=True)(model)
    with torch.inference_mode():
        assert torch.equal(model(x), anew(model, x)) and not torch.equal(model(x), want)
