"""Checkpoints and evaluation of the original hidden-networks, written here apart from our layers.

In its format: its names of modules, its 1x1 convolutions for fully connected layers, its numpy
learning rates.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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


def resnet_shapes(arch: str, width: float) -> OrderedDict:
    """Shapes of convolutions; batch norms, as one number, follow theirs."""
    blocks, bottleneck, cifar = RESNETS[arch]
    size, channels = 3 if cifar else 7, int(64 * width)
    shapes = OrderedDict(conv1=(channels, 3, size, size), bn1=channels)
    for stage, count in enumerate(blocks, start=1):
        planes = int(32 * 2**stage * width)
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
    shapes = (resnet_shapes if arch in RESNETS else small_shapes)(arch, width)
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
