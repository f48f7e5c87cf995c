"""The MobileNet-like wiring against what the original computed and its profiler printed."""

from __future__ import annotations

from decimal import Decimal

import pytest
import torch
import torch.nn.functional as F

from hiddennet import models
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph, from_original, original_name
from tests.golden import Golden
from tests.importers.original_dnw import to_original

TINY = {"num_classes": 5, "image_size": 16, "stages": ((4, 6, 1, 1), (6, 8, 2, 2), (8, 10, 2, 3)), "compat": True}
APPS = {  # width, small, kind
    "mobilenetv1_dnw_small_x15": (0.15, True, "dnw"),
    "mobilenetv1_dnw_small_x225": (0.225, True, "dnw"),
    "mobilenetv1_dnw_x225": (0.225, False, "dnw"),
    "mobilenetv1_dnw_x3": (0.3, False, "dnw"),
    "mobilenetv1_dnw_x49": (0.49, False, "dnw"),
    "mobilenetv1_random_graph_x225": (0.225, False, "random"),
    "mobilenetv1_random_graph_x49": (0.51, False, "random"),
}


@pytest.fixture(scope="module")
def golden():
    return Golden("dnw")


def array(golden, key):
    return torch.as_tensor(golden[key])


@pytest.fixture(params=["0.3", "0.6", "0.65", "0.8"])
def net(request, golden):
    """The tiny network of a prune rate with its golden state, in float64, and where its values are."""
    prefix = f"G/p{request.param}"
    state = {name: torch.as_tensor(value) for name, value in golden.below(f"{prefix}/param/").items()}
    model = MobileNetGraph(MobileNetConfig(width=float(1 - Decimal(request.param)), **TINY)).double()
    model.load_state_dict(from_original(model, {f"module.{name}": value for name, value in state.items()}))
    written = to_original(model)
    assert list(written) == list(state)
    assert all(torch.equal(written[name], value) for name, value in state.items())
    return model, prefix


def close(found, want):
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-10)


def test_budgets_and_edges(golden, net):
    model, prefix = net
    rates = [model.config.stage_rate(i) for i in range(3)]
    assert rates == array(golden, f"{prefix}/block_prune_rate").tolist()
    assert [layer.graph.edges for layer in model.layers] == array(golden, f"{prefix}/block_kept").tolist()
    for i, layer in enumerate(model.layers):
        want = array(golden, f"{prefix}/weff{i}")
        assert torch.equal(layer.graph.effective_weight().detach(), want)
        assert torch.equal(layer.graph.mask(), want != 0)


def test_evaluation(golden, net):
    model, prefix = net
    outputs = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output))
    close(model.eval()(array(golden, f"{prefix}/x")), array(golden, f"{prefix}/logits_eval"))
    for i, output in enumerate(outputs):
        close(output, array(golden, f"{prefix}/eval_layer{i}_out"))


@pytest.mark.parametrize("plan", ["as a CPU runs it", "as others do"])
def test_training(golden, net, plan):
    model, prefix = net
    if plan == "as others do":
        for layer in model.layers:
            layer._sent_by_nodes = layer._sent
    found = model.train()(array(golden, f"{prefix}/x"))
    close(found, array(golden, f"{prefix}/logits_train"))
    loss = F.cross_entropy(found, torch.tensor([1, 4]))
    close(loss, array(golden, f"{prefix}/loss_train"))
    loss.backward()
    for name, parameter in model.named_parameters():
        want = array(golden, f"{prefix}/grad/{original_name(model, name)}")
        close(parameter.grad, want.view_as(parameter))


@torch.no_grad()
def profile(model: MobileNetGraph, *, all_alive: bool = False) -> tuple[int, int]:
    """Parameters and multiply-adds as the original's profiler prints them: of 224 x 224 images whatever the size,
    with edges at positions that are never run, and with nodes that no edge leads to.

    all_alive: as if every node had an edge.
    """
    config = model.config
    side, first = 112, config.stages[0].inputs
    parameters = macs = 0
    for i, (stage, layer) in enumerate(zip(config.stages, model.layers, strict=True)):
        mask = layer.graph.mask()
        edges = mask.numel() * (1 - config.stage_rate(i))
        sending, receiving = mask.any(dim=0), mask.any(dim=1)[-stage.outputs :]
        if all_alive:
            sources, features, first_alive = stage.sources, stage.outputs, first
        else:  # the original's sums of tensors and floats, in float32
            sources, features = sending.sum().cpu(), int(receiving.sum())
            first_alive = int(sending[:first].sum())
        if i == 0:
            parameters, macs = 27 * first_alive, 27 * first_alive * side * side
        else:
            side //= 2
        parameters += int(9 * sources + edges)
        macs += int(9 * sources * side * side + edges * side * side)
    classifier = config.num_classes * config.features
    linear = int(classifier * (1 - config.classifier_rate)) if config.small else features * config.num_classes
    return parameters + linear, macs + 49 * features + linear


@pytest.mark.parametrize("app", APPS)
def test_counts_of_the_original(golden, app):
    width, small, kind = APPS[app]
    if "H/app" not in golden:
        pytest.skip("H/* is kept aside, for acceptance checks")
    i = golden["H/app"].tolist().index(app)
    torch.manual_seed(0)
    model = MobileNetGraph(MobileNetConfig(width=width, small=small, kind=kind, compat=True))
    kept = [int(layer.graph.mask().sum()) for layer in model.layers]
    assert kept == [layer.graph.edges for layer in model.layers] == golden["H/kept_edges_per_block"][i].tolist()
    assert profile(model) == (golden["H/init_params"][i], golden["H/init_macs"][i])
    assert profile(model, all_alive=True) == (golden["H/allalive_params"][i], golden["H/allalive_macs"][i])
    assert model.counts()["stored"] == golden["H/raw_parameter_count"][i]


def test_parameters_of_small_images(golden):
    model = MobileNetGraph(MobileNetConfig(num_classes=10, image_size=32, compat=True))
    assert model.counts()["stored"] == int(array(golden, "K/medium_dnw_raw_params"))
    plain = models.build("mobilenet_v1", num_classes=10, width=0.25, bias=True)
    assert sum(p.numel() for p in plain.parameters()) == int(array(golden, "K/mobilenetv1_x25_params"))
