"""A rule and a source in one file, without C++: n:m masks, one ranking a channel, and what a user would write."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import ops
from hiddennet.nn.grouped import top_of_rows
from tests.checks import assert_equal


@dataclass(frozen=True)
class EveryOther(hn.nn.Selecting):
    """The whole of a rule of one's own: the highest scores of a layer, found with torch alone."""

    kind = "by_sort"
    density: float
    by: str = "magnitude"

    def keep(self, layer, scores):
        ranked = (scores.abs() if self.by == "magnitude" else scores).flatten()
        mask = torch.ones_like(ranked, dtype=torch.bool)
        mask[ranked.sort(stable=True).indices[: int((1 - self.density) * ranked.numel())]] = False
        return mask.view(scores.shape)


@dataclass(frozen=True)
class Scaled(hn.nn.Source):
    """The whole of a learned source of one's own: one trained factor on frozen random weights."""

    kind = "scaled"
    layer: int | None = None

    def attach(self, layer, fresh):
        weight = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(self.layer or 0))
        hn.nn.without_weight(layer)
        layer.register_buffer("base", weight)
        layer.factor = nn.Parameter(torch.ones(()))
        return self

    def state(self, layer):
        return ops.WeightSource.store(layer.base * layer.factor)


def convnet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 12, bias=False))


def step(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return [layer.scores.grad for layer in hn.hidden_layers(model).values()]


@pytest.mark.parametrize("by", ["magnitude", "value"])
@pytest.mark.parametrize("setting", ["plain", "channels_last", "psg", "compiled", "bfloat16"])
@pytest.mark.parametrize("own", ["python", "grouped", "per_channel"])
def test_equal_to_top_k_to_the_bit_where_the_group_is_the_layer(by, setting, own):
    shape = (1, 16, 1, 1) if own != "python" else (6, 16, 3, 3)
    rules = {
        "python": EveryOther(0.25, by),
        "grouped": hn.nn.Grouped(4, 16, by),
        "per_channel": hn.nn.PerChannel(0.25, by),
    }
    torch._dynamo.reset()  # one compiled model does not count against another
    found = []
    for rule in (hn.TopK(0.25, by=by), rules[own]):
        torch.manual_seed(3)
        layer = hn.HiddenConv2d(shape[1], shape[0], shape[2:], source=hn.Generated(seed=5), rule=rule, score_init=0.0)
        with torch.no_grad():
            layer.scores.normal_()
            layer.scores.view(-1)[3:9] = 0.25  # ties
        model = nn.Sequential(layer)
        if setting == "channels_last":
            model.to(memory_format=torch.channels_last)
        if setting == "psg":
            hn.psg(model, ops.PSGConfig(input_bits=8, gradient_bits=16))
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if setting == "compiled" else model
        x = torch.randn(2, shape[1], 5, 5, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "bfloat16"):
            y = run(x)
        y.float().square().sum().backward()
        found.append((layer.mask(), y.detach(), layer.scores.grad))
    for own_part, part in zip(found[1], found[0], strict=True):
        assert_equal(own_part, part)


@pytest.mark.cuda
def test_masks_made_in_python_run_through_the_implicit_gemm():
    torch.manual_seed(0)
    layers = [hn.HiddenConv2d(16, 32, 3, rule=rule).cuda() for rule in (hn.TopK(0.25), EveryOther(0.25))]
    layers[1].load_state_dict({**layers[1].state_dict(), "scores": layers[0].scores.detach()})
    x = torch.randn(4, 16, 8, 8, device="cuda", dtype=torch.bfloat16)
    for layer in layers:
        layer.plan = "implicit_gemm"
        layer(x).float().square().sum().backward()
    assert_equal(layers[0].scores.grad, layers[1].scores.grad)


@pytest.mark.parametrize("by", ["magnitude", "value"])
@pytest.mark.parametrize("n", [1, 4, 32, 33, 200])
def test_top_of_rows_is_exact_with_ties_zeros_and_nan(by, n):
    torch.manual_seed(n)
    rows = torch.randint(-2, 3, (40, n)).float() / 2
    rows[0] = 0.0
    rows[0, ::2] = -0.0
    if n > 3:
        rows[1, 2] = float("nan")
        rows[2] = torch.randn(n)
    for k in {0, 1, n // 2, n}:
        want = torch.stack([ops.topk_mask(row, k, by=by) for row in rows])
        assert_equal(top_of_rows(rows, k, by), want, f"k={k}")


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 8), (0, 4), (4, 4)])
def test_n_of_m_input_channels_at_each_output_and_tap(n, m):
    torch.manual_seed(0)
    model = hn.hide(
        nn.Sequential(nn.Conv2d(8, 5, 3), nn.Flatten(), nn.LazyLinear(3)), include="0", rule=hn.nn.Grouped(n, m)
    )
    mask = hn.masks(model)["0"]
    groups = mask.movedim(1, -1).reshape(-1, m)
    assert bool((groups.sum(1) == n).all())
    scores = model[0].scores.detach().abs().movedim(1, -1).reshape(-1, m)
    if 0 < n < m:
        assert bool((scores.masked_fill(~groups, 9.0).amin(1) >= scores.masked_fill(groups, -9.0).amax(1)).all())
    assert hn.density(model) == n / m


def test_learned_two_of_four_trains_exports_and_loads(tmp_path):
    torch.manual_seed(1)
    model = hn.hide(convnet(), hn.Generated(seed=2), hn.nn.Grouped(2, 4))
    x, labels = torch.randn(32, 4, 6, 6), torch.randint(12, (32,))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, fused=True)
    losses, masks = [], []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        masks.append(hn.masks(model)["3"])
    assert losses[-1] < 0.7 * losses[0] and not torch.equal(masks[0], masks[-1])
    hn.export(model, tmp_path / "a.safetensors")
    again = hn.load(tmp_path / "a.safetensors", convnet())
    assert_equal(again(x), model.eval()(x))
    assert bool((hn.masks(again)["3"].view(-1, 4).sum(1) == 2).all())


def test_a_learned_source_learns_is_copied_saved_exported_and_loaded(tmp_path):
    model = hn.hide(convnet(), Scaled(), hn.TopK(0.5))
    x = torch.randn(2, 4, 6, 6)
    model(x).sum().backward()
    layers = hn.hidden_layers(model)
    assert all(layer.factor.grad is not None and layer.scores.grad is not None for layer in layers.values())
    with torch.no_grad():
        for layer in layers.values():
            layer.factor.add_(0.5)
    twin = hn.hide(convnet(), Scaled(), hn.TopK(0.5))
    twin.load_state_dict(model.state_dict())
    assert_equal(twin.eval()(x), model.eval()(x))
    assert_equal(copy.deepcopy(model)(x), model(x))
    hn.export(model, tmp_path / "a.safetensors")
    assert_equal(hn.load(tmp_path / "a.safetensors", convnet())(x), model(x))


def test_what_does_not_fit_is_refused_and_nothing_changes():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 4, 3))
    state, classes = {k: v.clone() for k, v in model.state_dict().items()}, [type(m) for m in model]
    with pytest.raises(ValueError, match=r"input channels in groups of 4 .*got 6 .*exclude the layer"):
        hn.hide(model, rule=hn.nn.Grouped(2, 4))
    assert [type(m) for m in model] == classes and not model._forward_pre_hooks
    for key, value in model.state_dict().items():
        assert_equal(value, state[key])
    assert all(p.requires_grad for p in model.parameters())
    model(torch.randn(1, 4, 9, 9)).sum().backward()
    with pytest.raises(ValueError, match="0 <= n <= m"):
        hn.nn.Grouped(3, 2)
    with pytest.raises(ValueError, match=r"density in \[0, 1\]"):
        hn.nn.PerChannel(1.5)
    with pytest.raises(NotImplementedError, match="defines keep"):
        hn.HiddenLinear(4, 4, rule=hn.nn.Selecting()).mask()


def test_per_channel_keeps_equally_many_in_every_filter():
    model = hn.hide(convnet(), rule=hn.nn.PerChannel(0.3))
    for mask in hn.masks(model).values():
        filters = mask.flatten(1)
        n = filters.shape[1]
        assert bool((filters.sum(1) == n - int(0.7 * n)).all())
