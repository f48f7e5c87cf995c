"""The graph networks' experiments (Wortsman et al., NeurIPS 2019) as the configs have them."""

from __future__ import annotations

import pytest

from hiddennet import config
from hiddennet.nn import wirings
from hiddennet.train.build import build_model
from tests.configs.shipped import configs, points_of

SINGLES = [name for name in configs("papers/dnw/") if name not in configs("papers/dnw/sparse_resnet/")]
GRAPHS = [name for name in SINGLES if name != "mobilenet-cifar10-width-0.25"]
# kept edges of each stage, by width: what the original's profiler counts at the start
KEPT = {
    0.225: [104, 1245, 4977, 72_991, 79_627],
    0.15: [47, 553, 2212, 32_441, 35_390],
    0.3: [185, 2212, 8848, 129_762, 141_558],
    0.49: [492, 5901, 23_603, 346_175, 377_645],
    0.51: [533, 6393, 25_569, 375_011, 409_102],
}
CLASSIFIER = {0.225: 230_400, 0.15: 153_600}


def test_all_apps_are_there():
    assert len([name for name in SINGLES if "0.51" not in name]) == 22


@pytest.mark.parametrize("name", SINGLES)
def test_recipes(name):
    found = config.load(name)
    optimizer, schedule, train = found.optimizer, found.schedule, found.train
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.1, 0.9, False)
    assert optimizer.batch_norm_decay and train.selection == "test" and train.label_smoothing == 0.0
    if "imagenet" in name:
        assert (found.data.name, found.data.batch_size, train.epochs) == ("imagenet", 512, 250)
        assert optimizer.weight_decay == 5e-5 and (schedule.name, schedule.by) == ("cosine", "iteration")
    elif "mobilenet" in name:
        assert (found.data.name, found.data.batch_size, train.epochs) == ("cifar10", 128, 160)
        assert optimizer.weight_decay == 1e-4 and (schedule.name, schedule.by) == ("cosine", "iteration")
    else:
        assert (found.data.name, found.data.batch_size, train.epochs) == ("cifar10", 512, 160)
        assert optimizer.weight_decay == 1e-4
        assert (schedule.name, schedule.milestones, schedule.gamma) == ("multistep", [80, 120], 0.1)


@pytest.mark.parametrize("name", [name for name in GRAPHS if "mobilenet" not in name])
def test_small_graphs(name):
    found = config.load(name, ["seed=1"])
    model, _ = build_model(found, 10, 3, 32)
    assert model.graph.edges == 32_000 and model.nodes == 800
    assert model.graph.kind == ("random" if "random" in name else "dnw")
    assert model.counts()["stored"] == 651_058 and model.counts()["effective"] == 41_458
    assert model.counts()["running"] == 32_000  # the original's static graph runs some 13 000 of them


def test_edges_of_mobilenets_are_the_original_s_in_number():
    """Its counts but for the edges it spends on positions that are never run."""
    for name in ("wiring-width-0.225", "wiring-small-width-0.15"):
        found = config.load(f"mobilenet-imagenet-{name}")
        model, _ = build_model(found, 1000, 3, 224)
        counted = [graph.edges for graph in wirings(model).values()]
        width = found.model.width
        assert counted == KEPT[width] + ([CLASSIFIER[width]] if "small" in name else [])
        assert all(graph.running().sum() == graph.edges for graph in wirings(model).values())


def test_widths_and_kinds():
    for name in GRAPHS:
        found = config.load(name)
        if "width" in name:
            assert found.model.width == float(name.rpartition("-width-")[2])
            assert found.model.width in KEPT
        small = found.model.graph is not None and found.model.graph.small
        assert small == ("-small-width" in name)
    dropped = config.load("mobilenet-cifar10-targeted-dropout-width-0.225").method
    assert (dropped.kind, dropped.drop) == ("targeted_dropout", 0.95)
    assert config.load("mobilenet-cifar10-regular-targeted-dropout-width-0.225").method.drop == 0.95
    tuned, ticket = (config.load(f"mobilenet-cifar10-{n}-width-0.225").method for n in ("fine-tune", "lottery"))
    assert (tuned.kind, tuned.rewind, tuned.fine_tune.optimizer.lr) == ("complete", False, 0.01)
    assert (ticket.kind, ticket.rewind, ticket.fine_tune.optimizer.lr) == ("complete", True, 0.1)
    assert tuned.fine_tune.schedule.by == ticket.fine_tune.schedule.by == "iteration"
    plain = config.load("mobilenet-cifar10-width-0.25")
    assert (plain.model.name, plain.method.name, plain.model.width) == ("mobilenet_v1", "dense", 0.25)
    model, _ = build_model(plain, 10, 3, 32)
    assert sum(p.numel() for p in model.parameters()) == 215_642


def test_sweeps():
    kinds = [point.config.method.kind for point in points_of("small-cifar10-wirings")]
    assert kinds.count("dnw") == kinds.count("random") == 15
    rates = [point.config.method.fine_tune.optimizer.lr for point in points_of("mobilenet-cifar10-fine-tune-rates")]
    assert rates == [0.001, 0.01, 0.1]
