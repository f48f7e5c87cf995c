"""What the small wirings say of bad input, and the original's names of their parameters."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hiddennet.models.dnw import (
    ContinuousConfig,
    ContinuousGraph,
    DiscreteConfig,
    DiscreteGraph,
    MobileNetConfig,
    NotConverged,
    StaticConfig,
    StaticGraph,
    from_original,
)
from tests.importers.original_dnw import to_original

SMALL = {"num_classes": 3, "stem_channels": 4, "density": 0.2}
STATIC = StaticConfig(blocks=(4, 6, 3, 7), outputs=5, **SMALL)
DISCRETE = DiscreteConfig(nodes=12, inputs=4, outputs=5, steps=4, **SMALL)
CONTINUOUS = ContinuousConfig(nodes=12, inputs=4, outputs=5, solver="original", **SMALL)
MODELS = {
    "static": (StaticGraph, STATIC),
    "discrete": (DiscreteGraph, DISCRETE),
    "continuous": (ContinuousGraph, CONTINUOUS),
}


def made(model, config):
    torch.manual_seed(0)
    return model(config).double()


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_graph_without_a_path_is_named():
    with pytest.raises(
        ValueError, match=r"StaticGraph: expected a path .* over the 0 edges of wiring 'graph' \(kind"
    ) as e:
        StaticGraph(dataclasses.replace(STATIC, kind="random", density=0.0))
    assert "\n" not in str(e.value) and "another seed" in str(e.value)
    network = DiscreteGraph(dataclasses.replace(DISCRETE, edges=3))
    with torch.no_grad():
        network.graph.weight.zero_()
        for v, u in ((4, 0), (5, 4), (11, 5)):
            network.graph.weight[v, u] = 1.0
    with pytest.raises(ValueError, match="DiscreteGraph: expected a path"):
        network.check_paths()  # three edges, four steps
    one_more = DiscreteGraph(dataclasses.replace(DISCRETE, edges=3, steps=3))
    one_more.load_state_dict(network.state_dict())
    one_more.check_paths()
    around = ContinuousGraph(dataclasses.replace(CONTINUOUS, edges=3))
    around.load_state_dict(network.state_dict())
    around.check_paths()


@pytest.mark.parametrize("solver", ["torchdiffeq", "original"])
@pytest.mark.parametrize("trouble", ["too few steps", "no number"])
def test_an_equation_that_is_not_solved(solver, trouble):
    if solver == "torchdiffeq":
        pytest.importorskip("torchdiffeq", reason="torchdiffeq is not installed")
    steps = 2 if trouble == "too few steps" else 1000
    network = made(ContinuousGraph, dataclasses.replace(CONTINUOUS, solver=solver, tolerance=1e-9, max_steps=steps))
    if trouble == "no number":
        with torch.no_grad():
            network.conv.weight[0].fill_(float("nan"))
    with pytest.raises(
        NotConverged, match="expected the ODE to be solved to t = 1 with tolerance 1e-09, got"
    ) as raised:
        network(images())
    assert "\n" not in str(raised.value) and "raise tolerance or max_steps" in str(raised.value)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["dnw", "fine_tune", "random"])
def test_the_originals_names_lead_back(name, kind):
    model, config = MODELS[name]
    network = made(model, dataclasses.replace(config, kind=kind, density=0.35))
    network.graph.effective_weight()
    state = {f"module.{key}": value for key, value in to_original(network).items()}
    state["module.zeros"] = torch.zeros(1, 8, 4, 4)
    assert any(("odesolve.odefunc.graph.weight" in key) == (name == "continuous") for key in state if "graph" in key)
    twin = model(network.config).double()
    twin.load_state_dict(from_original(twin, state))
    assert torch.equal(twin.eval()(images()), network.eval()(images()))
    short = {key: value for key, value in state.items() if "fc.bias" not in key}
    with pytest.raises(ValueError, match="got 1 missing: fc.bias"):
        from_original(twin, short)
    with pytest.raises(ValueError, match="got 1 unknown: more"):
        from_original(twin, state | {"more": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"expected fc.bias of shape \(3,\), got \(4,\)"):
        from_original(twin, state | {"module.fc.bias": torch.zeros(4)})


@pytest.mark.parametrize(
    "config, options, message",
    [
        (
            StaticConfig,
            {"blocks": (32, 192), "nodes": 800},
            "blocks that add up to 800 nodes, got .32, 192., which add up to 224",
        ),
        (StaticConfig, {"blocks": (32,)}, "at least 2 blocks"),
        (StaticConfig, {"blocks": (32, 0, 200)}, r"blocks\[1\] to be a whole number of at least 1, got 0"),
        (StaticConfig, {"blocks": (32, 99)}, "outputs to be within the last block of 99 nodes, got 100"),
        (DiscreteConfig, {"nodes": 40}, "at most 40 outputs"),
        (DiscreteConfig, {"steps": 0}, "steps to be a whole number of at least 1, got 0"),
        (ContinuousConfig, {"nodes": 20, "outputs": 3}, "at most 20 inputs"),
        (ContinuousConfig, {"tolerance": 0.0}, "a positive tolerance, got 0.0"),
        (ContinuousConfig, {"clamp": True}, "solver='original' with clamp"),
        (ContinuousConfig, {"solver": "euler"}, "solver to be one of"),
        (StaticConfig, {"window": "left"}, "window to be one of"),
        (MobileNetConfig, {"stages": ((1, 1, 1, 10**7),)}, "at most 10000 blocks, got stages"),
        (StaticConfig, {"num_classes": True}, "num_classes to be a whole number of at least 1, got True"),
    ],
)
def test_configs_are_checked(config, options, message):
    with pytest.raises(ValueError, match=f"^{config.__name__}: expected .*{message}") as raised:
        config(**options)
    assert "\n" not in str(raised.value)


def test_more_edges_than_can_run():
    with pytest.raises(ValueError, match="Wiring: expected a number of edges in .*, the usable ones, got .*keep fewer"):
        StaticGraph(StaticConfig(density=0.5))
