"""Peek-a-Boo's experiments (Chen et al., ICLR 2022) as the configs have them, one test an experiment."""

from __future__ import annotations

import pytest
import torch

from hiddennet import config
from hiddennet.models import peek_a_boo_layers, prunable
from hiddennet.train.build import build_plain
from tests.configs.shipped import configs, points_of

SINGLES = configs("papers/peek_a_boo/")
INPUTS = {"cifar10": (10, 3, 32), "cifar100": (100, 3, 32), "imagenet": (1000, 3, 224)}
NETWORKS = [
    ("cifar_resnet18", "cifar10"),
    ("cifar_resnet18", "cifar100"),
    ("cifar_resnet50", "cifar10"),
    ("cifar_resnet50", "cifar100"),
    ("wide_resnet28_10", "cifar10"),
    ("wide_resnet28_10", "cifar100"),
]
PRUNERS = [("magnitude", 1), ("random", 1), ("snip", 1), ("grasp", 1), ("synflow", 100)]


def on_meta(resolved):
    with torch.device("meta"):
        return build_plain(resolved, *INPUTS[resolved.data.name])


def runs(sweep):
    return [point.config for point in points_of(sweep)]


def check_cifar(resolved):
    """What the command for CIFAR and the original's defaults have in common."""
    optimizer, schedule = resolved.optimizer, resolved.schedule
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert not optimizer.nesterov and optimizer.batch_norm_decay
    assert (schedule.name, schedule.milestones, schedule.gamma) == ("multistep", [80, 120], 0.1)
    assert schedule.warmup_epochs == 0 and resolved.train.label_smoothing == 0.0
    assert (resolved.data.batch_size, resolved.data.augment, resolved.data.augmentation) == (128, True, "standard")


def check_method(method, *, density=0.3, interval=45, threshold=1e-7, exact=False):
    """Bop and its gradients as in the two commands."""
    assert (method.name, method.learn, method.init, method.average_init) == (
        "peek_a_boo",
        "signs",
        "kaiming_normal",
        "grad",
    )
    assert (method.pruner, method.density, method.iterations) == ("synflow", density, 100)
    assert (method.prune_schedule, method.scope, method.shots, method.prune_epoch) == ("exponential", "global", 1, 0)
    assert method.prune_images == 100
    assert (method.adaptivity_rate, method.flip_threshold) == (1e-3, 1e-6)
    assert (method.adaptivity_decay, method.adaptivity_interval) == (0.15, interval)
    if exact:
        assert method.psg is None
        return
    psg = method.psg
    assert (psg.input_bits, psg.gradient_bits, psg.sparsify) == (8, 16, True)
    assert (psg.threshold, psg.threshold_mode) == (threshold, "relative")


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_1_and_2_the_command_for_cifar(data):
    resolved = config.load(f"resnet18-{data}-peek-a-boo")
    check_cifar(resolved)
    check_method(resolved.method)
    assert (resolved.model.name, resolved.data.name) == ("cifar_resnet18", data)
    assert (resolved.train.epochs, resolved.seed, resolved.model.batch_norm) == (180, 0, "affine")
    total = 11_173_962 + (90 * 513 if data == "cifar100" else 0)
    assert sum(p.numel() for p in on_meta(resolved).parameters()) == total


def test_3_the_two_commands_for_imagenet():
    whole = config.load("resnet50-imagenet-peek-a-boo")
    check_method(whole.method, density=0.5, interval=30, threshold=5e-7)
    assert (whole.optimizer.lr, whole.optimizer.momentum, whole.optimizer.weight_decay) == (0.1, 0.9, 1e-4)
    schedule = whole.schedule
    assert (schedule.name, schedule.milestones, schedule.interval, schedule.gamma) == ("multistep", [], 30, 0.1)
    assert (whole.train.epochs, whole.data.batch_size, whole.train.label_smoothing) == (100, 256, 0.0)
    model = on_meta(whole)
    layers, modules = peek_a_boo_layers(model), prunable(model)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    assert sum(modules[name].weight.numel() for name in layers.pruned) == 22_734_016
    prune, train = (config.load(f"resnet50-imagenet-peek-a-boo-{stage}") for stage in ("prune", "train"))
    assert (whole.method.stage, prune.method.stage, train.method.stage) == ("both", "prune", "train")
    assert train.method.subnet.startswith("runs/resnet50-imagenet-peek-a-boo-prune/")
    assert (prune.seed, prune.model, prune.method.density) == (train.seed, train.model, train.method.density)


@pytest.mark.parametrize(("sweep", "exact"), [("peek-a-boo-networks", False), ("peek-a-boo-networks-exact", True)])
def test_4_and_5_all_networks_and_exact_gradients(sweep, exact):
    points = runs(sweep)
    found = [(point.model.name, point.data.name) for point in points]
    assert found == [*NETWORKS, ("resnet18", "imagenet"), ("resnet50", "imagenet")]
    for point in points:
        imagenet = {"density": 0.5, "interval": 30, "threshold": 5e-7} if point.data.name == "imagenet" else {}
        check_method(point.method, **imagenet, exact=exact)
        assert point.model.batch_norm == "affine" and point.model.bias
    one = config.load("resnet18-cifar10-peek-a-boo-exact")
    check_method(one.method, exact=True)
    assert one.method == runs("peek-a-boo-networks-exact")[0].method


@pytest.mark.parametrize(("net", "seeds"), [("resnet18", [0]), ("resnet20", [0, 1, 2])])
@pytest.mark.parametrize("method", ["peek-a-boo", "sparse"])
def test_6_and_11_pruners_and_densities(net, seeds, method):
    points = runs(f"{net}-cifar10-{method}-pruners")
    found = [(p.method.pruner, p.method.iterations, p.method.density, p.seed) for p in points]
    densities = (0.5, 0.3, 0.2, 0.1, 0.05)
    wanted = [(*pruner, density, seed) for pruner in PRUNERS for density in densities for seed in seeds]
    assert sorted(found) == sorted(wanted)
    assert {p.method.name for p in points} == {"peek_a_boo" if method == "peek-a-boo" else "prune_at_init"}
    assert {p.model.name for p in points} == {"cifar_resnet18" if net == "resnet18" else "resnet20_projection"}
    assert {p.train.epochs for p in points} == {180}


def test_7_edge_popup():
    points = runs("edge-popup-scaled-densities")
    networks = [*NETWORKS, ("conv4_bn", "cifar10"), ("conv6_bn", "cifar10")]
    wanted = [(*network, density) for network in networks for density in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert [(p.model.name, p.data.name, p.method.density) for p in points] == wanted
    for point in points:
        check_cifar(point)
        assert point.train.epochs == 200 and point.model.batch_norm == "non_affine" and not point.model.bias
        method = point.method
        assert (method.name, method.init, method.mode, method.scale_fan) == (
            "edge_popup",
            "kaiming_normal",
            "fan_in",
            True,
        )
    for point in runs("resnet50-imagenet-edge-popup-scaled-densities"):
        optimizer = point.optimizer
        assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.256, 0.875, 2.0**-15)
        assert (point.schedule.name, point.schedule.warmup_epochs) == ("cosine", 5)
        assert (point.train.epochs, point.data.batch_size, point.train.label_smoothing) == (100, 256, 0.1)
        assert point.method.scale_fan and point.method.density in (0.3, 0.5)


def test_8_conv4_and_conv6():
    for depth, total in ((4, 2_426_816), (6, 2_264_000)):
        resolved = config.load(f"conv{depth}-bn-cifar10-peek-a-boo")
        check_cifar(resolved)
        check_method(resolved.method)
        assert sum(p.numel() for p in on_meta(resolved).parameters()) == total
    found = [(p.model.name, p.method.psg is None) for p in runs("conv-bn-cifar10-peek-a-boo")]
    assert found == [(f"conv{depth}_bn", exact) for depth in (4, 6) for exact in (False, True)]


@pytest.mark.parametrize("net", ["resnet18", "resnet20"])
def test_9_distributions_of_the_weights(net):
    inits = {p.method.init for p in runs(f"{net}-cifar10-peek-a-boo-inits")}
    kaiming = {"kaiming_normal", "kaiming_uniform", "kaiming_laplace"}
    assert inits == kaiming | {"standard", "signed_constant", "unsigned_constant", "xavier_normal", "xavier_constant"}


@pytest.mark.parametrize("net", ["resnet18", "resnet20"])
def test_10_scores_in_place_of_signs(net):
    points = [point for point in runs(f"{net}-cifar10-peek-a-boo-latent") if point.seed == 0]
    found = [(p.method.learn, p.method.psg is None) for p in points]
    both = [("signs", False), ("flipping", False), ("signs", True), ("flipping", True)]
    assert found == [*both, ("pruning", True), ("ternary", True)]
    assert {p.model.name for p in points} == {"cifar_resnet18" if net == "resnet18" else "resnet20"}


@pytest.mark.parametrize("net", ["resnet18", "resnet20"])
def test_11_all_weights_by_sgd(net):
    signs, sparse, dense = (config.load(f"{net}-cifar10-{end}") for end in ("peek-a-boo", "sparse", "unpruned"))
    method = sparse.method
    assert (method.name, method.pruner, method.density, method.iterations) == ("prune_at_init", "synflow", 0.3, 100)
    assert dense.method.name == "dense"
    for other in (sparse, dense):
        check_cifar(other)
        assert (other.model, other.data, other.train) == (signs.model, signs.data, signs.train)
        assert (other.method.init, other.seed) == (signs.method.init, signs.seed)


def test_11_side_by_side():
    points = runs("resnet18-cifar10-peek-a-boo-baselines")
    names = ["resnet18-cifar10-" + end for end in ("peek-a-boo", "peek-a-boo-exact", "sparse", "unpruned")]
    assert [(p.name, p.seed) for p in points] == [(name, seed) for name in names for seed in (0, 1, 2)]


@pytest.mark.parametrize("stem", SINGLES)
def test_networks_build(stem):
    resolved = config.load(stem)
    model = on_meta(resolved)
    layers = peek_a_boo_layers(model)
    assert layers.pruned and layers.learned
    assert resolved.train.selection == "test" and resolved.data.validation == 0.0
