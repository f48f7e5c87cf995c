"""Small wirings against what the original computed: logits, losses, gradients and kept edges, in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
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
    from_original,
    original_name,
)
from tests.golden import Golden
from tests.importers.original_dnw import to_original

pytestmark = pytest.mark.isa

TINY = {"num_classes": 3, "stem_channels": 2, "density": 0.4, "compat": True}


@pytest.fixture(scope="module")
def golden():
    return Golden("dnw")


def array(golden, key):
    return torch.as_tensor(golden[key])


def filled(model, golden, prefix):
    """The model in float64 with a golden state dict."""
    state = {key: torch.as_tensor(value) for key, value in golden.below(prefix).items()}
    model = model.double()
    model.load_state_dict(from_original(model, state))
    written = to_original(model)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    return model


def check_training(model, golden, prefix):
    images, target = array(golden, "B/x"), array(golden, "B/target")
    found = model.train()(images)
    torch.testing.assert_close(found, array(golden, f"{prefix}/logits_train"), rtol=0, atol=1e-10)
    loss = F.cross_entropy(found, target)
    torch.testing.assert_close(loss, array(golden, f"{prefix}/loss"), rtol=0, atol=1e-10)
    loss.backward()
    for name, parameter in model.named_parameters():
        want = array(golden, f"{prefix}/grad/{original_name(model, name)}").view_as(parameter)
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=1e-9, msg=lambda said, n=name: f"{n}: {said}")


def test_static(golden):
    config = StaticConfig(blocks=(4, 6, 6), nodes=16, outputs=5, **TINY)
    model = filled(StaticGraph(config), golden, "B/param/")
    weight = model.graph.effective_weight().detach()
    assert torch.equal(weight, array(golden, "B/weff"))
    assert torch.equal(model.graph.mask(), array(golden, "B/weff") != 0)
    check_training(model, golden, "B")
    want = array(golden, "B/logits_eval_after_one_train_fwd")
    torch.testing.assert_close(model.eval()(array(golden, "B/x")), want, rtol=0, atol=1e-10)


def trained(golden):
    """The static network after 12 steps, the loss and the kept edges before each."""
    model = filled(StaticGraph(StaticConfig(blocks=(4, 6, 6), outputs=5, **TINY)), golden, "B/param/").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-2)
    losses, masks = [], []
    for step in range(12):
        images = torch.as_tensor(np.random.RandomState(100 + step).standard_normal((4, 3, 16, 16)))
        target = torch.tensor([step % 3, (step + 1) % 3, (step + 2) % 3, step % 3])
        masks.append(model.graph.mask())
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), target)
        losses.append(loss.detach())
        loss.backward()
        optimizer.step()
    return model, torch.stack(losses), torch.stack(masks)


def test_static_swaps_edges_as_it_trains(golden):
    kept = {key: torch.as_tensor(value) for key, value in golden.below("B/traj_").items()}
    model, losses, masks = trained(golden)
    torch.testing.assert_close(losses, kept.pop("losses"), rtol=0, atol=1e-10)
    for key, want in kept.items():  # by shape: masks before each step, the last weights, how many entries changed
        if want.numel() == masks.numel():
            assert torch.equal(masks, want.view_as(masks) != 0), key
        elif want.numel() == masks[0].numel():
            torch.testing.assert_close(model.graph.weight.detach(), want.view_as(masks[0]), rtol=0, atol=1e-10)
        else:
            assert [int((a ^ b).sum()) for a, b in pairwise(masks)] == want.tolist(), key


def test_static_swap_counts_of_the_specification(golden):
    _, _, masks = trained(golden)
    assert [int((a ^ b).sum()) for a, b in pairwise(masks)] == [2, 6, 14, 8, 12, 10, 6, 8, 8, 4, 8]


def test_discrete(golden):
    config = DiscreteConfig(nodes=10, inputs=4, outputs=3, steps=3, **TINY)
    model = filled(DiscreteGraph(config), golden, "C/param/")
    check_training(model, golden, "C")
    counts = model.counts()
    assert 9 * counts["sending"] + counts["edges"] == int(array(golden, "C/profiling_n_params"))


def continuous(golden, **options):
    config = ContinuousConfig(nodes=10, inputs=4, outputs=3, **{**TINY, **options})
    return filled(ContinuousGraph(config), golden, "D/param/")


@pytest.mark.parametrize("prefix", ["D/inplace", "D/outofplace"])
def test_continuous(golden, prefix):
    model = continuous(golden, compat=prefix == "D/inplace", solver="original")
    assert torch.equal(model.graph.effective_weight().detach(), array(golden, "D/weff"))
    check_training(model, golden, prefix)
    assert model.evaluations == int(array(golden, f"{prefix}/nfe")) == len(array(golden, f"{prefix}/t_evals"))


def test_continuous_with_a_small_tolerance(golden):
    """Hundreds of steps over the kinks of a ReLU: the last bit of torch's sums, another on each CPU, decides on their
    sizes, so that each sequence ends within some tolerances of the others; through the steps gradients are noise."""
    prefix = "D/outofplace_tol1e-8"
    model = continuous(golden, compat=False, solver="original", tolerance=1e-8)
    found = model.train()(array(golden, "B/x"))
    torch.testing.assert_close(found, array(golden, f"{prefix}/logits_train"), rtol=0, atol=1e-5)
    loss = F.cross_entropy(found, array(golden, "B/target"))
    torch.testing.assert_close(loss, array(golden, f"{prefix}/loss"), rtol=0, atol=1e-5)
    loss.backward()
    for name in ("fc.weight", "fc.bias"):
        torch.testing.assert_close(
            model.get_parameter(name).grad.flatten(),
            array(golden, f"{prefix}/grad/{name}").flatten(),
            rtol=0,
            atol=1e-5,
        )
    assert model.evaluations == pytest.approx(int(array(golden, f"{prefix}/nfe")), rel=0.25)


@pytest.mark.parametrize("prefix", ["D/inplace", "D/outofplace"])
def test_continuous_states(golden, prefix):
    model = continuous(golden, compat=prefix == "D/inplace", solver="original")
    start, end = array(golden, f"{prefix}/ode_in"), array(golden, f"{prefix}/ode_out")
    torch.testing.assert_close(model.solve(start).detach(), end, rtol=0, atol=1e-10)


def test_torchdiffeq_solves_the_same_equation(golden):
    pytest.importorskip("torchdiffeq", reason="torchdiffeq is not installed")
    model = continuous(golden, compat=False, tolerance=1e-8)
    found = model.train()(array(golden, "B/x"))
    # two solvers, two sequences of steps over the kinks of a ReLU: each 1e-8 off a step
    torch.testing.assert_close(found, array(golden, "D/outofplace_tol1e-8/logits_train"), rtol=0, atol=1e-5)


def fill(model, seed):
    """The golden values' own recipe of parameters, in the original's order of names."""

    def order(names):
        own = ("downsample", "conv", "graph", "norm", "fc") if isinstance(model, DiscreteGraph) else ()
        own = own or ("downsample", "conv", "graph", "fc", "norm")
        return sorted(names, key=lambda item: own.index(item[0].split(".")[0]))

    drawn = np.random.RandomState(seed)
    with torch.no_grad():
        for name, p in order(model.named_parameters()):
            shape = tuple(p.shape) + ((1, 1) if name == "graph.weight" else ())
            v = torch.as_tensor(drawn.uniform(-1, 1, shape)).view(p.shape)
            scale = name.startswith("downsample") and len(shape) == 1 and name.endswith("weight")
            if "norm" in name or scale:
                p.copy_(1 + 0.3 * v if name.endswith("weight") else 0.2 * v)
            else:
                p.copy_(v * math.sqrt(3 / math.prod(shape[1:])) if len(shape) > 1 else 0.1 * v)
        for name, b in order(model.named_buffers()):
            if name.endswith("running_mean"):
                b.copy_(torch.as_tensor(0.1 * drawn.uniform(-1, 1, b.shape)))
            elif name.endswith("running_var"):
                b.copy_(torch.as_tensor(1 + 0.5 * drawn.uniform(-1, 1, b.shape)))
    return model


FULL = {
    "static": (StaticGraph, StaticConfig, 21),
    "discrete": (DiscreteGraph, DiscreteConfig, 22),
    "continuous": (ContinuousGraph, ContinuousConfig, 23),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size(golden, name):
    made, config, seed = FULL[name]
    logits = array(golden, f"E/{name}/logits")
    model = fill(made(config(compat=True)).double(), seed).train()
    found = model(torch.as_tensor(np.random.RandomState(31).standard_normal((2, 3, 32, 32))))
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-10)
    loss = F.cross_entropy(found, torch.tensor([3, 7]))
    loss.backward()
    torch.testing.assert_close(loss, array(golden, f"E/{name}/loss"), rtol=0, atol=1e-10)
    assert model.counts()["edges"] == int(array(golden, f"E/{name}/kept"))
    gradients = {original_name(model, key): p.grad for key, p in model.named_parameters()}
    names = golden[f"E/{name}/param_names"].tolist()
    assert sorted(names) == sorted(gradients)
    l2 = torch.stack([gradients[key].norm() for key in names])
    total = torch.stack([gradients[key].sum() for key in names])
    torch.testing.assert_close(l2, array(golden, f"E/{name}/grad_l2"), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(total, array(golden, f"E/{name}/grad_sum"), rtol=1e-9, atol=1e-9)
    edges = gradients[original_name(model, "graph.weight")]
    assert int(edges.count_nonzero()) == int(array(golden, f"E/{name}/graph_grad_nonzero"))
    for row in (300, 750):
        torch.testing.assert_close(edges[row], array(golden, f"E/{name}/graph_grad_row{row}"), rtol=0, atol=1e-10)
