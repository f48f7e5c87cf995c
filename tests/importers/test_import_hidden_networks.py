"""Checkpoints of hidden-networks give the logits of the original's forward (see original.py)."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import hiddennet as hn
from hiddennet import artifact
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.importers.hidden_networks import convert, read
from tests.importers.original import effective, forward, images, save, state_of


def same(model, arch: str, state, weights: dict[str, Tensor]) -> None:
    """The imported model computes with exactly these weights, and gives the same logits."""
    for name, layer in hn.hidden_layers(model).items():
        assert torch.equal(layer.effective_weight(), weights[name].view(layer.weight_shape)), name
    x = images(arch)
    with torch.no_grad():
        expected = forward(arch, state, weights, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arch, width, constant, density, zipped",
    [
        ("FC", 1.0, True, 0.5, True),
        ("Conv2", 1.0, False, 0.3, False),
        ("Conv4", 1.0, True, 0.7, True),
        ("Conv4Wide", 0.25, False, 0.5, True),
        ("Conv6Wide", 0.5, True, 0.5, False),
        ("Conv8", 0.25, True, 0.5, True),
        ("cResNet18", 0.5, True, 0.5, False),
        ("ResNet50", 0.25, False, 0.3, True),
    ],
)
def test_subnets(tmp_path, arch, width, constant, density, zipped):
    state = state_of(arch, width=width, constant=constant)
    parallel = arch == "Conv2"
    path = save(tmp_path / "in.pth", arch, state, parallel=parallel, zipped=zipped)
    weights = effective(state, density)
    convert(path, arch, tmp_path / "out", density=density)
    model = hn.load(tmp_path / "out")
    same(model, arch, state, weights)
    header = artifact.read_header(tmp_path / "out")
    assert header["method"] == "edge_popup"
    assert header["metadata"]["imported"] == {
        "from": "hidden-networks",
        "file": "in.pth",
        "arch": arch,
        "density": density,
        "epoch": 100,
        "best_acc1": 68.6,
        "best_acc5": 88.0,
    }
    sizes = artifact.sizes(tmp_path / "out")
    if constant and sizes["hidden_weights"] > 2e6:
        assert sizes["bits_per_weight"] < 1.05 * (1 + density) + 0.1
    assert all(isinstance(layer.rule, hn.Fixed) for layer in hn.hidden_layers(model).values())


@pytest.mark.parametrize(
    "arch, init, loss",
    [
        ("Conv2", "signed_constant", 2.3036422),
        ("Conv4", "kaiming_normal", 2.3833992),
        ("cResNet18", "signed_constant", 2.0351703),
    ],
)
def test_loss_of_the_original_itself(tmp_path, arch, init, loss):
    """Its seed 0, drawn again in its order, gives the loss it gives: labels 0 to 3, density 0.5."""
    state = state_of(arch)
    torch.manual_seed(0)
    for key in [key for key in state if key.endswith(".scores")]:
        weight = state[key.replace("scores", "weight")]
        fan_in = math.prod(weight.shape[1:])
        drawn = torch.nn.init.kaiming_uniform_(torch.empty_like(weight), a=math.sqrt(5))
        torch.nn.init.kaiming_uniform_(state[key], a=math.sqrt(5))
        if init == "signed_constant":
            weight.copy_(drawn.sign() * math.sqrt(2) / math.sqrt(fan_in))
        else:
            weight.normal_(0, math.sqrt(2) / math.sqrt(fan_in))
    model = read(save(tmp_path / "in.pth", arch, state), arch, density=0.5)
    x = torch.sin(0.013 * torch.arange(12288, dtype=torch.float64)).float().view(4, 3, 32, 32)
    with torch.no_grad():
        found = F.cross_entropy(model.train()(x), torch.arange(4))
    assert found.item() == pytest.approx(loss, abs=1e-4)


def test_exact_zeros_among_constants(tmp_path):
    """sign(0) left a few dead weights in the original's constants; they stay, at a bit a weight."""
    state = state_of("Conv4Wide", width=0.25)
    state["convs.2.weight"].view(-1)[:5] = 0.0
    state["convs.2.scores"].view(-1)[:3] = 9.0
    path = save(tmp_path / "in.pth", "Conv4Wide", state)
    convert(path, "Conv4Wide", tmp_path / "out", density=0.5)
    same(hn.load(tmp_path / "out"), "Conv4Wide", state, effective(state, 0.5))
    assert artifact.read_header(tmp_path / "out")["layers"][1]["weights"]["as"] == "constant"


@pytest.mark.parametrize("arch, kind", [("ResNet50", "auto"), ("Conv4Wide", "fixed")])
def test_fixed_subnets(tmp_path, arch, kind):
    state = state_of(arch, width=0.25, constant=False, affine=True)
    for key in state:
        if key.endswith("scores"):
            state[key] = (state[key] > 0).float()
    path = save(tmp_path / "in.pth", arch, state, parallel=True)
    convert(path, arch, tmp_path / "out", kind=kind)
    model = hn.load(tmp_path / "out")
    same(model, arch, state, effective(state, None))
    assert artifact.read_header(tmp_path / "out")["method"] == "fine_tune"
    assert all(layer.stored.requires_grad for layer in hn.hidden_layers(model).values())


@pytest.mark.parametrize("evaluation", ["expectation", "draw"])
def test_samples(tmp_path, evaluation):
    state = state_of("Conv4Wide", width=0.25)
    for key in state:
        if key.endswith("scores"):
            state[key] = state[key] * 50
    path = save(tmp_path / "in.pth", "Conv4Wide", state)
    convert(path, "Conv4Wide", tmp_path / "out", kind="sample", evaluation=evaluation)
    model = hn.load(tmp_path / "out")
    assert artifact.read_header(tmp_path / "out")["method"] == "sampled"
    for name, layer in hn.hidden_layers(model).items():
        p = torch.sigmoid(state[f"{name}.scores"]).view(layer.weight_shape)
        weight = state[f"{name}.weight"].view(layer.weight_shape)
        found = layer.effective_weight()
        if evaluation == "expectation":
            torch.testing.assert_close(found, weight * p, rtol=1e-6, atol=0)
        else:
            assert bool(((found == 0) | (found == weight)).all())
            spread = 5 * float((p * (1 - p)).sum().sqrt())
            assert abs(float((found != 0).sum()) - float(p.sum())) < spread


def test_dense_networks(tmp_path):
    state = state_of("cResNet18", width=0.25, constant=False, affine=True)
    state = OrderedDict((k, v) for k, v in state.items() if not k.endswith("scores"))
    path = save(tmp_path / "in.pth", "cResNet18", state, parallel=True)
    convert(path, None, tmp_path / "out")
    model = hn.load(tmp_path / "out")
    assert not hn.hidden_layers(model)
    assert artifact.read_header(tmp_path / "out")["method"] == "dense"
    same(model, "cResNet18", state, effective(state, None))


def test_dense_first_and_last_layer(tmp_path):
    """The original's dense classifier has a bias, and ours gets one; the stem is a plain layer."""
    state = state_of("ResNet18", width=0.25)
    del state["conv1.scores"], state["fc.scores"]
    for key in state:
        if key.endswith("scores"):
            state[key] = (state[key] > 0).float()
    state["fc.weight"] = state["fc.weight"][:10].clone()
    state["fc.bias"] = torch.arange(10.0)
    path = save(tmp_path / "in.pth", "ResNet18", state)
    convert(path, "resnet18", tmp_path / "out")
    model = hn.load(tmp_path / "out")
    assert "conv1" not in hn.hidden_layers(model) and "fc" not in hn.hidden_layers(model)
    same(model, "ResNet18", state, effective(state, None))


def test_bare_state_dict_of_half_precision(tmp_path):
    state = OrderedDict((k, v.half()) for k, v in state_of("FC").items())
    torch.save(state, tmp_path / "in.pth")
    model = read(tmp_path / "in.pth", "FC", density=0.5)
    state = OrderedDict((k, v.float()) for k, v in state.items())
    same(model, "FC", state, effective(state, 0.5))


def without(key):
    return lambda state: state.pop(key)


def replace(key, shape):
    return lambda state: state.update({key: torch.zeros(shape)})


@pytest.mark.parametrize(
    "change, arguments, words",
    [
        (
            without("convs.2.weight"),
            {},
            r"with convs\.2\.weight of shape \(16, 16, 3, 3\), got none",
        ),
        (without("linear.4.weight"), {}, r"a weight linear\.4\.weight, got none"),
        (
            replace("convs.5.scores", (32, 16, 3, 1)),
            {},
            r"convs\.5\.scores of shape \(32, 16, 3, 3\), got shape \(32, 16, 3, 1\)",
        ),
        (
            replace("convs.9.weight", (3, 3)),
            {},
            r"with no convs\.9\.weight, got one of shape \(3, 3\)",
        ),
        (lambda s: None, {"arch": "Conv6Wide"}, "of Conv6Wide in .*, got one that says Conv4Wide"),
        (lambda s: None, {"arch": "VGG"}, "arch to be one of FC, Conv2, .* got 'VGG'"),
        (lambda s: None, {"density": None}, r"expected a density .*prune_rate\), got none"),
        (lambda s: None, {"density": 1.5}, r"density in \[0, 1\]"),
        (lambda s: None, {"kind": "fixed"}, r"scores of 0 and 1 in fixed layer convs\.0"),
        (lambda s: None, {"kind": "mask"}, "kind to be one of auto, subnet, fixed, sample"),
        (lambda s: s.update(note="text"), {}, "only tensors .* got str for note"),
        (lambda s: s.clear(), {}, "expected a dict with `state_dict`"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, arguments, words):
    state = state_of("Conv4Wide", width=0.25)
    change(state)
    path = save(tmp_path / "in.pth", "Conv4Wide", state)
    arguments = {"arch": "Conv4Wide", "density": 0.5, **arguments}
    with pytest.raises(ValueError, match=words) as caught:
        convert(path, out=tmp_path / "out", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_checkpoint_at_all(tmp_path):
    torch.save([1, 2], tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match=r"expected a dict with `state_dict` .* got list"):
        read(tmp_path / "in.pth", "FC")
