"""The small wirings against their formulas, written plainly: one dense state, every edge a position of one matrix."""

from __future__ import annotations

import copy
import dataclasses
from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F

from hiddennet.models.dnw import (
    ContinuousConfig,
    ContinuousGraph,
    DiscreteConfig,
    DiscreteGraph,
    StaticConfig,
    StaticGraph,
    base,
)
from hiddennet.models.dnw.base import depthwise, instance_norm, nodes_first
from hiddennet.nn import wirings
from hiddennet.nn.edge_rules import KINDS

SMALL = {"num_classes": 3, "stem_channels": 4, "density": 0.2}
STATIC = StaticConfig(blocks=(4, 6, 3, 7), outputs=5, **SMALL)
DISCRETE = DiscreteConfig(nodes=12, inputs=4, outputs=5, steps=4, **SMALL)
CONTINUOUS = ContinuousConfig(nodes=12, inputs=4, outputs=5, tolerance=1e-6, **SMALL)
MODELS = {
    "static": (StaticGraph, STATIC),
    "discrete": (DiscreteGraph, DISCRETE),
    "continuous": (ContinuousGraph, CONTINUOUS),
}


def made(model, config, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    network = model(config).to(dtype)
    with torch.no_grad():  # not the ones and zeros that hide which channel is scaled by what
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return network


def images(batch=2, side=16, dtype=torch.float64, channels=3):
    drawn = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return drawn.to(dtype)


def first_state(model, x):
    stem = model.downsample(x)
    return torch.cat((stem, stem.new_zeros(len(stem), model.nodes - stem.shape[1], *stem.shape[2:])), 1)


def read_out(model, state):
    outputs, middle = state[:, -model.config.outputs :], state.shape[2] // 2 - 1
    rows = slice(middle - 1, middle + 1) if model.config.window == "original" else slice(middle, middle + 2)
    return model.fc(outputs[:, :, rows, rows].mean((2, 3)))


def send(model, maps, start=0):
    return F.conv2d(maps, model.conv.weight[start : start + maps.shape[1]], padding=1, groups=maps.shape[1])


def plain_static(model, x):
    state, weight = first_state(model, x), model.graph.effective_weight()
    outputs = model.nodes - model.config.outputs
    for i, (a, b) in enumerate(pairwise((0, *accumulate(model.config.blocks)))):
        z = send(model, model.norm[i](state[:, a:b]).relu(), a)
        alive = torch.ones_like(weight[:, a:b])
        if b == model.nodes and not model.lateral:
            alive[:, outputs - a :] = 0  # outputs send nothing
        low = min(b, outputs)
        state = state.clone()
        state[:, low:] += torch.einsum("vu,buhw->bvhw", (weight[:, a:b] * alive)[low:], z)
    return read_out(model, state)


def plain_step(model, state):
    weight = model.graph.effective_weight()
    return model.norm(torch.einsum("vu,buhw->bvhw", weight, send(model, state.relu())))


def plain_discrete(model, x):
    state = first_state(model, x)
    for _ in range(model.config.steps):
        state = plain_step(model, state)
    return read_out(model, state)


def plain_continuous(model, x, steps=64):
    """Classical Runge-Kutta of order 4 in equal steps."""
    y, h = first_state(model, x), 1 / steps
    for _ in range(steps):
        a = plain_step(model, y)
        b = plain_step(model, y + h / 2 * a)
        c = plain_step(model, y + h / 2 * b)
        d = plain_step(model, y + h * c)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
    return read_out(model, y)


def compare(model, plain, x, *, atol, grad_atol):
    model.train()
    labels = torch.arange(len(x)) % model.config.num_classes
    results = []
    for forward in (model, lambda images: plain(model, images)):
        logits = forward(x)
        F.cross_entropy(logits, labels).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        model.zero_grad(set_to_none=True)
        results.append((logits.detach(), gradients))
    (logits, gradients), (want, wanted) = results
    torch.testing.assert_close(logits, want, rtol=0, atol=atol)
    for name, gradient in wanted.items():
        gradient = torch.zeros_like(gradients[name]) if gradient is None else gradient
        got = torch.zeros_like(gradient) if gradients[name] is None else gradients[name]
        torch.testing.assert_close(got, gradient, rtol=0, atol=grad_atol, msg=f"{name}: {{}}".format)


STATICS = {
    "default": STATIC,
    "lateral": dataclasses.replace(STATIC, lateral=True),
    "compat": dataclasses.replace(STATIC, compat=True),
    "random": dataclasses.replace(STATIC, kind="random"),
    "complete": dataclasses.replace(STATIC, kind="complete"),
    "two blocks": dataclasses.replace(STATIC, blocks=(4, 5)),
    "one output": dataclasses.replace(STATIC, blocks=(1, 9, 2, 8, 1), outputs=1),
    "last block all outputs": dataclasses.replace(STATIC, blocks=(7, 2, 5), lateral=True),
    "centre": dataclasses.replace(STATIC, window="centre"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", STATICS)
def test_static_is_its_formula(name, dtype):
    model = made(StaticGraph, STATICS[name], dtype)
    exact = dtype == torch.float64
    compare(model, plain_static, images(dtype=dtype), atol=1e-12 if exact else 1e-5, grad_atol=1e-11 if exact else 1e-4)


DISCRETES = {
    "default": DISCRETE,
    **{f"steps {n}": dataclasses.replace(DISCRETE, steps=n) for n in (1, 2, 3)},
    "all are inputs and outputs": dataclasses.replace(DISCRETE, inputs=12, outputs=12),
    "complete": dataclasses.replace(DISCRETE, kind="complete"),
    "compat": dataclasses.replace(DISCRETE, compat=True),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", DISCRETES)
def test_discrete_is_its_formula(name, dtype):
    model = made(DiscreteGraph, DISCRETES[name], dtype)
    exact = dtype == torch.float64
    compare(
        model, plain_discrete, images(dtype=dtype), atol=1e-12 if exact else 1e-5, grad_atol=1e-11 if exact else 1e-4
    )


@pytest.mark.parametrize("solver", ["torchdiffeq", "original"])
def test_continuous_solves_its_equation(solver):
    if solver == "torchdiffeq":
        pytest.importorskip("torchdiffeq", reason="torchdiffeq is not installed")
    config = dataclasses.replace(CONTINUOUS, solver=solver)
    model = made(ContinuousGraph, config)
    found = model(images()).detach()
    torch.testing.assert_close(found, plain_continuous(model, images()).detach(), rtol=0, atol=3e-4)
    exact = plain_continuous(model, images(), 256).detach()
    loose = made(ContinuousGraph, dataclasses.replace(config, tolerance=1e-2))(images()).detach()
    assert (found - exact).abs().max() < (loose - exact).abs().max()
    assert model.evaluations >= 14


def test_the_originals_solver_is_the_same_in_float32():
    config = dataclasses.replace(CONTINUOUS, tolerance=1e-3, compat=True)
    double, single = (made(ContinuousGraph, config, dtype) for dtype in (torch.float64, torch.float32))
    single.load_state_dict(double.state_dict())
    torch.testing.assert_close(single(images(dtype=torch.float32)).double(), double(images()), rtol=0, atol=1e-4)


def test_node_major_operations():
    x, weight, bias = images(channels=5), torch.randn(5).double(), torch.randn(5).double()
    maps = nodes_first(x)
    assert maps.is_contiguous() and torch.equal(maps, x.transpose(0, 1))
    assert nodes_first(maps.transpose(0, 1)).data_ptr() == maps.data_ptr()
    found = instance_norm(maps, weight, bias).transpose(0, 1)
    torch.testing.assert_close(found, F.instance_norm(x, weight=weight, bias=bias), rtol=0, atol=1e-12)
    filters = torch.randn(5, 1, 3, 3).double()
    want = F.conv2d(x, filters, padding=1, groups=5)
    torch.testing.assert_close(depthwise(maps, filters).transpose(0, 1), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", [16, 17, 24, 36])
def test_shapes_of_images(name, side):
    model, config = MODELS[name]
    network = made(model, dataclasses.replace(config, in_channels=1, num_classes=7), torch.float32).eval()
    x = images(3, side, torch.float32, 1)
    with torch.no_grad():
        together, alone = network(x), network(x[:1])
        assert together.shape == (3, 7) and alone.shape == (1, 7)
        if name != "continuous":  # whose steps are chosen for the batch
            torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)
    for wrong in (x[0], x[:, :, :15], x.expand(-1, 3, -1, -1)):
        with pytest.raises(ValueError, match=r"Graph: expected images \[batch, 1, H, W\] of at least 16 x 16"):
            network(wrong)


@pytest.mark.parametrize("window, pixels", [("original", slice(2, 4)), ("centre", slice(3, 5))])
def test_the_window_that_is_averaged(window, pixels):
    network = made(StaticGraph, dataclasses.replace(STATIC, window=window))
    outputs = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    want = network.fc(outputs[:, :, pixels, pixels].mean((2, 3)))
    torch.testing.assert_close(network._head(outputs), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_trains_in_every_graph(name, kind):
    model, config = MODELS[name]
    network = made(model, config, torch.float32)
    other = made(type(network), dataclasses.replace(network.config, kind=kind, density=0.35), torch.float32)
    assert other.config.kind == kind and other.graph.kind == kind and list(wirings(other)) == ["graph"]
    for (key, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), key  # whatever the kind, one seed makes the same weights
    optimizer = torch.optim.SGD(other.parameters(), 0.01)
    before = other.graph.weight.detach().clone()
    F.cross_entropy(other(images(4, dtype=torch.float32)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    moved = other.graph.weight.detach() != before
    assert moved.any() and other.graph.weight.isfinite().all()
    if kind in ("random", "fine_tune", "dnw_no_update"):
        assert not (moved & ~other.graph.mask()).any() or kind == "dnw_no_update"
    twin = copy.deepcopy(other.eval())
    with torch.no_grad():
        assert torch.equal(twin(images(dtype=torch.float32)), other(images(dtype=torch.float32)))


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_autocast(name):
    model, config = MODELS[name]
    network = made(
        model, dataclasses.replace(config, tolerance=1e-2) if name == "continuous" else config, torch.float32
    )
    x, labels = images(4, dtype=torch.float32), torch.tensor([0, 1, 2, 0])
    plain = {"static": plain_static, "discrete": plain_discrete}.get(name)
    results = []
    # nodes without edges amplify rounding, so the formula's gradients under autocast are what there is to agree with
    for forward, cast in ((network, True), ((lambda x: plain(network, x)) if plain else network, plain is not None)):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            logits = forward(x)
        network.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        results.append((logits, network.graph.weight.grad.flatten()))
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    (logits, gradient), (want, wanted) = results
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), want.float(), rtol=0, atol=0.05)
    assert F.cosine_similarity(gradient, wanted, 0) > 0.95


def test_counts_are_the_papers():
    static, discrete = StaticGraph(StaticConfig(compat=True)), DiscreteGraph()
    for network in (static, discrete, ContinuousGraph(ContinuousConfig(solver="original"))):
        counts = network.counts()
        assert counts["stored"] == 651_058 and counts["edges"] == 32_000 and counts["effective"] == 41_458
    assert int(static.graph.usable.sum()) == 264_960
    assert 12_500 < static.counts()["running"] < 14_000
    assert int(StaticGraph().graph.usable.sum()) == 264_960 - 100 * 100
    assert StaticGraph().counts()["running"] == 32_000 == discrete.counts()["running"]
    mask = discrete.graph.mask()
    assert discrete.counts()["sending"] == int(mask.any(0).sum())


def test_the_static_graph_is_acyclic_by_default():
    usable = StaticGraph(STATIC).graph.usable
    assert not usable.triu().any() and not usable[:, -5:].any() and not usable[:4].any()
    lateral = StaticGraph(STATICS["lateral"]).graph.usable
    assert lateral[-5:, -5:].all() and not lateral[:-5].triu().any()


@pytest.mark.parametrize("name", ["static", "discrete"])
def test_published_maps_run_level_by_level_under_autocast_too(name, monkeypatch):
    model, config = MODELS[name]
    network = made(model, dataclasses.replace(config, density=0.1), torch.float32)
    x = images(3, 32, torch.float32)
    found = []
    run = base.wired_levels
    monkeypatch.setattr(base, "wired_levels", lambda *given: found.append(given[0].dtype) or run(*given))
    want = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = network(x)
    assert found == [torch.float32, torch.float32]
    torch.testing.assert_close(got.float(), want, rtol=0.1, atol=0.1)
    network.conv.weight.grad = None
    got.float().sum().backward()
    assert network.conv.weight.grad.isfinite().all() and network.conv.weight.grad.any()
    monkeypatch.setattr(base, "runs_by_levels", lambda *_: False)
    torch.testing.assert_close(network(x), want, rtol=1e-4, atol=1e-5)
