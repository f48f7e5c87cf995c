"""IteRand's experiments (arXiv 2106.09269, its 26 figure experiments and 3 single runs) as the configs have them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config
from hiddennet.data.order import validation_count
from hiddennet.train.build import build_model
from tests.configs.shipped import configs, points_of, sweeps

FOLDER = "papers/iterand/figure"
INPUTS = {"cifar10": (10, 3, 32), "imagenet": (1000, 3, 224)}
INITS = {"ku": "kaiming_uniform", "sc": "signed_constant"}
WIDTHS, SEEDS = [0.25, 0.5, 1.0, 2.0], [1, 2, 3]
# network: (model, density, lr of pruning, lr of SGD, weight decay)
CIFAR = {
    "conv6": ("conv6", 0.5, 0.3, 0.01, 1e-4),
    "resnet18": ("cifar_resnet18", 0.4, 0.1, 0.1, 5e-4),
    "resnet34": ("cifar_resnet34", 0.4, 0.1, 0.1, 5e-4),
}
FIGURES = ["figure1-{}-ku-iterand", "figure2-{}-ku-sgd"]
FIGURES += [f"figure2-{{}}-{init}-{method}" for init in INITS for method in ("edge-popup", "iterand")]
SWEEPS = [(figure.format(net), net) for net in CIFAR for figure in FIGURES]
LARGE = ["resnet18-ku-sgd", "resnet34-ku-sgd"]
LARGE += [f"resnet{depth}-sc-{method}" for depth in (34, 50, 101) for method in ("edge-popup", "iterand")]
# (weights, kept) by model and width, at density 0.5, 0.4 and 0.3. The rule is kth = 1 + round(0.01 (100 p) (n - 1)):
# at p = 0.7 the product 0.01 * 70 is a little above 0.7, and halves are rounded up.
KEPT = {
    ("conv6", 0.25): (142_128, 71_064),
    ("conv6", 0.5): (566_368, 283_184),
    ("conv6", 1.0): (2_261_184, 1_130_592),
    ("conv6", 2.0): (9_036_160, 4_518_080),
    ("cifar_resnet18", 0.25): (708_288, 283_327),
    ("cifar_resnet18", 0.5): (2_804_928, 1_121_983),
    ("cifar_resnet18", 1.0): (11_164_352, 4_465_752),
    ("cifar_resnet18", 2.0): (44_576_448, 17_830_591),
    ("cifar_resnet34", 0.25): (1_339_584, 535_853),
    ("cifar_resnet34", 0.5): (5_330_112, 2_132_065),
    ("cifar_resnet34", 1.0): (21_265_088, 8_506_054),
    ("cifar_resnet34", 2.0): (84_979_392, 33_991_777),
    ("resnet34", 1.0): (21_779_648, 6_533_915),
    ("resnet50", 1.0): (25_502_912, 7_650_903),
    ("resnet101", 1.0): (44_442_816, 13_332_915),
}


def on_meta(resolved):
    with torch.device("meta"):
        return build_model(resolved, *INPUTS[resolved.data.name])[0]


def has_settings(ours, init: str, density: float, lr: float, weight_decay: float, dense: bool, large: bool) -> None:
    """The settings that all experiments of a kind have in common."""
    optimizer, schedule, data, method = ours.optimizer, ours.schedule, ours.data, ours.method
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov) == ("sgd", lr, 0.9, False)
    assert optimizer.weight_decay == weight_decay and optimizer.batch_norm_decay
    assert (data.batch_size, data.split, data.split_seed) == (128, "permutation", 777)
    assert schedule.name == "cosine"
    if large:
        assert (ours.train.epochs, schedule.warmup_epochs, schedule.final_epochs) == (105, 5, 5)
        assert schedule.final_lr == 1e-5
        assert (data.name, validation_count(data.validation, 1_281_167)) == ("imagenet", 12_811)
        assert data.augmentation == "standard"  # which is the resized crop
    else:
        assert (ours.train.epochs, schedule.warmup_epochs, schedule.final_epochs) == (100, 0, 0)
        assert (data.name, data.validation) == ("cifar10", 0.1)
        assert (data.augmentation, data.normalization) == ("pad_resized_crop", "imagenet")
    assert method.init == INITS[init]
    assert (ours.train.selection, ours.train.label_smoothing) == ("validation", 0.0)
    if "resnet" in ours.model.name:
        assert not ours.model.stem_scaled
        assert ours.model.batch_norm == ("affine" if dense else "non_affine")
    assert ours.model.bias == dense
    if dense:
        assert method.name == "dense"
        return
    assert (method.name, method.density, method.score_init) == ("iterand", density, "kaiming_uniform")
    assert method.share == method.gain == method.score_gain == 1.0
    assert method.decay is None and method.fine_tune is None and not method.train_batch_norm
    assert method.last_density is None and method.period_unit == "steps"


@pytest.mark.parametrize(("name", "net"), SWEEPS, ids=[name for name, _ in SWEEPS])
def test_figures_on_cifar10(name, net):
    model, density, lr, lr_sgd, weight_decay = CIFAR[net]
    points = points_of(name)
    assert len(points) == 12
    dense = name.endswith("sgd")
    init = name.split("-")[2]
    for point in points:
        ours = point.config
        assert ours.model.name == model
        has_settings(ours, init, density, lr_sgd if dense else lr, weight_decay, dense, large=False)
        assert dense or ours.method.period == 300
    axes = [(p.config.model.width, p.config.seed) for p in points]
    if name.startswith("figure1"):
        assert [(p.config.method.rate, p.config.seed) for p in points] == [
            (rate, seed) for rate in (0.0, 0.1, 0.01, 1.0) for seed in SEEDS
        ]
        assert {width for width, _ in axes} == {1.0}
    else:
        assert axes == [(width, seed) for width in WIDTHS for seed in SEEDS]
        if not dense:
            assert {p.config.method.rate for p in points} == {0.0 if "edge-popup" in name else 0.1}


@pytest.mark.parametrize("name", LARGE)
def test_figure_3_on_imagenet(name):
    ours = config.load(f"figure3-{name}")
    net, init, method = name.split("-", 2)
    assert (ours.model.name, ours.model.width, ours.seed) == (net, 1.0, 1)
    has_settings(ours, init, 0.3, 0.1, 1e-4, dense=method == "sgd", large=True)
    if method == "iterand":
        assert (ours.method.rate, ours.method.period) == (0.1, 1000)
    elif method == "edge-popup":
        assert (ours.method.rate, ours.method.period) == (0.0, None)


@pytest.mark.parametrize("method", ["ku-sgd", "sc-edge-popup", "sc-iterand"])
def test_the_single_runs(method):
    ours = config.load(f"cifar10-resnet18-{method}")
    has_settings(ours, method[:2], 0.4, 0.1, 5e-4, dense=method == "ku-sgd", large=False)
    assert ours.seed == 1
    if method != "ku-sgd":
        redraws = (ours.method.rate, ours.method.period)
        assert redraws == ((0.1, 300) if method == "sc-iterand" else (0.0, None))


def test_there_are_216_runs_on_cifar10_and_8_on_imagenet():
    assert set(sweeps(FOLDER)) == {name for name, _ in SWEEPS}
    assert set(configs(FOLDER)) == {f"figure3-{name}" for name in LARGE}
    assert sum(len(points_of(name)) for name in sweeps(FOLDER)) == 216
    assert len(sweeps(FOLDER)) + len(configs(FOLDER)) == 26


def test_figure_1_and_2_share_their_common_runs():
    for net in CIFAR:
        first = {point.place for point in points_of(f"figure1-{net}-ku-iterand")}
        second = {point.place for point in points_of(f"figure2-{net}-ku-iterand")}
        third = {point.place for point in points_of(f"figure2-{net}-ku-edge-popup")}
        assert len(first & second) == len(first & third) == 3 and not second & third


@pytest.mark.parametrize("model", ["conv6", "cifar_resnet18", "cifar_resnet34", "resnet34", "resnet50", "resnet101"])
def test_kept_weights(model):
    net = model.removeprefix("cifar_")
    name = f"cifar10-{net}-ku-iterand" if net in CIFAR and model != "resnet34" else f"figure3-{net}-sc-iterand"
    for (of, width), (weights, kept) in KEPT.items():
        if of != model:
            continue
        built = on_meta(config.load(name, [f"model.width={width}"]))
        layers = hn.hidden_layers(built).values()
        sizes = [layer.weight_shape.numel() for layer in layers]
        assert sum(sizes) == weights
        assert sum(layer.rule.count(size) for layer, size in zip(layers, sizes, strict=True)) == kept
        assert not any(type(module) in (nn.Conv2d, nn.Linear) for module in built.modules())
        assert all(p.requires_grad == name.endswith("scores") for name, p in built.named_parameters())


@pytest.mark.parametrize(
    ("name", "weights", "others"),
    [
        ("cifar10-conv6-ku-sgd", 2_261_184, 1_418),
        ("cifar10-resnet18-ku-sgd", 11_164_352, 9_600 + 10),
        ("figure3-resnet18-ku-sgd", 11_678_912, 9_600 + 1_000),
        ("figure3-resnet34-ku-sgd", 21_779_648, 17_024 + 1_000),
    ],
)
def test_baselines_learn_weights_biases_and_batch_norm(name, weights, others):
    parameters = list(on_meta(config.load(name)).parameters())
    assert all(p.requires_grad for p in parameters)
    assert sum(p.numel() for p in parameters if p.dim() > 1) == weights
    assert sum(p.numel() for p in parameters if p.dim() == 1) == others
