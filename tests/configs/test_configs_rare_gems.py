"""Rare Gems' experiments (arXiv 2202.12002) as the configs have them: rates, schedules, sizes of networks, counts."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet import config, methods
from hiddennet.config import Config
from hiddennet.data.order import validation_count
from hiddennet.models import prunable
from hiddennet.train.build import build_model, build_plain
from tests.configs.shipped import configs, points_of, sweeps

SINGLES = configs("papers/rare_gems/")
INPUTS = {
    "cifar10": (10, 3, 32),
    "cifar100": (100, 3, 32),
    "tiny_imagenet": (200, 3, 64),
    "imagenet": (1000, 3, 224),
    "image_folder": (101, 3, 224),
    "mnist": (10, 1, 28),
    "text_folder": (33_278, 1, 35),
}
# network and data: (prunable weights, {density: (prunings, rate)})
GEM_MINER = {
    "resnet20-cifar10": (
        268_336,
        {
            0.5: (18, 0.03778),
            0.2: (29, 0.05399),
            0.0372: (29, 0.10729),
            0.0144: (29, 0.13604),
            0.0059: (18, 0.24810),
            0.00154: (29, 0.20013),
        },
    ),
    "mobilenet-v2-cifar10": (
        2_261_824,
        {0.5: (59, 0.01168), 0.2: (59, 0.02691), 0.05: (59, 0.04951), 0.014: (59, 0.0698)},
    ),
    "vgg16-cifar10": (
        14_715_584,
        {0.05: (39, 0.07394), 0.025: (39, 0.09025), 0.014: (39, 0.10368), 0.005: (39, 0.12703)},
    ),
    "wide-resnet28-2-cifar10": (
        1_463_984,
        {0.2: (14, 0.1086), 0.055: (14, 0.18712), 0.023: (14, 0.2362), 0.014: (14, 0.26281)},
    ),
    "resnet18-tiny-imagenet": (
        11_097_280 + 172_032,
        {0.5: (19, None), 0.2: (19, None), 0.05: (39, 0.07394), 0.014: (39, 0.10368), 0.005: (39, 0.12703)},
    ),
    "resnet50-tiny-imagenet": (
        22_734_016 + 2_768_896 - 800 * 2048,
        {0.05: (29, 0.09814), 0.014: (29, 0.13688), 0.005: (29, 0.16698)},
    ),
    "resnet32-cifar100": (461_872 + 90 * 64, {0.05: (29, 0.09814), 0.02: (29, None)}),
    "resnet32-double-cifar100": (1_856_864, {0.05: (29, 0.09814), 0.02: (29, None), 0.005: (29, 0.16698)}),
    "resnet18-cifar10": (11_164_352, {0.05: (9, None), 0.005: (9, None)}),
    "resnet50-imagenet": (
        22_734_016 + 2_768_896,
        {0.5: (10, None), 0.25: (10, None), 0.2: (10, 0.14866), 0.15: (10, None), 0.1: (10, None), 0.05: (10, None)},
    ),
}
FINALS = [(net, density) for net, (_, densities) in GEM_MINER.items() for density in densities]


def on_meta(resolved):
    with torch.device("meta"):
        return build_plain(resolved, *INPUTS[resolved.data.name])


@pytest.mark.parametrize(("net", "density"), FINALS)
def test_gem_miner_strikes_at_the_rate_of_the_paper(net, density):
    resolved = config.load(f"{net}-gem-miner-density-{density:g}")
    count, rate = GEM_MINER[net][1][density]
    strikes = methods.create(resolved.setting()).strikes
    assert strikes[0] == count
    assert strikes[1] == pytest.approx(1 - density ** (1 / count), abs=1e-12)
    if rate is not None:
        assert strikes[1] == pytest.approx(rate, abs=6e-6)
    method = resolved.method
    assert (method.init, method.score_init, method.strike, method.exact) == (
        "signed_constant",
        "uniform",
        "global",
        False,
    )
    assert (method.quantized, method.threshold, method.rounding, method.noise) == (True, 0.5, "naive", 0.0)
    assert method.regularizer in ("l2", None) and resolved.optimizer.weight_decay == 0.0
    assert resolved.schedule.name == "cosine" and resolved.model.batch_norm == "non_affine"
    recipe = method.fine_tune
    assert (recipe.optimizer.name, recipe.optimizer.weight_decay) == ("sgd", 1e-4)
    assert (recipe.schedule.name, recipe.schedule.gamma, recipe.epochs) == ("multistep", 0.1, None)
    rounded = density in (0.5, 0.2) and (net, density) != ("resnet20-cifar10", 0.5)
    rounded = rounded and (net, density) not in (("mobilenet-v2-cifar10", 0.2), ("wide-resnet28-2-cifar10", 0.2))
    rounded = rounded or (net, density) == ("resnet18-cifar10", 0.005)
    assert recipe.unflag != (rounded or net == "resnet50-imagenet")


@pytest.mark.parametrize("net", GEM_MINER)
def test_gem_miner_searches_in_the_networks_of_the_paper(net):
    weights, densities = GEM_MINER[net]
    for density in densities:
        model = on_meta(config.load(f"{net}-gem-miner-density-{density:g}"))
        assert sum(layer.weight.numel() for layer in prunable(model).values()) == weights


@pytest.mark.parametrize("net", [net for net in GEM_MINER if net != "resnet50-imagenet"])
def test_three_trials_of_each_density_and_the_same_inverted(net):
    for end, inverted in (("densities", False), ("inverted", True)):
        points = [point.config for point in points_of(f"{net}-gem-miner-{end}")]
        found = [(point.method.density, point.seed) for point in points]
        assert found == [(density, seed) for density in GEM_MINER[net][1] for seed in (1, 2, 3)]
        assert {point.method.invert for point in points} == {inverted}
        assert {point.data.validation for point in points} == {0.0}


MILESTONES = {100: [50, 80], 150: [80, 120], 160: [80, 120], 200: [100, 150], 300: [150, 250]}


@pytest.mark.parametrize("stem", SINGLES)
def test_milestones_follow_the_number_of_epochs(stem):
    """By the original's table, or half and two thirds of the epochs; half means rounded down."""
    resolved = config.load(stem)
    recipe = getattr(resolved.method, "fine_tune", None)
    recipes = [(resolved.schedule, resolved.train.epochs)]
    if recipe is not None:
        recipes.append((recipe.schedule, recipe.epochs or resolved.train.epochs))
    for schedule, epochs in recipes:
        if schedule.name == "multistep" and schedule.interval is None:
            assert schedule.gamma == 0.1
            assert schedule.milestones == MILESTONES.get(epochs, [epochs // 2, 2 * epochs // 3]), epochs


OF_OTHER_RUNS = ("warm", "caltech101", "fine-tune")  # these need weights or a sub-network that is there already
NOT_BUILT = (*OF_OTHER_RUNS, "prune-at-init")  # the last needs images to prune on


@pytest.mark.parametrize("stem", [stem for stem in SINGLES if not any(word in stem for word in NOT_BUILT)])
def test_builds(stem):
    """At full size without memory; or narrow, where the method makes masks of values."""
    resolved = config.load(stem)
    real = resolved.method.name in ("gem_miner", "hc", "random")
    if real:
        resolved = config.load(stem, ["model.width=0.25"])
    with torch.device("cpu" if real else "meta"):
        model, method = build_model(resolved, *INPUTS[resolved.data.name])
    layers = hn.hidden_layers(model)
    assert bool(layers) == (resolved.method.name != "dense")
    assert any(p.requires_grad for p in model.parameters())
    assert method.epochs >= resolved.train.epochs


def densities_of(stem: str) -> set[float]:
    return {point.config.method.density for point in points_of(stem)}


def test_densities_of_the_baselines():
    removed = (0.8, 0.8666, 0.9, 0.95, 0.9628, 0.98, 0.9856, 0.9941, 0.995)
    assert densities_of("resnet20-cifar10-smart-ratio-densities") == {round(1 - r, 6) for r in removed}
    assert densities_of("resnet20-cifar10-smart-ratio-version-2") == {0.0372, 0.0144}
    assert densities_of("resnet20-cifar10-edge-popup-densities") == {0.5, 0.1334, 0.0372, 0.0144, 0.0059}


PRUNERS = {("magnitude", 1), ("random", 1), ("snip", 1), ("grasp", 1), ("synflow", 100)}


@pytest.mark.parametrize(
    "net", [net for net in GEM_MINER if net not in ("resnet18-cifar10", "resnet32-cifar100", "resnet50-imagenet")]
)
def test_pruners_at_initialisation_at_the_densities_of_gem_miner(net):
    points = [point.config for point in points_of(f"{net}-prune-at-init-densities")]
    found = {(p.method.pruner, p.method.iterations, p.method.density, p.seed) for p in points}
    densities = set(GEM_MINER[net][1])
    assert found == {(*pruner, density, seed) for pruner in PRUNERS for density in densities for seed in (1, 2, 3)}
    recipe = config.load(f"{net}-{'dense' if 'double' in net else 'smart-ratio'}")
    for point in points:
        assert (point.method.name, point.method.init) == ("prune_at_init", "kaiming_normal")
        assert point.method.prune_images == 10 * INPUTS[point.data.name][0]
        assert (point.optimizer, point.schedule, point.train) == (recipe.optimizer, recipe.schedule, recipe.train)


def smart_ratios() -> dict[tuple[str, float, int], Config]:
    """One config for each network, density and version."""
    found = [point.config for name in sweeps() if "smart-ratio" in name for point in points_of(name)]
    found += [config.load(stem) for stem in SINGLES if stem.endswith("smart-ratio")]
    return {(one.name, one.method.density, one.method.version): one for one in found}


def test_smart_ratio_keeps_no_more_than_its_density():
    resolved_configs = smart_ratios().values()
    assert len(resolved_configs) == 9 + 2 + 5 + 5 + 4 + 5 + 3 + 1 + 1
    for resolved in resolved_configs:
        model = on_meta(resolved)
        layers = prunable(model)
        counts = methods.create(resolved.setting()).counts(model, list(layers))
        total = sum(layer.weight.numel() for layer in layers.values())
        if resolved.method.version == 1:
            assert 0.98 * resolved.method.density * total < sum(counts.values()) <= resolved.method.density * total
            head = layers[model.last_layer].weight.numel()
            assert counts[model.last_layer] == int(0.3 * head)
        assert min(counts.values()) > 0


def test_magnitude_pruning_in_rounds():
    for stem in SINGLES:
        resolved = config.load(stem)
        if resolved.method.name != "imp" or resolved.data.name in ("mnist", "text_folder"):
            continue
        one_shot = stem.endswith("one-shot")
        rounds, rate = (1, 0.982) if one_shot else (29, 0.2)
        assert (resolved.method.rounds, resolved.method.rate) == (rounds, rate)
        assert resolved.method.rewind_step == (2000 if stem.startswith(("vgg16", "wide")) else 1000)
        assert (1 - rate) ** rounds == pytest.approx(0.018 if one_shot else 0.00154, rel=0.01)
        lengths = [stage.epochs for stage in methods.create(resolved.setting()).stages]
        assert lengths == ([8, 150] if one_shot else [resolved.train.epochs] * 30)


def test_cold_warm_and_renda():
    for net in ("resnet20-cifar10", "vgg16-cifar10", "resnet50-tiny-imagenet"):
        points = [point.config.method for point in points_of(f"{net}-imp-variants")]
        kinds = {(method.rewind, method.rewind_step > 0) for method in points}
        assert kinds == {("weights", True), ("weights", False), ("learning_rate", False)} and len(points) == 9


def test_from_edge_popup_to_gem_miner_in_five_steps():
    points = [point.config for point in points_of("resnet20-cifar10-ablation-density-0.0059") if point.config.seed == 1]
    names = [point.method.name for point in points]
    assert names == ["edge_popup", *["global_edge_popup"] * 3, "gem_miner"]
    assert [point.method.density for point in points] == [0.005, 0.0059, 0.0059, 0.0059, 0.0059]
    assert [point.method.period for point in points[1:]] == [None, 5, 5, 8]
    assert [point.optimizer.weight_decay for point in points] == [5e-4, 5e-4, 5e-4, 5e-4 + 2 * 1e-4, 0.0]


def test_imagenet_and_the_language_model():
    imagenet = config.load("resnet50-imagenet-gem-miner-density-0.5")
    assert validation_count(imagenet.data.validation, 1_281_167) == 10_000
    assert (imagenet.method.period, imagenet.method.strike_at, imagenet.data.batch_size) == (8, "start", 512)
    text = config.load("lstm-wikitext2-imp")
    optimizer, method = text.optimizer, text.method
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm) == (20.0, 0.0, 0.0, 0.25)
    assert (text.data.batch_size, text.data.bptt, text.train.epochs) == (20, 35, 40)
    assert (method.rewind, method.rate, method.rounds) == ("learning_rate", 0.1, 20)
    assert sum(p.numel() for p in on_meta(text).parameters()) == pytest.approx(85.97e6, rel=2e-4)
    mined = config.load("lstm-wikitext2-gem-miner-density-0.5")
    assert methods.create(mined.setting()).strikes[0] == 7 and mined.method.regularizer is None


# of single files of the original, what they say
FILES = {
    "resnet32-cifar10@smart-ratio": {
        "model.name": "resnet32_double",
        "model.batch_norm": "affine",
        "data.batch_size": 128,
        "schedule.name": "multistep",
        "train.epochs": 160,
        "method.init": "kaiming_normal",
    },
    "vgg16-tiny-imagenet@dense": {"optimizer.lr": 0.1, "optimizer.weight_decay": 0.0, "schedule.name": "cosine"},
    "vgg16-cifar10@imp": {"train.epochs": 200, "schedule.milestones": [100, 150]},
    "resnet101-tiny-imagenet@dense": {"train.epochs": 150, "optimizer.name": "adam", "optimizer.lr": 0.001},
    "resnet18-tiny-imagenet@dense-adam": {"optimizer.name": "adam", "optimizer.lr": 0.001, "schedule.name": "cosine"},
    "conv4-cifar10@dense": {"optimizer.weight_decay": 1e-4, "train.epochs": 150, "schedule.name": "constant"},
    "resnet18-cifar10@edge-popup": {"method.scale_fan": False, "data.batch_size": 128, "train.epochs": 200},
    "resnet50-imagenet@hc": {"data.batch_size": 64, "method.regularizer_weight": 1e-4, "optimizer.lr": 0.1},
}
WITHOUT_A_WORD_OF_FINE_TUNING = [
    *("conv4-cifar10@edge-popup", "conv4-cifar10@hc", "resnet18-cifar10@hc"),
    *("resnet50-imagenet@edge-popup", "resnet50-imagenet@hc"),
]


def value(section, path: str):
    for key in path.split("."):
        section = getattr(section, key)
    return section


@pytest.mark.parametrize("name", FILES)
def test_values_of_the_originals_files(name):
    resolved = config.load(f"papers/rare_gems/{name}")
    assert {path: value(resolved, path) for path in FILES[name]} == FILES[name]


@pytest.mark.parametrize("name", WITHOUT_A_WORD_OF_FINE_TUNING)
def test_fine_tuning_goes_without_saying(name):
    method = config.load(f"papers/rare_gems/{name}").method
    recipe = method.fine_tune
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("sgd", 0.01, 1e-4)
    assert (recipe.schedule.name, recipe.epochs) == ("constant", None)
    assert getattr(recipe, "unflag", False) is False


def test_points_of_the_originals_files():
    def points(name: str) -> list:
        return [point.config for point in points_of(name)]

    three = [
        (p.optimizer.name, p.optimizer.lr, p.method.regularizer_weight) for p in points("resnet50-imagenet-hc-variants")
    ]
    assert three == [("sgd", 0.1, 1e-4), ("adam", 0.1, 0.0), ("adam", 0.01, 1e-6)]
    assert [p.schedule.name for p in points("resnet50-imagenet-hc-variants")] == ["cosine", "multistep", "cosine"]
    assert points("resnet18-cifar10-hc-variants")[-1].schedule.milestones == [80, 120]
    pulls = {
        (p.method.density, p.method.regularizer_weight, p.optimizer.name): p.method.fine_tune.unflag
        for p in points("resnet20-cifar10-gem-miner-regularizers")
    }
    assert pulls[0.014, 5e-5, "sgd"] and pulls[0.0059, 5e-5, "sgd"]
    assert not any(pulls[0.005, weight, "sgd"] for weight in (0.0, 1e-6, 1e-4))
    tiny = {
        (
            p.method.density,
            p.method.regularizer_weight,
            p.method.period,
            p.optimizer.name,
        ): p.method.fine_tune.optimizer.lr
        for p in points("resnet18-tiny-imagenet-gem-miner-tuning")
    }
    assert tiny[0.05, 1e-8, 100, "sgd"] == tiny[0.05, 1e-8, 10, "sgd"] == tiny[0.5, 1e-8, 25, "sgd"] == 0.1
    assert tiny[0.014, 3e-5, 5, "sgd"] == 0.01
    kaiming = points("conv4-cifar10-hc-variants")[-1]
    assert (kaiming.method.init, kaiming.method.score_init, kaiming.train.epochs) == ("kaiming_normal", "uniform", 150)
    steps = [point for point in points("conv4-cifar10-hc-variants") if point.schedule.name == "multistep"]
    assert [(p.method.regularizer, p.method.score_init, p.optimizer.lr) for p in steps] == [
        ("var_red_1", "uniform", 0.02),
        ("bin_entropy", "bernoulli", 0.01),
    ]
    pair = points("conv4-cifar10-hc-pair")[0]
    assert (pair.method.regularizer, pair.method.regularizer_weight, pair.schedule.name) == (
        "var_red_2",
        1e-7,
        "multistep",
    )
    short = points("conv4-cifar10-edge-popup-variants")[-1]
    assert (short.train.epochs, short.optimizer.lr, short.optimizer.weight_decay) == (5, 0.01, 0.0)
    mobile = points("mobilenet-v2-cifar10-gem-miner-first-runs")
    assert [(p.method.density, p.method.regularizer_weight, p.train.epochs) for p in mobile] == [
        (0.2, 1e-5, 300),
        (0.05, 1e-4, 300),
        (0.05, 7e-6, 200),
    ]
    assert not any(p.method.fine_tune.unflag for p in mobile)
    pulled = points("resnet20-cifar10-gem-miner-regularizers")
    kept = [(p.method.density, p.method.regularizer_weight) for p in pulled if p.method.fine_tune.unflag]
    assert kept == [(0.0059, 5e-5), (0.014, 1e-6), (0.014, 5e-5), (0.0372, 3e-5), (0.0144, 1e-4), (0.0059, 1e-4)]
    assert sum(not p.method.fine_tune.unflag for p in pulled) == 9
    first = [point.method for point in points("resnet20-cifar10-gem-miner-first-runs")]
    assert all((m.fine_tune.unflag, m.fine_tune.schedule.name) == (False, "constant") for m in first)
    last = first[-1]
    assert (last.strike, last.period, last.score_init, last.quantized) == ("threshold", 25, "skew", True)
