"""The pruners against what the original system computes: scores and masks of every iteration, masks of ResNet-20."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddennet.pruning import densities, prune, steps
from tests.golden import Golden
from tests.pruning.net import golden_net

pytestmark = [pytest.mark.isa, pytest.mark.usefixtures("one_thread")]

METHODS = {"Mag": "magnitude", "SNIP": "snip", "GraSP": "grasp", "SynFlow": "synflow"}
KEYS = {"c1": "c1.weight", "c2": "c2.weight", "fc": "fc.weight", "fcb": "fc.bias"}
RUNS = {
    **{f"{m}_it{n}_g0.3": {"iterations": n} for m in ("Mag", "SNIP", "GraSP") for n in (1, 3)},
    "SynFlow_it1_g0.3": {},
    "SynFlow_it5_g0.3": {"iterations": 5},
    "SynFlow_it5_g0.05": {"iterations": 5, "density": 0.05},
    "SynFlow_it5_linear_g0.3": {"iterations": 5, "schedule": "linear"},
    "SynFlow_it5_local_g0.3": {"iterations": 5, "scope": "layer"},
    "SynFlow_it5_local_g0.3_cls0.8": {
        "iterations": 5,
        "scope": "layer",
        "classifier_density": 0.8,
        "num_classes": 5,
    },
    "Mag_local": {"scope": "layer"},
    "SNIP_it1_bs4": {},
    "GraSP_it1_bs4": {},
    "SynFlow_it5_defaultbn": {"iterations": 5},
    "SynFlow_it5_bias": {"iterations": 5, "biases": True},
    "Mag_ratio1": {"density": 1.0},
}


class Tensors(dict):
    """The original's arrays; a test that asks for one that is not there is skipped."""

    def __missing__(self, name: str) -> Tensor:
        pytest.skip(f"the original system's {name} is not in the file of golden values")


@pytest.fixture
def values() -> Tensors:
    file = Golden("peekaboo")
    return Tensors((name, torch.from_numpy(file[name])) for name in file if name.startswith(("prune/", "rn20/")))


def _batches(values: Tensors, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(values["prune/x"].split(size), values["prune/t"].split(size), strict=True))


def _unbatched(values: Tensors, name: str) -> list[tuple[Tensor, Tensor]]:
    return _batches(values, 4 if name.endswith("bs4") else 8)


@pytest.mark.parametrize("name", RUNS)
def test_every_iteration_is_the_originals(values, name):
    aims = values[f"prune/{name}/keep_ratio"].tolist()
    how = {"density": 0.3, **RUNS[name]}
    density = how.pop("density")
    assert aims == densities(density, how.get("iterations", 1), how.get("schedule", "exponential"))
    net = golden_net(values, default_norms=name.endswith("defaultbn"))
    method = METHODS[name.split("_")[0]]
    found = list(steps(net, method, density, batches=_unbatched(values, name), **how))
    assert len(found) == len(aims)
    parts = [part for part in KEYS if part != "fcb" or how.get("biases")]
    for step in found:
        assert list(step.masks) == [KEYS[part] for part in parts]
        for part in parts:
            score = values[f"prune/{name}/score_{part}"][step.iteration]
            mask = values[f"prune/{name}/mask_{part}"][step.iteration].bool()
            got = step.scores[KEYS[part]].double()
            torch.testing.assert_close(got, score.double(), rtol=1e-10, atol=1e-18, msg=f"{part}, {step.iteration}")
            assert torch.equal(step.masks[KEYS[part]], mask), (part, step.iteration)
    last = prune(net, method, density, batches=_unbatched(values, name), **how)
    assert all(torch.equal(last[key], found[-1].masks[key]) for key in last)


class Block(nn.Module):
    """Two 3x3 convolutions beside a skip path, a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


def _resnet20() -> nn.Module:
    """ResNet-20 with projections, as the original has it, with the recorded draw."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for stage, out in enumerate((16, 32, 64)):
        for i in range(3):
            layers.append(Block(channels, out, 2 if stage and i == 0 else 1))
            channels = out
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    draw = np.random.RandomState(11)
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            shape = tuple(module.weight.shape)
            scale = 0.1 if len(shape) == 2 else math.sqrt(2 / math.prod(shape[1:]))
            drawn = (draw.standard_normal(shape) * scale).astype(np.float32)
            module.weight.copy_(torch.from_numpy(drawn))
            if module.bias is not None:
                module.bias.zero_()
    return model


THIN_RUNS = {
    "SynFlow_it100_0.3": ("synflow", 0.3, 100),
    "SynFlow_it100_0.01": ("synflow", 0.01, 100),
    "SynFlow_it1_0.3": ("synflow", 0.3, 1),
    "SNIP_it1_0.3": ("snip", 0.3, 1),
    "GraSP_it1_0.3": ("grasp", 0.3, 1),
    "Mag_it1_0.3": ("magnitude", 0.3, 1),
}


@pytest.mark.parametrize("name", THIN_RUNS)
def test_resnet20_masks_are_the_originals(values, name):
    method, density, iterations = THIN_RUNS[name]
    packed, kept = values[f"rn20/{name}/packed"], values[f"rn20/{name}/kept"]
    draw = np.random.RandomState(77)
    x = torch.from_numpy(draw.standard_normal((16, 3, 32, 32)).astype(np.float32))
    y = torch.from_numpy(draw.randint(0, 10, 16)).long()
    masks = prune(_resnet20(), method, density, iterations=iterations, batches=[(x, y)], exclude="14")
    assert sum(mask.numel() for mask in masks.values()) == 270256
    assert [int(mask.sum()) for mask in masks.values()] == kept.tolist()
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    assert torch.equal(flat, torch.from_numpy(np.unpackbits(packed.numpy())[: flat.numel()]).bool())
