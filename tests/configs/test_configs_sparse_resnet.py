"""The sparse ResNets of "Discovering Neural Wirings" as the configs have them: settings, and the original's counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config
from hiddennet.analysis import layer_report, total
from hiddennet.optim.optimizers import groups
from hiddennet.train.build import build_model
from tests.configs.shipped import configs, points_of
from tests.golden import Golden

SINGLES = configs("papers/dnw/sparse_resnet/")
IMAGENET = (1000, 3, 224)
SERIES = {"allsparse": "topk-density", "ignorefirst": "topk-dense-stem-density"}
PAIRS = {f"{old}{k}0": f"resnet50-imagenet-{new}-0.{k}" for old, new in SERIES.items() for k in range(1, 10)}
PAIRS["dense"] = "resnet50-imagenet-fan-in-dense"


def on_meta(resolved) -> nn.Module:
    with torch.device("meta"):
        return build_model(resolved, *IMAGENET)[0]


@pytest.fixture(scope="module")
def values():
    return Golden("dnw")


@pytest.fixture(scope="module")
def built():
    """A network with its weights, which the meta device does not have, its method and the report of its layers."""
    model, method = build_model(config.load(PAIRS["ignorefirst80"]), *IMAGENET)
    return model, method, layer_report(model, (3, 224, 224))


@pytest.fixture(scope="module")
def positions(built) -> dict[str, int]:
    """Of each layer of a ResNet-50 at 224 pixels: at how many output positions a weight is used."""
    return {report.name: report.multiply_adds // report.size for report in built[2]}


def kept_by_layer(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Weights, and those that are kept, of each convolution and of the classifier."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, hn.nn.HiddenMixin):
            found[name] = module.weight_shape.numel(), module.k
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            found[name] = module.weight.numel(), module.weight.numel()
    return found


def test_the_originals_are_all_there(values):
    assert set(values["J/config"]) == set(PAIRS)
    extra = ("fan-out-dense", "targeted-dropout-density-0.1")
    assert {*PAIRS.values(), *(f"resnet50-imagenet-{name}" for name in extra)} == set(SINGLES)


@pytest.mark.parametrize("original", PAIRS)
def test_counts_are_the_originals(values, positions, original):
    (row,) = np.flatnonzero(values["J/config"] == original)
    model = on_meta(config.load(PAIRS[original]))
    found = kept_by_layer(model)
    assert sum(size for size, _ in found.values()) == values["J/total_conv_weights"][row]
    assert sum(kept for _, kept in found.values()) == values["J/kept_conv_weights"][row]
    assert sum(kept * positions[name] for name, (_, kept) in found.items()) == values["J/kept_conv_macs"][row]
    normal = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(p.numel() for module in normal for p in module.parameters()) == values["J/bn_params"][row]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_network_reports_and_reveals_as_many(values, built):
    """The report counts the masks of the real weights."""
    model, method, reports = built
    (row,) = np.flatnonzero(values["J/config"] == "ignorefirst80")
    whole = total(reports)
    assert (whole.size, whole.kept, whole.kept_multiply_adds) == tuple(
        values[f"J/{key}"][row] for key in ("total_conv_weights", "kept_conv_weights", "kept_conv_macs")
    )
    assert method.density(model) == pytest.approx(0.8, abs=1e-5)
    spread = model.fc.weight.detach().std() * (2048 / 2) ** 0.5
    assert float(spread) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("name", SINGLES)
def test_settings_are_the_papers(name):
    resolved = config.load(name)
    optimizer, schedule, train = resolved.optimizer, resolved.schedule, resolved.train
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.256, 0.875, 2.0**-15)
    assert not optimizer.nesterov and not optimizer.batch_norm_decay
    assert (schedule.name, schedule.by, schedule.warmup_epochs, schedule.final_epochs) == ("cosine", "epoch", 5, 0)
    assert (train.epochs, train.label_smoothing, train.mixup, train.selection) == (100, 0.1, 0.0, "test")
    assert (resolved.data.name, resolved.data.batch_size, resolved.data.validation) == ("imagenet", 256, 0.0)
    assert (resolved.model.name, resolved.model.batch_norm, resolved.model.bias) == ("resnet50", "affine", False)
    method = resolved.method
    assert (method.init, method.nonlinearity) == ("kaiming_normal", "relu")
    assert method.mode == ("fan_out" if "fan-out" in name else "fan_in")
    assert method.name == ("dense" if name.endswith("dense") else "magnitude_topk")
    assert resolved.model.first_layer == ("dense" if "dense-stem" in name else None)
    if method.name == "magnitude_topk":
        assert name.endswith(f"density-{method.density}") and not method.exclude and not method.scale_fan
        assert (method.drop, method.scope) == (0.9 if "targeted" in name else None, "layer")


def test_weight_decay_spares_batch_norm_alone():
    resolved = config.load("resnet50-imagenet-topk-density-0.1")
    decayed, free = groups(on_meta(resolved), resolved.optimizer)
    assert sum(p.numel() for p in decayed["params"]) == 25_502_912
    assert (decayed["weight_decay"], free["weight_decay"]) == (2.0**-15, 0.0)
    assert sum(p.numel() for p in free["params"]) == 53_120


def test_targeted_dropout_draws_at_the_originals_rate():
    model = on_meta(config.load("resnet50-imagenet-targeted-dropout-density-0.1"))
    layers = hn.hidden_layers(model).values()
    assert {type(layer.rule) for layer in layers} == {hn.TargetedDropout}
    assert sum(layer.k for layer in layers) == 2_550_318
    assert {(layer.rule.density, layer.rule.drop) for layer in layers} == {(0.1, 0.9)}


@pytest.mark.parametrize(("sweep", "runs"), [("sparse-resnet50-densities", 18), ("sparse-resnet-depths", 5)])
def test_sweeps(sweep, runs):
    points = [point.config for point in points_of(sweep)]
    assert len({(point.model.name, point.model.first_layer, point.method.density) for point in points}) == runs
    assert {point.method.name for point in points} == {"magnitude_topk"}


@pytest.mark.parametrize(("name", "weights"), [("resnet18", 11_678_912), ("resnet101", 44_442_816)])
def test_other_depths_are_sparse_all_over(name, weights):
    resolved = config.load("resnet50-imagenet-topk-density-0.1", [f"model.name={name}"])
    layers = kept_by_layer(on_meta(resolved))
    assert sum(size for size, _ in layers.values()) == weights
    assert all(kept == size - int(0.9 * size) for size, kept in layers.values())


def test_strides_sit_in_the_3x3_convolutions():
    """ResNet v1.5: 1x1 convolutions of the bottlenecks have stride 1, those of the skip paths the block's."""
    model = on_meta(config.load("resnet50-imagenet-fan-in-dense"))
    strided = {n: m.kernel_size for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)}
    blocks = {f"layer{i}.0.{part}": size for i in (2, 3, 4) for part, size in (("conv2", 3), ("downsample.0", 1))}
    assert strided == {"conv1": (7, 7), **{name: (size, size) for name, size in blocks.items()}}
    assert model.fc.bias is None
