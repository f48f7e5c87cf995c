"""Checkpoints of IteRand: scores at or above the kth smallest reveal the weights, whatever the modules are called."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import artifact, cli, models
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.importers.iterand import convert, read

# the name: ours, its options, images
NETWORKS = {
    "conv6": ("conv6", {"width": 0.25, "bias": True}, (3, 3, 32, 32)),
    "resnet18": ("cifar_resnet18", {"width": 0.25, "bias": True, "stem_scaled": False}, (3, 3, 32, 32)),
    "resnet50": ("resnet50", {"width": 0.25, "bias": True, "stem_scaled": False}, (2, 3, 64, 64)),
}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


def trained(name: str, density: float, *, batch_norm: str = "non_affine", twins: bool = False):
    """(our network with revealed weights, the original's state dict, images), of random numbers."""
    torch.manual_seed(1)
    ours, options, shape = NETWORKS[name]
    model = models.build(ours, num_classes=10, **options, **({} if name == "conv6" else {"batch_norm": batch_norm}))
    state, kinds = OrderedDict(), (nn.Conv2d, nn.Linear)
    for number, module in enumerate(model.modules()):
        where = f"module{number}.{'conv' if isinstance(module, nn.Conv2d) else 'norm'}"  # names are not compared
        if isinstance(module, kinds):
            weight, scores = module.weight.detach().clone(), torch.rand_like(module.weight)
            kth = 1 + round((1 - density) * (weight.numel() - 1))
            module.weight.data = weight * (scores >= scores.flatten().kthvalue(kth).values)
            kernel = (1, 1) if name == "conv6" and weight.dim() == 2 else ()
            state[f"{where}.weight"] = weight.reshape(*weight.shape, *kernel)
            if module.bias is not None:
                state[f"{where}.bias"] = module.bias.data.uniform_(-0.1, 0.1).clone()
            state[f"{where}.weight_score"] = scores.reshape(*weight.shape, *kernel)
            if twins:
                state[f"{where}.weight_twin"] = torch.zeros_like(weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1), module.running_var.uniform_(0.5, 1.5)
            state |= {f"{where}.{leaf}": value.clone() for leaf, value in module.state_dict().items()}
    return model.eval(), state, torch.randn(shape)


@pytest.mark.parametrize("batch_norm, key", [("non_affine", None), ("affine", "model"), ("non_affine", "state_dict")])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits(tmp_path, name, batch_norm, key):
    model, state, images = trained(name, 0.4, batch_norm=batch_norm, twins=key == "model")
    torch.save(state if key is None else {key: state, "epoch": 99}, tmp_path / "in.pth")
    found = convert(tmp_path / "in.pth", name, tmp_path / "out", density=0.4)
    with torch.no_grad():
        want = model(images)
        for one in (found, hn.load(tmp_path / "out")):
            torch.testing.assert_close(one(images), want, rtol=1e-5, atol=1e-5)
    given = [value for leaf, value in state.items() if leaf.endswith("_score")]
    layers = hn.hidden_layers(found).values()
    assert all(torch.equal(layer.scores.flatten(), one.flatten()) for layer, one in zip(layers, given, strict=True))
    header = artifact.read_header(tmp_path / "out")
    assert header["method"] == "iterand" and header["metadata"]["imported"]["density"] == 0.4
    assert header["metadata"]["data_options"] == {"normalization": "imagenet"}


def test_what_does_not_fit_is_named(tmp_path):
    _, state, _ = trained("resnet18", 0.4)
    path = tmp_path / "in.pth"
    torch.save(state, path)
    for arch, density, words in (
        (None, 0.4, "expected arch to be one of conv4, conv6, resnet18"),
        ("resnet18", None, r"expected a density in \(0, 1\] \(the fraction revealed"),
        ("resnet34", 0.4, "expected a checkpoint of resnet34 with 38 layers and 37 batch norms, got 22 and 21"),
        ("conv6", 0.4, "expected a checkpoint of conv6 with"),
    ):
        with pytest.raises(CheckpointError, match=words):
            read(path, arch, density=density)
    key = next(key for key in state if key.endswith("weight_score"))
    torch.save({**state, key: state[key][:2].clone()}, path)
    with pytest.raises(CheckpointError, match=r"resnet18 \(conv1\) with weight_score of shape \(64, 3, 3, 3\)"):
        read(path, "resnet18", density=0.4)
    torch.save(OrderedDict((k, v) for k, v in state.items() if not k.endswith("weight_score")), path)
    with pytest.raises(CheckpointError, match="a weight and a weight_score of each layer"):
        read(path, "resnet18", density=0.4)


def test_from_the_command_line(tmp_path, capsys):
    torch.save(trained("conv6", 0.5)[1], tmp_path / "in.pth")
    command = ["import", "iterand", str(tmp_path / "in.pth"), "--arch", "conv6", "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--density", "0.5"]) == 0
    assert "hidden weights" in capsys.readouterr().out
    assert cli.main(command) != 0 and "expected a density" in capsys.readouterr().err
