"""Smart-Ratio's counts: by hand, against the stored tables of the original, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hiddennet import models
from hiddennet.methods.smart_ratio import RESNET20_SIZES, keep_counts, keep_ratios
from tests.golden import Golden

CASE = re.compile(r"(E_sr(\d)_(.+)_(0\.\d+)_)K")
# the original's names: ours, classes
NETWORKS = {
    "resnet20": ("resnet20", 10),
    "vgg16": ("vgg16", 10),
    "WideResNet28": ("wide_resnet28_2", 10),
    "MobileNetV2": ("mobilenet_v2", 10),
    "TinyResNet18": ("tiny_resnet18", 200),
    "resnet32_double": ("resnet32_double", 100),
    "cResNet18": ("cifar_resnet18", 10),
    "ResNet50": ("resnet50", 1000),
}


@pytest.fixture(scope="module")
def golden():
    stored = Golden("rare_gems")
    return {key: stored[key] for key in stored if key.startswith(("E_", "R_resnet20_layer_density_SR"))}


def sizes(name, classes):
    with torch.device("meta"):
        model = models.build(name, num_classes=classes, batch_norm="non_affine")
    return [layer.weight.numel() for layer in models.prunable(model, shortcuts=False).values()]


def test_by_hand():
    # budget 0.5 * 400 - 0.3 * 100 = 170; shares 12, 6 of 100 and 200 weights: scale 170 / 2400
    raw, ratios = keep_ratios([100, 200, 100], 0.5)
    assert raw == pytest.approx([0.85, 0.425, 0.3]) and ratios == raw
    assert keep_counts([100, 200, 100], 0.5) == [85, 85, 30]
    # vgg: budget 172, shares 12, 6 / 4: scale 172 / 1500; the first layer's 37 whole weights too many go on
    raw, ratios = keep_ratios([100, 200, 100], 0.5, family="vgg", head_density=0.28)
    assert raw == pytest.approx([1.376, 0.172, 0.28])
    assert ratios == pytest.approx([1.0, 0.172 + 37 / 200, 0.28])
    assert keep_counts([100, 200, 100], 0.5, family="vgg", head_density=0.28) == [100, 71, 28]


def test_an_excess_skips_full_layers_and_the_walk_ends_without_one():
    raw, ratios = keep_ratios([10, 10, 1000, 100], 0.7, head_density=0.1)
    assert raw[0] > raw[1] > 1 > raw[2] and ratios[:2] == [1.0, 1.0]
    moved = int((raw[0] - 1) * 10 + 1e-9) + int((raw[1] - 1) * 10 + 1e-9)
    assert ratios[2] == pytest.approx(raw[2] + moved / 1000) and ratios[3] == 0.1
    raw, ratios = keep_ratios([10_000, 10, 100], 0.5)
    assert raw[0] < 1 and ratios == raw


def test_the_stored_tables(golden):
    found = [match for match in map(CASE.fullmatch, golden) if match]
    assert len(found) == 33
    for match in found:
        case, version, original, removed = match.group(1), int(match[2]), match[3], match[4]
        name, classes = NETWORKS[original]
        layers = sizes(name, classes)
        assert layers == golden[f"{case}N"].tolist(), case
        options = {"family": "vgg" if "vgg" in name else "resnet", "version": version}
        for density in (1 - float(removed), float(f"{1 - float(removed):.6f}")):  # as subtracted, and as written
            raw, ratios = keep_ratios(layers, density, **options)
            np.testing.assert_allclose(raw, golden[f"{case}p_raw"], rtol=1e-12, err_msg=case)
            np.testing.assert_allclose(ratios, golden[f"{case}p"], rtol=1e-12, err_msg=case)
            assert keep_counts(layers, density, **options) == golden[f"{case}K"].tolist(), case


def test_the_published_densities_of_resnet20(golden):
    published = golden["R_resnet20_layer_density_SR"]  # %, float32
    for column, percent in enumerate(golden["R_resnet20_layer_density_SR_cols"]):
        counts = keep_counts(RESNET20_SIZES, percent / 100)
        found = 100 * np.array(counts) / np.array(RESNET20_SIZES)
        np.testing.assert_array_equal(found.astype(np.float32), published[:, column])


def test_the_sizes_of_version_2_are_resnet20s():
    assert tuple(sizes("resnet20", 10)) == RESNET20_SIZES


@pytest.mark.parametrize(("name", "classes"), [("resnet20", 10), ("vgg16", 10), ("mobilenet_v2", 10)])
@pytest.mark.parametrize("density", [0.9, 0.3, 0.05])
def test_the_budget_is_met_from_below(name, classes, density):
    layers = sizes(name, classes)
    counts = keep_counts(layers, density, family="vgg" if name == "vgg16" else "resnet")
    assert all(0 <= count <= size for count, size in zip(counts, layers, strict=True))
    assert density * sum(layers) - 2 * len(layers) <= sum(counts) <= density * sum(layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, "expected a density in .0, 1., got 0.0"),
        ({"density": 1.2}, "expected a density in"),
        ({"head_density": -0.1}, "expected a head_density in"),
        ({"family": "lstm"}, "family to be one of resnet, vgg, got 'lstm'"),
        ({"version": 3}, "expected version 1 or 2, got 3"),
        ({"version": 2}, "resnet20 at density 0.0144 or 0.0372 with version 2"),
        ({"sizes": RESNET20_SIZES, "version": 2, "density": 0.5}, "with version 2, got 20 layers of 268336 weights"),
        ({"sizes": [5]}, "expected the sizes of two layers"),
        ({"sizes": [10, 0, 5]}, "each at least 1"),
        ({"sizes": [100, 100], "density": 0.1}, r"0.3 of its 100 weights .* at density 0.1; lower head_density below"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    arguments = {"sizes": [100, 200, 100], "density": 0.5, **arguments}
    with pytest.raises(ValueError, match=f"smart_ratio: .*{message}"):
        keep_counts(arguments.pop("sizes"), arguments.pop("density"), **arguments)


@pytest.mark.parametrize("density", [0.014, 0.005])
def test_a_classifier_larger_than_the_budget_is_refused_with_the_way_out(density):
    layers = sizes("resnet50", 1000)
    with pytest.raises(ValueError, match="or give the network fewer classes") as refused:
        keep_counts(layers, density)
    least = float(re.search(r"head_density below ([\d.]+)", str(refused.value))[1])
    assert sum(keep_counts(layers, density, head_density=0.99 * least)) <= density * sum(layers)
    assert sum(keep_counts(sizes("resnet50", 200), 0.014)) > 0
