"""Counts of wirings, exact on graphs made by hand and against paths found by running the networks."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.analysis import wirings as analysis
from hiddennet.analysis.wirings import dead_nodes, paths, wiring_report
from hiddennet.models.dnw import (
    ContinuousConfig,
    ContinuousGraph,
    DiscreteConfig,
    DiscreteGraph,
    MobileNetConfig,
    MobileNetGraph,
    StaticConfig,
    StaticGraph,
)
from hiddennet.nn.reach import GraphLayout, layouts


def fix(wiring, edges):
    """Keep these edges, (source, row), and no others."""
    chosen = torch.zeros_like(wiring.weight, dtype=torch.bool)
    for source, row in edges:
        chosen[row, source] = True
    wiring.chosen, wiring.edges = chosen, len(edges)
    wiring.forget()


def static(edges, blocks=(2, 3, 3), outputs=2, **options):
    config = StaticConfig(blocks=blocks, outputs=outputs, num_classes=2, stem_channels=2, kind="fine_tune", **options)
    model = StaticGraph(config).eval()
    fix(model.graph, edges)
    return model


def numbers(found):
    return [i for i, alive in enumerate(found.tolist()) if alive]


def kept(edges):
    return {(int(source), int(row)) for row, source in edges.nonzero()}


def test_a_static_graph():
    """Nodes 0, 1 | 2, 3, 4 | 5, 6, 7, of which 6 and 7 are read out."""
    edges = [(0, 2), (2, 6), (3, 6), (1, 4), (1, 5)]  # 3 receives nothing, 4 and 5 send nothing, 7 neither
    model = static(edges, density=0.1)
    (report,) = wiring_report(model, 32)
    found = paths(model)["graph"]
    assert numbers(found.nodes) == [0, 2, 6]
    assert kept(found.edges) == {(0, 2), (2, 6)}
    assert (report.kept, report.running, report.alive) == (5, 5, 2)
    assert (report.nodes, report.dead_nodes, report.usable) == (8, 5, 3 * 2 + 3 * 5 + 2 * 1)
    assert (report.largest_in, report.largest_out) == (2, 2)
    assert report.multiply_adds == 64 * (5 + 9 * 4)  # senders 0 to 3 on maps of 8 x 8
    assert report.alive_multiply_adds == 64 * (2 + 9 * 2)
    assert dead_nodes(model) == 5
    into, out = analysis.degrees(model.graph.running(), layouts(model)["graph"])
    assert into.tolist() == [0, 0, 1, 0, 1, 1, 2, 0] and out.tolist() == [1, 2, 1, 1, 0, 0, 0, 0]


def test_sides_that_do_not_divide_are_rounded_up_as_convolutions_do():
    model = static([(0, 6)])
    assert [layouts(model)["graph"].pixels(n) for n in (16, 17, 18, 21, 32)] == [16, 25, 25, 36, 64]
    assert layouts(model)["graph"].pixels(21) == model.downsample(torch.zeros(2, 3, 21, 21)).shape[-1] ** 2
    assert wiring_report(model)[0].multiply_adds is None  # it takes images of any size


def test_the_lateral_step_sends_what_was_received_before_it():
    """5 receives from 0 and sends to the outputs; output 6 has it only after that step, and does not pass it on."""
    model = static([(0, 5), (5, 6), (6, 7)], lateral=True)
    found = paths(model)["graph"]
    assert numbers(found.nodes) == [0, 5, 6] and kept(found.edges) == {(0, 5), (5, 6)}
    model = static([(0, 6), (6, 7)], lateral=True)
    assert kept(paths(model)["graph"].edges) == {(0, 6), (6, 7)}


def test_edges_that_are_never_run_are_kept_alone():
    model = static([(0, 2), (2, 6), (4, 2), (0, 1)], compat=True)
    (report,) = wiring_report(model, 32)
    assert (report.kept, report.running, report.alive) == (4, 2, 2)


def discrete(edges, steps):
    config = DiscreteConfig(nodes=5, inputs=1, outputs=1, steps=steps, num_classes=2, stem_channels=2, kind="fine_tune")
    model = DiscreteGraph(config).eval()
    fix(model.graph, edges)
    return model


@pytest.mark.parametrize(
    "steps, nodes, edges",
    [
        (1, [], set()),
        (2, [0, 1, 4], {(0, 1), (1, 4)}),
        (3, [0, 1, 2, 4], {(0, 1), (1, 2), (2, 4)}),
        (4, [0, 1, 2, 4], {(0, 1), (1, 4), (1, 2), (2, 1)}),
    ],
)
def test_a_discrete_graph_has_the_paths_of_exactly_its_steps(steps, nodes, edges):
    """0 -> 1 -> 4 takes 2 steps, by way of 2 it takes 3; 1 -> 2 -> 1 goes round in 2; 3 leads nowhere."""
    model = discrete([(0, 1), (1, 4), (1, 2), (2, 4), (2, 1), (1, 3)], steps)
    found = paths(model)["graph"]
    assert numbers(found.nodes) == nodes and kept(found.edges) == edges


def test_multiply_adds_of_steps():
    model = discrete([(0, 1), (1, 4), (1, 2), (2, 4), (2, 1), (1, 3)], 3)
    (report,) = wiring_report(model, 16)
    # first the input sends (1 edge), then all (6 edges of nodes 0, 1, 2), at last the output receives (2 edges)
    assert report.multiply_adds == 16 * ((1 + 9) + (6 + 27) + (2 + 18))
    assert report.alive_multiply_adds == 16 * 3 * (1 + 9)
    assert report.nodes == 5 and report.dead_nodes == 1


def test_a_continuous_graph_has_paths_of_any_length():
    config = ContinuousConfig(nodes=5, inputs=1, outputs=1, num_classes=2, stem_channels=2, kind="fine_tune")
    model = ContinuousGraph(config)
    fix(model.graph, [(0, 1), (1, 2), (2, 1), (2, 4), (3, 3), (3, 4)])
    found, (report,) = paths(model)["graph"], wiring_report(model, 16)
    assert numbers(found.nodes) == [0, 1, 2, 4] and kept(found.edges) == {(0, 1), (1, 2), (2, 1), (2, 4)}
    assert report.multiply_adds == 16 * (6 + 9 * 4) and report.alive_multiply_adds == 16 * (4 + 9 * 3)


STAGES = ((2, 2, 1, 1), (2, 2, 2, 3))


def mobile(small=False, **options):
    config = MobileNetConfig(
        width=0.9, stages=STAGES, image_size=8, num_classes=3, kind="fine_tune", small=small, **options
    )
    return MobileNetGraph(config).eval()


def test_stages_are_one_network():
    """Stage 0: 0 and 1 to its outputs 2 and 3, the inputs 0 and 1 of stage 1 | 2, 3 | 4, 5 | 6, 7; rows from 2 on."""
    model = mobile()
    fix(model.layers[0].graph, [(0, 0), (1, 1)])
    fix(model.layers[1].graph, [(0, 0), (2, 2), (4, 4), (1, 1)])  # 0 -> 2 -> 4 -> 6; 1 -> 3 goes no further
    found = paths(model)
    assert numbers(found["layers.1.graph"].nodes) == [0, 2, 4, 6]
    assert numbers(found["layers.0.graph"].nodes) == [0, 2]
    first, second = wiring_report(model)
    assert (first.nodes, first.dead_nodes, first.alive) == (4, 2, 1)
    assert (second.nodes, second.dead_nodes, second.alive) == (6, 3, 3)  # its inputs are the first one's outputs
    assert first.multiply_adds == 64 * (2 + 9 * 2) and first.alive_multiply_adds == 64 * (1 + 9)
    assert second.multiply_adds == 16 * (4 + 9 * 4) and second.alive_multiply_adds == 16 * (3 + 9 * 3)


def test_the_sparse_classifier_decides_which_outputs_are_of_use():
    model = mobile(small=True)
    fix(model.layers[0].graph, [(0, 0), (1, 1)])
    fix(model.layers[1].graph, [(0, 4), (1, 5)])  # 0 -> 6, 1 -> 7
    fix(model.linear.graph, [(0, 2), (0, 1)])
    found, reports = paths(model), wiring_report(model)
    assert numbers(found["linear.graph"].nodes) == [0, 3, 4]
    assert numbers(found["layers.1.graph"].nodes) == [0, 6]
    assert numbers(found["layers.0.graph"].nodes) == [0, 2]
    assert [report.dead_nodes for report in reports] == [2, 5, 1]
    assert reports[2].multiply_adds == 2 == reports[2].alive_multiply_adds


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dead_nodes_of_random_graphs_have_no_gradient_and_others_have(seed):
    """A node that no input reaches may have one: instance norm makes a constant of it, its shift."""
    torch.manual_seed(seed)
    model = static([], blocks=(3, 6, 6, 6), outputs=4)
    chosen = (torch.rand(21, 21) < 0.08) & model.graph.usable
    model.graph.chosen, model.graph.edges = chosen, int(chosen.count_nonzero())
    for norm in model.norm:
        torch.nn.init.normal_(norm.weight, 1.0, 0.1)
        torch.nn.init.normal_(norm.bias, 0.5, 0.1)
    model.double().train()
    model(torch.randn(4, 3, 16, 16).double()).square().sum().backward()
    found = paths(model)["graph"].nodes
    sends = model.conv.weight.grad.flatten(1).abs().sum(dim=1) > 0
    alive_senders = found[:17]
    reached = torch.zeros(21, dtype=torch.bool)
    reached[:3] = True
    for _ in range(4):
        reached |= (chosen[:, reached]).any(dim=1)
    assert torch.equal(alive_senders, sends[:17] & reached[:17])
    assert 0 < int(found.count_nonzero()) < 21


def test_a_wiring_in_any_other_model_is_sources_and_destinations():
    model = torch.nn.Sequential(hn.nn.Wiring(3, 2, edges=2, kind="fine_tune"))
    fix(model[0], [(0, 0), (2, 0)])
    (report,) = wiring_report(model)
    assert (report.nodes, report.dead_nodes, report.alive, report.multiply_adds) == (5, 2, 2, None)
    assert layouts(torch.nn.ModuleDict({"a": mobile()}))["a.layers.1.graph"].after == "a.layers.0.graph"


def test_text():
    row = analysis.cells(wiring_report(static([(0, 2), (2, 6)]), 32)[0])
    assert len(row) == len(analysis.HEAD) and row[:4] == ("graph", "fine_tune", "23", "2")
    assert GraphLayout(blocks=(1, 1), inputs=1, outputs=1).pixels(8) is None


@pytest.mark.parametrize("small", [False, True])
def test_a_mobilenet_counts_its_own_nodes_and_multiply_adds_alike(small):
    torch.manual_seed(0)
    stages = ((6, 8, 1, 1), (8, 12, 2, 2), (12, 16, 2, 4))
    config = MobileNetConfig(width=0.4, stages=stages, image_size=20, num_classes=4, small=small)
    model = MobileNetGraph(config).eval()
    found, reports, counts = paths(model), wiring_report(model), model.counts()
    features = found["layers.2.graph"].nodes[-16:]
    theirs = model.alive_nodes()
    assert torch.equal(theirs[-1], features)
    for i, alive in enumerate(theirs[:-1]):
        assert torch.equal(alive, found[f"layers.{i}.graph"].nodes[: len(alive)])
    assert sum(report.running for report in reports) == counts["running"]
    first = 27 * int(theirs[0][:6].sum()) * 20**2
    classifier = 0 if small else 4 * int(features.sum())
    assert sum(report.alive_multiply_adds for report in reports) + first + classifier == counts["macs"]
    assert 0 < counts["alive"] < counts["nodes"]
