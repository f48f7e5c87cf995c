"""What stands between convolutions is fused in training, and only where nobody could tell but by the clock."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hiddennet as hn
from hiddennet import models
from hiddennet.models import fused

NETS = [  # and how often the kernels are called: batch norms with ReLU, poolings
    ("conv2", {}, 0, 1),
    ("conv4_bn", {}, 4, 2),
    ("cifar_resnet18", {"width": 0.125}, 17, 0),
    ("resnet20", {}, 19, 0),
    ("vgg16", {"width": 0.125}, 13, 5),
    ("wide_resnet28_2", {"width": 0.5}, 25, 0),
    ("lenet5", {}, 0, 2),
]


@pytest.fixture(autouse=True)
def _fusing(monkeypatch, tmp_path):
    monkeypatch.setenv("HIDDENNET_PLANS", "auto")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """The fused kernels in the order of their calls."""
    found: list[str] = []
    for name in ("norm_relu_op", "relu_pool_op"):
        op = getattr(fused, name)
        monkeypatch.setattr(fused, name, lambda *a, op=op, name=name, **k: (found.append(name), op(*a, **k))[1])
    return found


def made(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, num_classes=10, **options).to(memory_format=torch.channels_last)


def images(model: nn.Module, batch: int = 4) -> torch.Tensor:
    options = model.architecture
    size = (batch, options["in_channels"], options["image_size"], options["image_size"])
    return torch.randn(size).contiguous(memory_format=torch.channels_last)


def results(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of one training step: logits, gradients, what the norms keep."""
    z = x.clone().requires_grad_()
    y = model(z)
    y.square().sum().backward()
    grads = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    return {"y": y.detach(), "dx": z.grad, **grads, **dict(model.named_buffers())}


@pytest.mark.parametrize(("name", "options", "norms", "pools"), NETS, ids=[net[0] for net in NETS])
def test_a_step_is_the_same_fused_or_not(called, monkeypatch, name, options, norms, pools):
    model = made(name, **options)
    twin, x = copy.deepcopy(model), images(model)
    mine = results(model, x)
    assert (called.count("norm_relu_op"), called.count("relu_pool_op")) == (norms, pools)
    monkeypatch.setenv("HIDDENNET_PLANS", "fixed")
    theirs = results(twin, x)
    assert len(called) == norms + pools
    for key, want in theirs.items():
        if key == "dx" or key.startswith("gradient"):  # ReLUs near 0 go either way
            assert nn.functional.cosine_similarity(mine[key].flatten(), want.flatten(), 0) > 0.999, key
        else:
            torch.testing.assert_close(mine[key], want, rtol=1e-4, atol=1e-4, msg=key)


def test_evaluation_other_memory_and_other_dtypes_are_torchs(called):
    model = made("conv4_bn")
    x = images(model)
    made("conv4_bn").to(memory_format=torch.contiguous_format)(x.contiguous())
    with torch.no_grad():
        model(x)
        model.eval()(x)
    model.double().train()(x.double())
    assert called == []


def hooked(model: nn.Module) -> None:
    model.convs[1].register_forward_hook(lambda module, args, y: None)
    model.convs[2].register_forward_hook(lambda module, args, y: None)
    model.convs[4].register_forward_pre_hook(lambda module, args: None)


def replaced_forward(model: nn.Module) -> None:
    for module in model.convs:
        if isinstance(module, nn.ReLU):
            module.forward = lambda x: torch.relu(x)


def synchronised(model: nn.Module) -> None:
    for i, module in enumerate(model.convs):
        if isinstance(module, nn.BatchNorm2d):
            model.convs[i] = nn.Identity()


@pytest.mark.parametrize(("change", "norms"), [(hooked, 2), (replaced_forward, 0), (synchronised, 0)])
def test_modules_that_others_changed_are_called(called, change, norms):
    model = made("conv4_bn")
    change(model)
    seen: list[str] = []
    for module in model.modules():
        if module._forward_hooks:
            module.register_forward_hook(lambda module, args, y: seen.append(type(module).__name__))
    model(images(model))
    assert called.count("norm_relu_op") == norms
    assert seen == (["BatchNorm2d", "ReLU"] if change is hooked else [])


def test_a_global_hook_sees_every_module(called):
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, y: seen.append(type(module).__name__))
    try:
        model = made("conv4_bn")
        model(images(model))
    finally:
        handle.remove()
    assert called == [] and seen.count("BatchNorm2d") == 6 and seen.count("MaxPool2d") == 2


def test_norms_that_are_set_otherwise(called):
    model = made("resnet20")
    model.bn1.momentum = None  # a cumulative average: torch's
    model.layer1[0].bn1 = nn.BatchNorm2d(16, track_running_stats=False)
    model.layer1[0].bn2.eval()  # frozen, as in fine-tuning
    frozen = model.layer1[0].bn2.running_mean.clone()
    model(images(model)).sum().backward()
    assert called.count("norm_relu_op") == 17
    assert torch.equal(frozen, model.layer1[0].bn2.running_mean) and model.bn1.num_batches_tracked == 1
    assert model.layer2[0].bn1.num_batches_tracked == 1


def test_norms_whose_numbers_lie_apart_are_called(called):
    model = made("conv4_bn")
    first = model.convs[1]
    first.running_mean = torch.zeros(2 * first.num_features)[::2]
    first.weight = nn.Parameter(torch.ones(2 * first.num_features)[::2])
    model(images(model)).sum().backward()
    assert called.count("norm_relu_op") == 3 and first.weight.grad is not None


def test_checkpointing_tracing_and_export(called):
    model = made("cifar_resnet18", width=0.125)
    x = images(model)
    torch.manual_seed(1)
    plain = results(copy.deepcopy(model), x)
    again = copy.deepcopy(model)
    z = x.clone().requires_grad_()
    checkpoint(again, z, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(z.grad, plain["dx"])
    assert called
    called.clear()
    graph = torch.fx.symbolic_trace(model)
    exported = torch.export.export(model.eval(), (x,)).module()
    torch.testing.assert_close(graph.eval()(x), model(x))
    torch.testing.assert_close(exported(x), model(x))
    compiled = torch.compile(model.train(), backend="eager")
    compiled(x).sum().backward()
    assert called == []
    torch.func.functional_call(model, dict(model.named_parameters()), x)
    assert called


def test_hidden_and_pruned_networks(called, monkeypatch):
    """The same masks, and scores of second derivatives, fused or not."""
    found = []
    for mode in ("auto", "fixed"):
        monkeypatch.setenv("HIDDENNET_PLANS", mode)
        model = hn.hide(made("cifar_resnet18", width=0.125, batch_norm="non_affine"), rule=hn.TopK(0.3))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9)
        torch.manual_seed(2)
        x = images(model)
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
            optimizer.step()
        found.append(torch.cat([layer.scores.detach().flatten() for layer in hn.hidden_layers(model).values()]))
    assert len(called) == 2 * 17
    assert torch.nn.functional.cosine_similarity(*found, 0) > 0.999
