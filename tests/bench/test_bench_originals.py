"""The re-implemented original sequences give what the original systems gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench import originals
from bench.originals import KthvalueMask, SortConv2d, SortedMask
from tests.golden import Golden

CASES = ("A10", "B12ties", "C10const", "D7", "E4x3x3x3")
# of the seeded networks: cross-entropy for labels 0..3, sum |W|, sum |S|, sum |dL/dS|, kept weights
SEEDED = {
    "conv4": (2.2726643, 51917.8912, 18349.5075, 85.6953, 1212512),
    "cifar_resnet18": (2.0351703, 296018.3524, 104637.9083, 2550.7179, 5582176),
}


class Tensors(dict):
    """The arrays of the original system; a test that asks for one that is not there is skipped."""

    def __missing__(self, name: str):
        pytest.skip(f"the original system's {name} is not in the file of golden values")


@pytest.fixture
def values():
    file = Golden("hidden_networks")
    return Tensors((name, torch.from_numpy(file[name])) for name in file)


def _order_matters(magnitudes: torch.Tensor) -> bool:
    return magnitudes.unique().numel() < magnitudes.numel()


@pytest.mark.parametrize("case", CASES)
def test_sorted_mask(values, case):
    scores = values[f"getsubnet_{case}_scores"]
    for density, want, pruned in zip(
        values["getsubnet_ks"].tolist(),
        values[f"getsubnet_{case}_masks"],
        values[f"getsubnet_{case}_j"].tolist(),
        strict=True,
    ):
        mask = SortedMask.apply(scores, density)
        assert originals.pruned_count(scores.numel(), density) == pruned
        assert mask.count_nonzero() == scores.numel() - pruned
        if _order_matters(scores):  # torch's default sort does not promise an order of ties
            assert torch.equal(scores[mask.bool()].sort().values, scores[want.bool()].sort().values)
        else:
            assert torch.equal(mask, want)


@pytest.mark.parametrize("case", CASES)
def test_kthvalue_mask(values, case):
    scores = values[f"getsubnet_{case}_scores"]
    zeros, ones = torch.zeros_like(scores), torch.ones_like(scores)
    for removed, want in zip(values["faster_sparsity"].tolist(), values[f"faster_{case}_masks"], strict=True):
        assert torch.equal(KthvalueMask.apply(scores, removed, zeros, ones), want)


def test_pruned_counts(values):
    for n, row in zip(values["j_table_numel"].tolist(), values["j_table"], strict=True):
        got = [originals.pruned_count(n, k) for k in values["j_table_k"].tolist()]
        assert got == row.tolist(), n


@pytest.mark.parametrize("case", ["conv3x3", "conv3x3s2", "conv1x1"])
def test_layer(values, case):
    c_in, c_out, kernel, stride, pad, density = values[f"{case}_hyper"].tolist()
    layer = SortConv2d(int(c_in), int(c_out), int(kernel), int(stride), density)
    layer.padding = (int(pad), int(pad))
    layer.weight.data = values[f"{case}_weight"]
    layer.scores.data = values[f"{case}_scores"]
    x = values[f"{case}_x"].requires_grad_()
    y = layer(x)
    y.backward(values[f"{case}_gy"])
    assert torch.equal(layer.mask(), values[f"{case}_mask"])
    for got, want in ((y, "y"), (layer.scores.grad, "gscores"), (x.grad, "gx")):
        torch.testing.assert_close(got, values[f"{case}_{want}"], rtol=0, atol=1e-5)
    assert layer.weight.grad is None


def test_gradient_of_a_zero_score_is_zero(values):
    layer = SortConv2d(1, 1, 2, density=1.0)
    layer.padding = (0, 0)
    layer.weight.data = torch.full((1, 1, 2, 2), 2.0)
    layer.scores.data = torch.tensor([[[[0.0, -0.5], [0.25, -0.0]]]])
    layer(torch.ones(1, 1, 2, 2)).sum().backward()
    assert torch.equal(layer.scores.grad, values["zero_score_grad"])


def test_three_steps(values):
    model = nn.Sequential(
        SortConv2d(3, 4, 3),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        SortConv2d(4, 3, 1),
        nn.Flatten(),
    )
    layers = (model[0], model[4])
    for i, layer in enumerate(layers):
        layer.weight.data = values[f"train3_w{i}"].clone()
        layer.scores.data = values[f"train3_s{i}_init"].clone()
    optimizer = originals.sgd(model)
    for taken, want in enumerate(values["train3_losses"].tolist(), start=1):
        loss = originals.step(model, optimizer, values["train3_x"], values["train3_t"])
        assert loss.item() == pytest.approx(want, abs=1e-5)
        for i, layer in enumerate(layers):
            got = layer.scores.detach()
            torch.testing.assert_close(got, values[f"train3_s{i}_step{taken}"], rtol=0, atol=1e-5)
    torch.testing.assert_close(model[1].running_mean, values["train3_bn_mean"], rtol=0, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, values["train3_bn_var"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SEEDED)
def test_seeded_networks(name):
    """A seed gives the original's network: weights, scores, loss and gradients."""
    torch.manual_seed(0)
    model = originals.build(name)
    layers = [m for m in model.modules() if isinstance(m, SortConv2d)]
    x = torch.sin(0.013 * torch.arange(4 * 3 * 32 * 32, dtype=torch.float64)).float()
    loss = nn.functional.cross_entropy(model(x.view(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    want_loss, want_weights, want_scores, want_gradients, want_kept = SEEDED[name]

    def total(tensors) -> float:
        return sum(t.detach().double().abs().sum().item() for t in tensors)

    assert loss.item() == pytest.approx(want_loss, abs=1e-4)
    assert total(m.weight for m in layers) == pytest.approx(want_weights, rel=1e-6)
    assert total(m.scores for m in layers) == pytest.approx(want_scores, rel=1e-6)
    assert total(m.scores.grad for m in layers) == pytest.approx(want_gradients, rel=1e-3)
    assert sum(int(m.mask().sum()) for m in layers) == want_kept
    first = layers[0].scores.flatten()[:5].tolist()
    want = [0.0594646, -0.15467297, 0.03021764, 0.15854259, 0.12976588]
    assert first == pytest.approx(want, rel=1e-6)


def test_kthvalue_layer_is_the_sort_layer_without_ties():
    torch.manual_seed(0)
    layer = originals.KthvalueConv2d(4, 8, 3, density=0.3)
    n = layer.scores.numel()
    layer.scores.data = torch.randperm(n).float().view_as(layer.scores)
    kept = layer.mask().bool()
    assert int(kept.sum()) == n - round(0.7 * (n - 1))
    assert layer.scores[kept].min() > layer.scores[~kept].max()


@pytest.mark.parametrize("case", ["bottomk", "ties"])
def test_sorted_strike(case):
    file = Golden("rare_gems")
    values = {name: torch.from_numpy(file[name]) for name in file if name.startswith(("T_", "C_"))}
    scores = values.get(f"C_{case}_scores", values["T_scores0"])
    sizes = values["T_layer_sizes"].tolist()
    flags = [torch.ones(n, dtype=torch.int32) for n in sizes]
    rate = values[f"C_{case}_rate"].item()
    for want, threshold in zip(values[f"C_{case}_flags"], values[f"C_{case}_thresholds"].tolist(), strict=True):
        flags, tau = originals.sorted_strike(list(scores.split(sizes)), flags, rate)
        kept = np.unpackbits(want.numpy())[: scores.numel()]
        assert torch.equal(torch.cat(flags), torch.from_numpy(kept).int())
        assert tau.item() == pytest.approx(threshold, abs=1e-6)


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="conv2"):
        originals.build("conv3")
