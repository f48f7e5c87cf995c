"""The MobileNet-like wiring's edges: budgets, kinds, nodes on a path, counts, and requests that are refused."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph
from hiddennet.nn.edge_rules import KINDS

STAGES = ((3, 5, 1, 1), (5, 4, 2, 3), (4, 6, 2, 2))


def tiny(**options):
    torch.manual_seed(3)
    options = {"num_classes": 4, "in_channels": 2, "image_size": 12, "stages": STAGES, "width": 0.7, **options}
    return MobileNetGraph(MobileNetConfig(**options))


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (0.225, (104, 1_245, 4_977, 72_991, 79_627)),
        (0.15, (47, 553, 2_212, 32_441, 35_390)),
        (0.3, (185, 2_212, 8_848, 129_762, 141_558)),
        (0.49, (492, 5_901, 23_603, 346_175, 377_645)),
        (0.51, (533, 6_393, 25_569, 375_011, 409_102)),
    ],
)
def test_budgets_are_the_papers(width, kept):
    for compat in (False, True):
        config = MobileNetConfig(width=width, compat=compat)
        assert tuple(config.stage_edges(i) for i in range(5)) == kept
    small = MobileNetConfig(width=width, compat=True, small=True)
    assert small.classifier_edges == 1_024_000 - int(round(1 - width, 10) * 1_024_000)


def test_widths_are_decimals():
    for width in (0.7, 0.1, 0.29, 1 - 0.775, 1 - 0.9):  # some of whose complements in binary are not the decimal ones
        assert MobileNetConfig(width=width).classifier_rate == float(f"{1 - width:.6g}")
    whole = MobileNetConfig(width=1.0)
    assert [whole.stage_edges(i) for i in range(5)] == [2048, 24_576, 98_304, 1_441_792, 1_572_864]
    assert [stage.usable for stage in whole.stages] == [2_048, 32_768, 131_072, 4_718_592, 2_097_152]
    assert [stage.positions for stage in whole.stages] == [2_048, 49_152, 196_608, 8_650_752, 3_145_728]


@pytest.mark.parametrize("kind", KINDS)
def test_edges_of_every_kind(kind):
    model = tiny(kind=kind, small=True)
    graphs = hn.nn.wirings(model)
    assert list(graphs) == ["layers.0.graph", "layers.1.graph", "layers.2.graph", "linear.graph"]
    for i, (stage, layer) in enumerate(zip(model.config.stages, model.layers, strict=True)):
        kept = layer.graph.mask()
        assert torch.equal(kept & layer.graph.usable, kept)
        if kind == "complete":
            assert int(kept.sum()) == stage.usable
        elif kind == "regular_targeted_dropout":
            of_each = -(-model.config.stage_edges(i) // stage.destinations)
            assert torch.equal(kept.sum(1), layer.graph.usable.sum(1).clamp(max=of_each))
        else:
            assert int(kept.sum()) == model.config.stage_edges(i)
    if kind == "complete":
        return
    assert int(model.linear.graph.mask().sum()) == -(-24 * 7 // 10) if kind != "regular_targeted_dropout" else True


def test_random_edges_have_a_seed_and_differ_between_stages():
    stages = ((4, 4, 1, 2), (4, 4, 1, 2))
    masks = [tiny(kind="random", seed=s, stages=stages).layers[0].graph.chosen for s in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    model = tiny(kind="random", stages=stages)
    assert not torch.equal(model.layers[0].graph.chosen, model.layers[1].graph.chosen)


def test_compat_keeps_edges_that_are_never_run():
    model = tiny(compat=True)
    assert any((layer.graph.mask() & ~layer.graph.usable).any() for layer in model.layers)
    found = model.counts()
    assert found["running"] < found["edges"]
    random = tiny(kind="random", compat=True)  # whose original keeps usable ones alone
    assert random.counts()["running"] == random.counts()["edges"]
    assert [layer.graph.edges for layer in random.layers] == [random.config.stage_edges(i) for i in range(3)]


def closure(model):
    """Nodes on a path from the input to a logit, by powers of the whole network's adjacency matrix; edges between."""
    stages = model.config.stages
    first, total = [0], 1  # node 0 is the input
    for stage in stages:
        first.append(total)
        total += stage.sources
    features, last = total, total + stages[-1].outputs
    adjacency = torch.zeros(last + 1, last + 1)
    adjacency[1 : 1 + stages[0].inputs, 0] = 1
    for i, (stage, layer) in enumerate(zip(stages, model.layers, strict=True)):
        begin, after = first[i + 1], first[i + 2] if i + 1 < len(stages) else features
        rows = [*range(begin + stage.inputs, begin + stage.sources), *range(after, after + stage.outputs)]
        adjacency[torch.tensor(rows), begin : begin + stage.sources] = layer.graph.running().float()
    linear = model.linear.graph.running().any(0) if model.config.small else torch.ones(stages[-1].outputs)
    adjacency[last, features:last] = linear.float()
    reach = torch.eye(last + 1)
    for _ in range(total):
        reach = (reach + adjacency @ reach).clamp(max=1)
    alive = (reach[:, 0] > 0) & (reach[last] > 0)
    return alive[1:last], adjacency[1:last, 1:last][alive[1:last]][:, alive[1:last]].sum()


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("width", [0.3, 0.45, 0.9])
def test_alive_nodes_and_counts(width, compat, small):
    model = tiny(width=width, compat=compat, small=small)
    alive = torch.cat(model.alive_nodes())
    nodes, edges = closure(model)
    assert torch.equal(alive, nodes)
    found = model.counts()
    assert found["alive"] == int(alive.sum()) and found["nodes"] == len(alive)
    stem, features = int(alive[:3].sum()), alive[-6:]
    linear = int(features.sum()) * 4 + 4
    if small:
        linear = int(model.linear.graph.running()[:, features].sum())
    assert found["effective"] == 18 * stem + 9 * int(alive[:-6].sum()) + int(edges) + linear


def test_counts_of_a_whole_network():
    model = tiny(kind="complete")
    found = model.counts()
    usable = [stage.usable for stage in model.config.stages]
    nodes = [stage.sources for stage in model.config.stages]
    assert found["edges"] == found["running"] == sum(usable)
    assert found["alive"] == found["nodes"] == sum(nodes) + 6
    assert found["effective"] == 9 * 2 * 3 + 9 * sum(nodes) + sum(usable) + 6 * 4 + 4
    sides = (12, 6, 3)
    passes = sum((9 * n + e) * s**2 for n, e, s in zip(nodes, usable, sides, strict=True))
    assert found["macs"] == 9 * 2 * 3 * 144 + passes + 24


def chosen(model, **edges):
    """The model with only these edges (row, column) of each stage, given as stage0=..., or of the classifier."""
    for name, pairs in edges.items():
        graph = model.linear.graph if name == "linear" else model.layers[int(name[-1])].graph
        graph.chosen = torch.zeros_like(graph.weight, dtype=torch.bool)
        for row, column in pairs:
            graph.chosen[row, column] = True
    return model


def test_a_network_without_a_path_names_its_wiring():
    through = {"stage0": [(2, 1)], "stage1": [(0, 2), (4, 5), (8, 9)], "stage2": [(1, 0), (7, 5)]}
    model = chosen(tiny(kind="random", small=True), **through, linear=[(3, 1)])
    model.check_paths()
    assert model.counts()["alive"] == 1 + 3 + 2 + 1
    for name, broken, wiring in (
        ("stage0", [], "layers.0.graph"),
        ("stage1", [(0, 2), (4, 6), (8, 9)], "layers.1.graph"),
        ("stage2", [(1, 1), (7, 5)], "layers.2.graph"),
        ("linear", [(3, 0)], "linear.graph"),
    ):
        model = chosen(tiny(kind="random", small=True), **{**through, "linear": [(3, 1)], name: broken})
        with pytest.raises(ValueError, match=f"expected a path .*{len(broken)} edges of wiring '{wiring}'"):
            model.check_paths()
        assert model.counts()["alive"] == 0


def test_random_edges_without_a_path_are_refused_when_drawn():
    with pytest.raises(ValueError, match="MobileNetGraph: expected a path from the input to the output"):
        tiny(kind="random", width=0.01)
    assert tiny(kind="dnw", width=0.01).counts()["alive"] >= 0  # can still find one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": -0.1}, "expected width to be a number of at least 0"),
        ({"width": 1.2}, "expected a width of at most 1, at which wiring 'layers.0.graph' keeps every usable edge"),
        ({"width": float("nan")}, "expected width to be a number"),
        ({"kind": "all"}, "expected kind to be one of"),
        ({"stages": ()}, "expected at least one stage"),
        ({"stages": ((3, 5, 1, 1), (4, 6, 1, 1))}, r"expected stages\[1\] to have 5 inputs"),
        ({"stages": ((3, 0, 1, 1),)}, r"expected stages\[0\] outputs to be a whole number of at least 1, got 0"),
        ({"num_classes": 0}, "expected num_classes to be a whole number"),
        ({"image_size": 2.5}, "expected image_size to be a whole number"),
        ({"drop": 0.5}, "expected no drop for kind 'dnw'"),
        ({"kind": "targeted_dropout", "drop": 1.5}, "expected drop to be a probability"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize("kind", ["complete", "dnw", "random"])
def test_nothing_is_drawn_on_the_meta_device(kind):
    with torch.device("meta"):
        model = MobileNetGraph(MobileNetConfig(kind=kind, image_size=32, num_classes=10))
        assert sum(p.numel() for p in model.parameters()) == 12_112_010
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    kept = [layer.graph.edges for layer in model.layers]
    whole = [stage.usable for stage in model.config.stages]
    assert kept == (whole if kind == "complete" else [104, 1_245, 4_977, 72_991, 79_627])
