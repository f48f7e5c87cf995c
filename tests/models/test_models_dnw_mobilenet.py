"""The MobileNet-like wiring: what it computes, by an independent run of its graph, its edges, counts and refusals."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph, from_original
from hiddennet.nn import block_sums
from hiddennet.nn.block_sums import Blocks, BlockSums
from tests.importers.original_dnw import to_original

STAGES = ((3, 5, 1, 1), (5, 4, 2, 3), (4, 6, 2, 2))
FIXED = ("dnw", "random", "dnw_no_update", "complete", "fine_tune")


def tiny(**options):
    torch.manual_seed(3)
    options = {"num_classes": 4, "in_channels": 2, "image_size": 12, "stages": STAGES, "width": 0.7, **options}
    model = MobileNetGraph(MobileNetConfig(**options))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.startswith("bn"):
            torch.nn.init.uniform_(parameter, 0.3, 1.0)
    return model


def pictures(batch=3, size=12, dtype=torch.float32):
    drawn = torch.randn(batch, 2, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return drawn.to(dtype)


def by_nodes(model, images):
    """Node by node, edge by edge position of the dense effective weight: [batch, num_classes]."""

    def operated(received, norm, own, stride):
        shape = (1, -1, 1, 1)
        if norm.training:
            mean, var = received.mean((0, 2, 3)), received.var((0, 2, 3), unbiased=False)
        else:
            mean, var = norm.running_mean, norm.running_var
        scaled = (received - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
        ready = (scaled * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
        if own is None:
            return ready
        return torch.cat([F.conv2d(ready[:, c : c + 1], own[c : c + 1], None, stride, 1) for c in range(len(own))], 1)

    x = F.conv2d(images, model.conv1.weight, None, model.conv1.stride, 1)
    for stage, (inputs, outputs, stride, blocks) in zip(model.layers, model.config.stages, strict=True):
        weight = stage.graph.effective_weight()
        sent = list(operated(x, stage.norm[0], stage.downsample[0].weight, stride).unbind(1))
        for j in range(blocks):
            received = []
            for v in range(j * outputs, (j + 1) * outputs):
                received.append(sum(weight[v, u] * sent[u] for u in range(inputs + j * outputs)))
            x = torch.stack(received, 1)
            if j < blocks - 1:
                own = stage.conv.weight[j * outputs : (j + 1) * outputs]
                sent += operated(x, stage.norm[j + 1], own, 1).unbind(1)
    features = operated(x, model.bn, None, 1).mean((2, 3))
    if model.config.small:
        return features @ model.linear.graph.effective_weight().t()
    return features @ model.linear.weight.t() + model.linear.bias


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.parameters()))
    return dict(zip((name for name, _ in model.named_parameters()), found, strict=True))


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("kind", FIXED)
def test_every_edge_and_nothing_else(kind, compat, small):
    model = tiny(kind=kind, compat=compat, small=small).double().train()
    twin, images = copy.deepcopy(model), pictures(dtype=torch.float64)
    found, want = model(images), by_nodes(twin, images)
    torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-11)
    ours, theirs = gradients(model, found.square().sum()), gradients(twin, want.square().sum())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    for layer in model.layers:
        layer.graph.forget()
    torch.testing.assert_close(model.eval()(images), by_nodes(model, images), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["targeted_dropout", "regular_targeted_dropout"])
@pytest.mark.parametrize("compat", [False, True])
def test_targeted_dropout_draws_at_each_forward_in_training_alone(kind, compat):
    model = tiny(kind=kind, compat=compat, drop=0.5).train()
    first, second = model(pictures()), model(pictures())
    assert not torch.equal(first, second)
    second.sum().backward()
    assert all(layer.graph.weight.grad.any() for layer in model.layers)
    model.eval()
    assert torch.equal(model(pictures()), model(pictures()))
    for stage in model.double().layers:
        stage.graph.forget()
    images = pictures(dtype=torch.float64)
    torch.testing.assert_close(model(images), by_nodes(model, images), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["dnw", "random", "targeted_dropout"])
@pytest.mark.parametrize("compat", [False, True])
def test_lists_dense_products_and_both_orders_of_dimensions_agree(kind, compat, monkeypatch):
    def run(limit, *, batch_first=False):
        monkeypatch.setitem(block_sums.SPARSE_UP_TO, "cpu", limit)
        model = tiny(kind=kind, compat=compat)
        for layer in model.layers:
            if batch_first:
                layer._sent_by_nodes = layer._sent
        torch.manual_seed(11)  # of the dropout's draw
        found = model.train()(pictures())
        return found, gradients(model, found.square().mean())

    (want, slopes), *others = run(-1.0), run(1.0), run(-1.0, batch_first=True)
    for found, got in others:
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
        for name, slope in got.items():
            torch.testing.assert_close(slope, slopes[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("compat", [False, True])
def test_lists_are_used_and_made_once_a_step(compat, monkeypatch):
    monkeypatch.setitem(block_sums.SPARSE_UP_TO, "cpu", 1.0)
    made = []
    before = block_sums.EdgeLists.__init__
    monkeypatch.setattr(block_sums.EdgeLists, "__init__", lambda self, *a: (made.append(1), before(self, *a))[1])
    model = tiny(compat=compat).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=True)
    for _ in range(3):
        for _ in range(2):  # two micro-batches
            model(pictures()).square().mean().backward()
        optimizer.step()
    assert len(made) == 3 * len(STAGES)
    model.eval()
    with torch.no_grad():
        first, again = model(pictures()), model(pictures())
    assert torch.equal(first, again)
    assert len(made) == 4 * len(STAGES)


@pytest.mark.parametrize("kind", FIXED)
def test_a_step_changes_what_evaluation_runs(kind):
    model = tiny(kind=kind).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, weight_decay=1e-2, fused=True)
    usable = [layer.graph.usable for layer in model.layers]
    for _ in range(3):
        before = [layer.graph.effective_weight().detach().clone() for layer in model.layers]
        optimizer.zero_grad()
        model(pictures()).square().mean().backward()
        optimizer.step()
        after = [layer.graph.effective_weight().detach() for layer in model.layers]
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for layer, edges in zip(model.layers, usable, strict=True):
        assert not (layer.graph.mask() & ~edges).any()
        assert not layer.graph.weight[~edges].any()
        assert int(layer.graph.mask().sum()) == layer.graph.edges


def test_gradients_of_two_passes_and_of_one_run_twice():
    model = tiny().train()
    first, second = model(pictures(2)), model(pictures(3).flip(0))
    total = gradients(model, first.square().sum() + second.square().sum())
    again = [gradients(model, model(x).square().sum()) for x in (pictures(2), pictures(3).flip(0))]
    for name, got in total.items():
        torch.testing.assert_close(got, again[0][name] + again[1][name], rtol=1e-4, atol=1e-4)
    loss = model(pictures()).square().sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(model.parameters(), once, strict=True))


def test_what_does_not_learn_gets_no_gradient():
    model = tiny().train()
    for layer in model.layers:
        layer.graph.weight.requires_grad_(False)
    images = pictures().requires_grad_()
    model(images).square().sum().backward()
    assert images.grad.any()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.endswith("graph.weight"), name


def test_a_weight_changed_before_backward_is_noticed():
    model = tiny(kind="complete", compat=True).train()
    loss = model(pictures()).sum()
    with torch.no_grad():
        model.layers[1].graph.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_bfloat16_on_a_cpu():
    model = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(pictures())
    found.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(found.float(), tiny().train()(pictures()), rtol=0.1, atol=0.1)


def test_blocks_out_of_order_are_refused():
    blocks = Blocks(((0, 3, 0, 2), (3, 6, 0, 5)))
    weight = torch.ones(6, 5, requires_grad=True)
    sums = BlockSums(weight, blocks, None, torch.ones(2, 1, 2, 2))
    with pytest.raises(ValueError, match=r"expected block 0 of 2 nodes with 4 values each, got \(3, 1, 2, 2\)"):
        sums.sum(torch.ones(3, 1, 2, 2))
    sums = BlockSums(weight, blocks, None, torch.ones(2, 1, 2, 2))
    first = sums.sum(torch.ones(2, 1, 2, 2))
    with pytest.raises(RuntimeError, match="expected the last sum to be differentiated"):
        first.sum().backward()
    sums.sum(torch.ones(3, 1, 2, 2))
    with pytest.raises(ValueError, match="expected block 2 of 0 nodes"):
        sums.sum(torch.ones(3, 1, 2, 2))


@pytest.mark.parametrize(("size", "side"), [(64, 64), (65, 33), (32, 32), (224, 112)])
def test_large_images_begin_with_stride_2(size, side):
    model = tiny(image_size=size)
    assert model.conv1(torch.zeros(1, 2, size, size)).shape[-1] == side


def test_a_batch_of_one_and_the_small_classifier():
    model = tiny(small=True).eval()
    assert sorted(name for name in model.state_dict() if name.startswith("linear")) == ["linear.graph.weight"]
    assert model(pictures(1)).shape == (1, 4)
    torch.testing.assert_close(model(pictures(3))[:1], model(pictures(3)[:1]))


def test_state_dicts_copies_and_pickles():
    model = tiny(kind="random").eval()
    want = model(pictures())
    again = tiny(kind="random", seed=5).eval()
    again.load_state_dict(model.state_dict())
    for other in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(pictures()), want)
    names = [name for name in model.state_dict() if name.startswith("layers.1.") and "norm" not in name]
    assert names == [f"layers.1.{n}" for n in ("downsample.0.weight", "conv.weight", "graph.weight", "graph.chosen")]


@pytest.mark.parametrize("kind", ["dnw", "random", "fine_tune"])
def test_the_originals_state_dicts(kind):
    model = tiny(kind=kind, small=True).eval()
    want = model(pictures())
    theirs = {f"module.{name}": value for name, value in to_original(model).items()}
    assert theirs["module.layers.1.graph.weight"].shape == (12, 13, 1, 1)
    assert ("module.linear.graph.mask" in theirs) == (kind != "dnw")
    other = tiny(kind=kind, small=True, seed=9).eval()
    torch.nn.init.normal_(other.conv1.weight)
    other.load_state_dict(from_original(other, theirs))
    assert torch.equal(other(pictures()), want)
    with pytest.raises(
        ValueError, match="MobileNetGraph: expected conv1.weight, .*got 1 missing: layers.0.norm.0.bias"
    ):
        from_original(other, {name: value for name, value in theirs.items() if "layers.0.norm.0.bias" not in name})


def test_wrong_images_are_refused():
    for images in (torch.zeros(1, 3, 12, 12), torch.zeros(2, 12, 12)):
        with pytest.raises(ValueError, match=r"MobileNetGraph: expected images \[batch, 2, H, W\]"):
            tiny()(images)
