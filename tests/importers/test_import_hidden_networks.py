"""Checkpoints of hidden-networks give the logits of a forward written here, apart from our layers.

The checkpoints are made here too, in the original's format: its names, its 1x1 convolutions for
fully connected layers, its numpy learning rates.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import hiddennet as hn
from hiddennet import artifact
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.importers.hidden_networks import convert, read

SMALL = {
    "FC": ((), 784),
    "Conv2": ((64, 64), 16384),
    "Conv4": ((64, 64, 128, 128), 8192),
    "Conv6": ((64, 64, 128, 128, 256, 256), 4096),
    "Conv8": ((64, 64, 128, 128, 256, 256, 512, 512), 2048),
}
CONV_INDEX = (0, 2, 5, 7, 10, 12, 15, 17)  # each pair of convolutions ends in a pooling
RESNETS = {  # blocks, bottleneck, CIFAR's stem
    "cResNet18": ((2, 2, 2, 2), False, True),
    "ResNet18": ((2, 2, 2, 2), False, False),
    "ResNet50": ((3, 4, 6, 3), True, False),
}


def small_shapes(arch: str, width: float) -> OrderedDict:
    plan, features = SMALL[arch.removesuffix("Wide")]
    shapes, channels = OrderedDict(), 3
    for index, wide in zip(CONV_INDEX, plan, strict=False):
        shapes[f"convs.{index}"] = (int(wide * width), channels, 3, 3)
        channels = int(wide * width)
    hidden = (300, 100) if arch == "FC" else (int(256 * width), int(256 * width))
    sizes = [int(features * width) if plan else features, *hidden, 10]
    for i in range(3):
        shapes[f"linear.{2 * i}"] = (sizes[i + 1], sizes[i], 1, 1)
    return shapes


def resnet_shapes(arch: str) -> OrderedDict:
    """Shapes of convolutions; batch norms, as one number, follow theirs."""
    blocks, bottleneck, cifar = RESNETS[arch]
    size = 3 if cifar else 7
    shapes = OrderedDict(conv1=(64, 3, size, size), bn1=64)
    channels = 64
    for stage, count in enumerate(blocks, start=1):
        planes = 32 * 2**stage
        for i in range(count):
            here = f"layer{stage}.{i}."
            out = planes * 4 if bottleneck else planes
            if bottleneck:
                layers = [(planes, channels, 1), (planes, planes, 3), (out, planes, 1)]
            else:
                layers = [(planes, channels, 3), (planes, planes, 3)]
            for j, (o, c, kernel) in enumerate(layers, start=1):
                shapes[f"{here}conv{j}"] = (o, c, kernel, kernel)
                shapes[f"{here}bn{j}"] = o
            if (stage > 1 and i == 0) or channels != out:
                skip = here + ("shortcut" if cifar else "downsample")
                shapes[f"{skip}.0"] = (out, channels, 1, 1)
                shapes[f"{skip}.1"] = out
            channels = out
    shapes["fc"] = (10 if cifar else 1000, channels, 1, 1)
    return shapes


def state_of(arch: str, *, width: float = 1.0, constant: bool = True, affine: bool = False):
    """A state dict as the original saves it: weight, scores and running statistics."""
    shapes = resnet_shapes(arch) if arch in RESNETS else small_shapes(arch, width)
    generator = torch.Generator().manual_seed(21)

    def draw(shape, bound):
        return (torch.rand(shape, generator=generator) * 2 - 1) * bound

    state = OrderedDict()
    for name, shape in shapes.items():
        if isinstance(shape, int):
            if affine:
                state[f"{name}.weight"] = 1 + draw((shape,), 0.5)
                state[f"{name}.bias"] = draw((shape,), 0.5)
            state[f"{name}.running_mean"] = draw((shape,), 0.1)
            state[f"{name}.running_var"] = 1 + draw((shape,), 0.5)
            state[f"{name}.num_batches_tracked"] = torch.tensor(391)
            continue
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        weight = draw(shape, bound)
        if constant:
            weight = weight.sign() * math.sqrt(2) * bound
        state[f"{name}.weight"] = weight
        state[f"{name}.scores"] = draw(shape, bound)
    return state


def topk(scores: Tensor, k: float) -> Tensor:
    """The original's mask: a stable ascending sort, the first int((1 - k) n) pruned."""
    order = scores.abs().flatten().argsort(stable=True)
    mask = torch.ones(scores.numel())
    mask[order[: int((1 - k) * scores.numel())]] = 0
    return mask.view_as(scores)


def effective(state, k: float | None) -> dict[str, Tensor]:
    """Weights as the original computes with them, by layer."""
    result = {}
    for key, weight in state.items():
        name, _, leaf = key.rpartition(".")
        if leaf != "weight" or weight.dim() < 4:
            continue
        scores = state.get(f"{name}.scores")
        mask = 1 if scores is None else scores if k is None else topk(scores, k)
        result[name] = weight * mask
    return result


def forward(arch: str, state, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The original network's evaluation, functionally."""
    if arch not in RESNETS:
        return small_forward(weights, x)
    blocks, bottleneck, cifar = RESNETS[arch]

    def norm(name, y):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(y, mean, var, state.get(f"{name}.weight"), state.get(f"{name}.bias"))

    x = F.conv2d(x, weights["conv1"], stride=1 if cifar else 2, padding=1 if cifar else 3)
    x = F.relu(norm("bn1", x))
    x = x if cifar else F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            here, stride, y = f"layer{stage}.{i}.", 2 if stage > 1 and i == 0 else 1, x
            depth = 3 if bottleneck else 2
            for j in range(1, depth + 1):
                weight = weights[f"{here}conv{j}"]
                step = stride if j == (2 if bottleneck else 1) else 1
                y = F.conv2d(y, weight, stride=step, padding=weight.shape[-1] // 2)
                y = norm(f"{here}bn{j}", y)
                y = F.relu(y) if j < depth else y
            skip = here + ("shortcut" if cifar else "downsample")
            if f"{skip}.0" in weights:
                x = norm(f"{skip}.1", F.conv2d(x, weights[f"{skip}.0"], stride=stride))
            x = F.relu(y + x)
    x = F.conv2d(x.mean((2, 3), keepdim=True), weights["fc"], state.get("fc.bias"))
    return x.flatten(1)


def small_forward(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    for index in CONV_INDEX:
        if f"convs.{index}" in weights:
            x = F.relu(F.conv2d(x, weights[f"convs.{index}"], padding=1))
            x = F.max_pool2d(x, 2) if index % 5 == 2 else x
    x = x.flatten(1)[:, :, None, None]
    for i in (0, 2, 4):
        x = F.conv2d(x, weights[f"linear.{i}"])
        x = F.relu(x) if i < 4 else x
    return x[:, :, 0, 0]


def images(arch: str) -> Tensor:
    shape = (2, 1, 28, 28) if arch == "FC" else (2, 3, 64 if arch == "ResNet50" else 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def save(path, arch, state, *, parallel=False, zipped=True):
    """A whole checkpoint, with what the optimiser and the schedule leave in it."""
    if parallel:
        state = OrderedDict((f"module.{key}", value) for key, value in state.items())
    momentum = {"momentum_buffer": torch.ones(2)}
    group = {"lr": np.float64(0.0123), "momentum": 0.9, "params": [0], "initial_lr": 0.1}
    checkpoint = {
        "epoch": 100,
        "arch": arch,
        "state_dict": state,
        "best_acc1": 68.6,
        "best_acc5": torch.tensor(88.0),
        "best_train_acc1": np.float32(70.0),
        "optimizer": {"state": {0: momentum}, "param_groups": [group]},
        "curr_acc1": 68.5,
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    return path


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
        ("Conv8", 1.0, True, 0.5, True),
        ("cResNet18", 1.0, True, 0.5, False),
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
    assert all(layer.weight.requires_grad for layer in hn.hidden_layers(model).values())


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
    state = state_of("cResNet18", constant=False, affine=True)
    state = OrderedDict((k, v) for k, v in state.items() if not k.endswith("scores"))
    path = save(tmp_path / "in.pth", "cResNet18", state, parallel=True)
    convert(path, None, tmp_path / "out")
    model = hn.load(tmp_path / "out")
    assert not hn.hidden_layers(model)
    assert artifact.read_header(tmp_path / "out")["method"] == "dense"
    same(model, "cResNet18", state, effective(state, None))


def test_dense_first_and_last_layer(tmp_path):
    """The original's dense classifier has a bias, and ours gets one; the stem is a plain layer."""
    state = state_of("ResNet18")
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
