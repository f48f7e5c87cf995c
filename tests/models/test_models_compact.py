"""Compact networks: the same logits, nothing left that is dead, for evaluation alone."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch

import hiddennet as hn
from hiddennet import compaction
from hiddennet.compaction import mobilenet as compact_module
from hiddennet.models.dnw import (
    ContinuousConfig,
    ContinuousGraph,
    DiscreteConfig,
    DiscreteGraph,
    MobileNetConfig,
    MobileNetGraph,
    StaticConfig,
    StaticGraph,
)
from hiddennet.nn.wiring import Wiring

pytestmark = pytest.mark.isa

TINY = {"stages": ((6, 9, 1, 1), (9, 8, 2, 2), (8, 12, 2, 4)), "num_classes": 5, "image_size": 16}


def liven(model, *, dead: bool = False):
    """Norms that do something; dead: some nodes that ignore what they hear, or send zeros, and destinations and sources
    without edges."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        leaf = name.rsplit(".", 1)[-1]
        if "norm" in name or name.startswith("bn") or "downsample" in name:
            if leaf in ("weight", "running_var") and tensor.dim() == 1:
                tensor.data.uniform_(0.5, 1.5)
            elif leaf in ("bias", "running_mean"):
                tensor.data.normal_(0, 0.5)
    if dead:
        for name, tensor in model.named_parameters():
            drop = torch.rand(len(tensor)) < 0.2
            if ("norm" in name and name.endswith("weight")) or name in ("bn.weight", "conv.weight"):
                tensor.data[drop] = 0
        for graph in model.modules():
            if isinstance(graph, Wiring):
                graph.weight.data[torch.rand(graph.weight.shape[0]) < 0.3] = 0
                graph.weight.data[:, torch.rand(graph.weight.shape[1]) < 0.2] = 0
                graph.forget()
    return model.eval()


def images(batch=3, side=16, dtype=torch.float64):
    return torch.randn(batch, 3, side, side, dtype=dtype)


def same_logits(model, compact, x, tolerance):
    with torch.no_grad():
        want = model(x)
    assert bool(want.isfinite().all())
    torch.testing.assert_close(compact(x), want, rtol=0, atol=tolerance * max(1.0, float(want.abs().max())))


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
@pytest.mark.parametrize("small", [False, True], ids=["dense", "small"])
@pytest.mark.parametrize("width", [0.02, 0.1, 0.2, 0.4, 0.7, 1.0])
def test_mobilenet_has_the_same_logits(width, small, dead):
    config = MobileNetConfig(width=width, small=small, compat=width == 0.4, **TINY)
    model = liven(MobileNetGraph(config), dead=dead)
    for batch in (1, 3):
        same_logits(model, hn.compact(model), images(batch, dtype=torch.float32), 2e-5)
    model = model.double()
    for batch in (1, 3):
        same_logits(model, hn.compact(model), images(batch), 1e-12)


@pytest.mark.parametrize("kind", ["random", "complete", "fine_tune", "targeted_dropout", "regular_targeted_dropout"])
def test_mobilenet_of_every_kind(kind):
    model = liven(MobileNetGraph(MobileNetConfig(width=0.3, kind=kind, **TINY))).train()
    compact = hn.compact(model)
    assert model.training and all(graph.training for graph in model.modules())
    same_logits(model.eval(), compact, images(dtype=torch.float32), 2e-5)


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
@pytest.mark.parametrize("lateral", [False, True], ids=["", "lateral"])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.03, 0.1, 0.35])
def test_static_has_the_same_logits(density, lateral, dead):
    config = StaticConfig(blocks=(6, 9, 12, 8), outputs=5, density=density, num_classes=3, lateral=lateral)
    model = liven(StaticGraph(config), dead=dead)
    same_logits(model, hn.compact(model), images(dtype=torch.float32, side=24), 2e-5)
    model = model.double()
    same_logits(model, hn.compact(model), images(side=24), 1e-11)


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
@pytest.mark.parametrize("shape", [(20, 4, 5, 1), (20, 4, 5, 2), (20, 4, 5, 5), (12, 9, 8, 3)])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.5, 1.0])
def test_discrete_has_the_same_logits(density, shape, dead):
    nodes, inputs, outputs, steps = shape
    options = {"nodes": nodes, "inputs": inputs, "outputs": outputs, "steps": steps, "num_classes": 3}
    model = liven(DiscreteGraph(DiscreteConfig(density=density, **options)), dead=dead).double()
    same_logits(model, hn.compact(model), images(side=16), 1e-9)


def test_no_path_leaves_the_constant():
    model = liven(MobileNetGraph(MobileNetConfig(width=0.0, **TINY)))
    compact = hn.compact(model)
    assert compact.edges == 0 and compact.features == 0
    assert sum(p.numel() for p in compact.parameters()) == 5
    same_logits(model, compact, images(dtype=torch.float32), 1e-6)


def test_dead_final_nodes_are_folded():
    """A final node that hears nothing sends a constant to the classifier; one that hears is kept."""
    model = liven(MobileNetGraph(MobileNetConfig(width=0.5, **TINY))).double()
    graph, bn, linear = model.layers[-1].graph, model.bn, model.linear
    graph.weight.data[-12:-8] = 0
    graph.weight.data[-8:] += torch.where(graph.weight.data[-8:] != 0, 5.0, 0.0)
    graph.forget()
    bn.bias.data[-12:] = torch.linspace(-1, 2, 12)
    compact = hn.compact(model)
    assert compact.features == 8
    constant = torch.relu(bn.bias - bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt())[:4]
    torch.testing.assert_close(compact.classifier.bias.data, (linear.bias + linear.weight[:, :4] @ constant).detach())
    same_logits(model, compact, images(), 1e-12)


def test_nodes_that_hear_nothing_and_send_zeros_are_removed_with_those_that_hear_only_them():
    """A chain in the last stage: block 1's node 0 hears nothing, block 2's node 0 hears it alone, the output both."""
    stages = ((2, 2, 1, 1), (2, 2, 1, 3))
    model = MobileNetGraph(MobileNetConfig(kind="complete", stages=stages, num_classes=2, image_size=8)).double()
    liven(model)
    last = model.layers[-1]
    w = last.graph.weight.data
    w[0], w[2] = 0, 0  # what node 0 of blocks 1 and 2 hears
    w[2, 2] = 1.0  # columns: two inputs, block 1's two nodes, block 2's two
    for j in (1, 2):
        last.norm[j].running_mean.zero_()
        last.norm[j].bias.data[0] = -0.5
    last.graph.forget()
    compact = hn.compact(model)
    assert compact.spec["stages"][-1]["blocks"] == [1, 1, 2]
    same_logits(model, compact, images(side=8), 1e-12)
    last.norm[1].bias.data[0] = 0.5  # it sends a constant
    kept = hn.compact(model)
    assert kept.spec["stages"][-1]["blocks"] == [2, 2, 2]
    same_logits(model, kept, images(side=8), 1e-12)


@pytest.mark.parametrize("small", [False, True], ids=["dense", "small"])
def test_nothing_that_is_left_is_dead(small):
    """Each edge and each node's filter changes the logits, where no ReLU cuts everything off."""
    model = MobileNetGraph(MobileNetConfig(width=0.25, small=small, **TINY)).double().eval()
    for name, tensor in model.named_parameters():
        if (tensor.dim() == 1 and name.endswith("bias") and "norm" in name) or name == "bn.bias":
            tensor.data.fill_(3.0)
    compact = hn.compact(model)
    x = images(2)
    want = compact(x)
    names = [n for n, _ in compact.named_parameters() if n.endswith(("values", "taps", "conv1.weight"))]
    assert len(names) > 5
    for name in names:
        tensor = compact.get_parameter(name)
        for i in range(len(tensor)):
            old = tensor.data[i].clone()
            tensor.data[i] = old * 2 + 0.5
            assert not torch.equal(compact(x), want), f"{name}[{i}]"
            tensor.data[i] = old


def test_only_the_living_is_held():
    model = liven(MobileNetGraph(MobileNetConfig(width=0.1, small=True, **TINY)))
    compact = hn.compact(model)
    assert not any(isinstance(module, (Wiring, torch.nn.BatchNorm2d)) for module in compact.modules())
    assert not any(p.requires_grad for p in compact.parameters())
    stages, spec = compact.stages, compact.spec["stages"]
    nodes = sum(s["inputs"] + sum(s["blocks"][:-1]) for s in spec)
    assert nodes < sum(layer.shape.sources for layer in model.layers)
    edges = sum(p.n_edges for stage in stages for p in stage.products) + compact.classifier.product.n_edges
    assert compact.edges == edges
    want = 27 * spec[0]["inputs"] + 11 * nodes + edges + 2 * compact.features + 5
    dense = [p for p in compact.products_by_name().values() if p.is_dense]
    want += sum(p.weight.numel() - p.n_edges for p in dense)
    assert sum(p.numel() for p in compact.parameters()) == want
    old = [weakref.ref(p) for p in model.parameters()]
    del model
    gc.collect()
    assert all(ref() is None for ref in old)


def test_the_workspace_is_used_again():
    model = liven(MobileNetGraph(MobileNetConfig(width=0.4, **TINY)))
    compact = hn.compact(model)
    with torch.inference_mode():
        first = compact(images(1, dtype=torch.float32))
    assert bool(first.isfinite().all())
    memory = compact._space[1].memory
    x = images(4, dtype=torch.float32)
    same_logits(model, compact, x, 2e-5)
    assert compact._space[1].memory is memory  # image by image
    same_logits(model, compact, images(2, side=19, dtype=torch.float32), 2e-5)
    for again in (copy.deepcopy(compact), pickle.loads(pickle.dumps(compact))):
        assert again._space is None
        torch.testing.assert_close(again(x), compact(x), rtol=0, atol=0)
    assert compact(x[:0]).shape == (0, 5)
    # torch's classifier of one image may sum in another order than that of four
    torch.testing.assert_close(compact(x[:1])[0], compact(x)[0], rtol=0, atol=1e-6)


def test_all_images_at_once_as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(compact_module, "group_of", len)
    for side in (16, 21):
        model = liven(MobileNetGraph(MobileNetConfig(width=0.4, **TINY)))
        same_logits(model, hn.compact(model), images(3, side=side, dtype=torch.float32), 2e-5)
    model = liven(MobileNetGraph(MobileNetConfig(width=1.0, **TINY)))  # dense products
    assert any(p.is_dense for s in hn.compact(model).stages for p in s.products)
    same_logits(model, hn.compact(model), images(3, dtype=torch.float32), 2e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("width", [0.2, 1.0])
def test_on_a_gpu(width):
    model = liven(MobileNetGraph(MobileNetConfig(width=width, **TINY))).cuda()
    compact, x = hn.compact(model), images(3, dtype=torch.float32)
    assert all(tensor.is_cuda for tensor in compact.state_dict().values())
    same_logits(model.cpu(), compact.cpu(), x, 2e-5)
    torch.testing.assert_close(compact.cuda()(x.cuda()).cpu(), compact.cpu()(x), rtol=0, atol=2e-5)


def test_it_evaluates_only():
    compact = hn.compact(liven(MobileNetGraph(MobileNetConfig(width=0.4, **TINY))))
    assert not compact.training and compact.eval() is compact
    with pytest.raises(RuntimeError, match=r"expected to be evaluated only, got train\(True\)"):
        compact.train()
    with pytest.raises(RuntimeError, match="got images that ask for gradients"):
        compact(images(1, dtype=torch.float32).requires_grad_())
    assert not compact(images(1, dtype=torch.float32)).requires_grad
    with pytest.raises(ValueError, match=r"expected images \[batch, 3, H, W\], got \(1, 4, 16, 16\)"):
        compact(torch.zeros(1, 4, 16, 16))
    static = hn.compact(StaticGraph(StaticConfig(blocks=(4, 6, 6), outputs=3)))
    with pytest.raises(ValueError, match="of at least 16 x 16 pixels"):
        static(torch.zeros(1, 3, 15, 16))


def test_other_networks_are_refused():
    pytest.importorskip("torchdiffeq")
    continuous = ContinuousGraph(ContinuousConfig(nodes=12, inputs=3, outputs=3))
    for model, name in ((continuous, "ContinuousGraph"), (torch.nn.Linear(2, 2), "Linear")):
        with pytest.raises(TypeError, match=f"expected one of MobileNetGraph, .*, got {name}"):
            hn.compact(model)
    compact = hn.compact(StaticGraph(StaticConfig(blocks=(4, 6, 6), outputs=3)))
    with pytest.raises(TypeError, match="got CompactStatic"):
        compaction.compact(compact)
