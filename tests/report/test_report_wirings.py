"""Wirings in the report: pictures that show what is there, counts that are exact, curves where runs have them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiddennet.analysis import layer_report
from hiddennet.files import csv_text, write_text
from hiddennet.models.dnw import (
    DiscreteConfig,
    DiscreteGraph,
    MobileNetConfig,
    MobileNetGraph,
    StaticConfig,
    StaticGraph,
)
from hiddennet.nn.reach import layouts
from hiddennet.report import command, graphs, networks, runs
from hiddennet.report.networks import Network
from tests.report.test_report_page import PNG, read


def image(data: bytes) -> np.ndarray:
    from PIL import Image

    assert data.startswith(PNG)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)


def shares(picture: np.ndarray) -> tuple[float, float]:
    """Fractions of clearly blue and clearly orange pixels."""
    red, blue, alpha = picture[..., 0], picture[..., 2], picture[..., 3]
    return float(((blue > red + 40) & (alpha > 60)).mean()), float(((red > blue + 40) & (alpha > 60)).mean())


def fixed(model, chosen):
    model.graph.chosen, model.graph.edges = chosen, int(chosen.count_nonzero())
    model.graph.forget()
    return model.eval()


def static(**options):
    return StaticGraph(StaticConfig(blocks=(4, 6, 6), outputs=3, stem_channels=2, density=0.2, **options)).eval()


def test_pooling_is_the_mean_of_what_is_there():
    matrix = torch.arange(35.0).view(5, 7)
    found, size = graphs.pooled(matrix, most=3)
    assert size == (2, 3) and found.shape == (3, 3)
    for i in range(3):
        for j in range(3):
            assert found[i, j] == matrix[2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean().item()
    whole, size = graphs.pooled(matrix > 10)
    assert size == (1, 1) and np.array_equal(whole, (matrix > 10).numpy())
    large, size = graphs.pooled(torch.ones(300, 100, dtype=torch.bool), most=200)
    assert size == (2, 1) and (large == 1).all()


def test_the_strongest_edges_are_drawn():
    weight = torch.tensor([[0.1, -0.9, 0.5], [0.7, 0.0, -0.3]])
    running = torch.tensor([[1, 1, 1], [0, 0, 1]]).bool()
    rows, columns, values = graphs.strongest(weight, running, most=3)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert values.tolist() == pytest.approx([-0.9, 0.5, -0.3])


def test_the_matrix_has_sources_as_rows_and_tells_edges_that_never_run():
    shape = (16, 16)
    upper, lower = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    upper[10:, :4] = True  # from the inputs to the last block: run
    lower[:4, 10:] = True  # back: kept, and never run
    run, size = graphs.adjacency(fixed(static(kind="fine_tune", compat=True), upper).graph, layouts(static())["graph"])
    lost, _ = graphs.adjacency(fixed(static(kind="fine_tune", compat=True), lower).graph, layouts(static())["graph"])
    run, lost = image(run), image(lost)
    assert size == (1, 1)
    assert shares(run)[0] == pytest.approx(24 / 256, rel=0.35) and shares(run)[1] == 0
    assert shares(lost)[1] == pytest.approx(24 / 256, rel=0.35) and shares(lost)[0] == 0
    height, width = run.shape[:2]
    assert shares(run[: height // 2, width // 2 :])[0] > 4 * shares(run)[0] * 0.9  # above, on the right


@pytest.mark.parametrize("cyclic", [False, True])
def test_the_graph_says_how_many_edges_it_draws(cyclic):
    model = static()
    if cyclic:
        model = DiscreteGraph(DiscreteConfig(nodes=12, inputs=3, outputs=2, density=0.3, stem_channels=2)).eval()
    layout, alive = layouts(model)["graph"], torch.ones(model.nodes, dtype=torch.bool)
    running = int(model.graph.running().sum())
    whole, drawn = graphs.graph(model.graph, layout, alive)
    assert drawn == running and min(shares(image(whole))) > 0
    few, drawn = graphs.graph(model.graph, layout, ~alive, most=3)
    assert drawn == 3 and sum(shares(image(few))) < sum(shares(image(whole)))
    where = graphs.places(layout)
    assert where.shape == (model.nodes, 2) and len(np.unique(where.round(9), axis=0)) == model.nodes
    if not cyclic:
        assert where[:, 0].tolist() == [0] * 4 + [1] * 6 + [2] * 3 + [2.5] * 3


def test_a_graph_without_edges_is_drawn():
    model = fixed(static(kind="fine_tune"), torch.zeros(16, 16, dtype=torch.bool))
    picture, drawn = graphs.graph(model.graph, layouts(model)["graph"], torch.zeros(16, dtype=torch.bool))
    assert drawn == 0 and shares(image(picture)) == (0, 0)
    assert shares(image(graphs.adjacency(model.graph, layouts(model)["graph"])[0])) == (0, 0)


def test_pictures_of_large_wirings_are_small():
    stages = ((32, 64, 1, 1), (64, 200, 2, 6))
    model = MobileNetGraph(MobileNetConfig(stages=stages, num_classes=10, image_size=32)).eval()
    graph, layout = model.layers[1].graph, layouts(model)["layers.1.graph"]
    picture, size = graphs.adjacency(graph, layout)
    assert size == (2, 2) and len(picture) < 150_000
    assert len(graphs.graph(graph, layout, torch.ones(layout.nodes, dtype=torch.bool))[0]) < 400_000


@pytest.fixture
def graph_runs(fake, monkeypatch):
    """Finished runs that look like those of graph networks, of two settings; the networks are made here."""

    def make(model, metrics=True):
        folders = [fake(0.5, seed=seed) for seed in (0, 1)] + [fake(0.6, method={"density": 0.3})]
        for index, folder in enumerate(folders):
            rows = [{"epoch": e, "validation_top1": 0.1 * e, "wiring_running_edges": 50.0 + e} for e in (1, 2)]
            for row in rows if metrics else ():
                row |= {"wiring_dead_nodes": 5.0 - row["epoch"], "wiring_swaps": 7.0 + index}
            if not metrics:
                rows = [{"epoch": row["epoch"], "validation_top1": row["validation_top1"]} for row in rows]
            write_text(folder.metrics, csv_text(rows))
        network = Network("here", model, "digits", {}, 32, "data")
        monkeypatch.setattr(graphs, "is_graph", lambda run: True)
        monkeypatch.setattr(graphs, "of_run", lambda where: network)
        monkeypatch.setattr(networks, "of_run", lambda where: network)
        return folders

    return make


def test_the_page_shows_curves_counts_and_pictures(graph_runs, tmp_path):
    torch.manual_seed(0)
    model = static(kind="fine_tune")
    chosen = torch.zeros(16, 16, dtype=torch.bool)
    chosen[4, 0] = chosen[13, 4] = chosen[14, 5] = True
    graph_runs(fixed(model, chosen))
    path = command.report([str(tmp_path / "runs")], tmp_path / "out", axis="epoch")
    page = read(path)
    text = " ".join(page.text)
    assert text.count("3 edges run, 13 of 16 nodes dead") == 2  # one run of each setting
    names = {file.name for file in (tmp_path / "out").glob("*.png")}
    assert {"wiring_swaps_epoch.png", "wiring_dead_nodes_epoch.png", "wiring_running_edges_epoch.png"} <= names
    assert {"wiring_0_graph_edges.png", "wiring_0_graph_graph.png", "wiring_1_graph_edges.png"} <= names
    assert len(page.asked) == 1 + 3 + 4
    assert "Layers" not in page.text  # which wirings are not


def test_pictures_are_for_the_runs_asked_for(graph_runs, tmp_path, monkeypatch):
    graph_runs(static(), metrics=False)
    none = read(command.report([str(tmp_path / "runs")], tmp_path / "none", axis="epoch", layers="none"))
    assert "Wirings" not in none.text
    both = read(command.report([str(tmp_path / "runs")], tmp_path / "all", axis="epoch", layers="all"))
    assert len(both.asked) == 1 + 3 * 2
    monkeypatch.setattr(graphs, "MOST_PICTURED", 1)
    one = read(command.report([str(tmp_path / "runs")], tmp_path / "one", axis="epoch"))
    assert "Wirings of 1 runs of 2 are shown; report fewer." in one.text


def test_a_run_without_its_network_is_said_to_be_unknown(fake, tmp_path, monkeypatch):
    fake(0.5)
    monkeypatch.setattr(graphs, "is_graph", lambda run: True)
    text = " ".join(read(command.report([str(tmp_path / "runs")], tmp_path / "out", axis="epoch")).text)
    assert "not known: checkpoint: expected a file at" in text


def test_runs_of_other_networks_have_no_such_section(fake, tmp_path):
    (run,) = runs.read_all([str(fake(0.5).path)])[0]
    assert not graphs.is_graph(run)
    assert graphs.is_graph(SimpleNamespace(settings={"model.name": "dnw_static"}))
    text = read(command.report([str(tmp_path / "runs")], tmp_path / "out", axis="epoch")).text
    assert "Wirings" not in text and not list((tmp_path / "out").glob("wiring*"))


def test_layers_of_wirings_are_refused():
    with pytest.raises(ValueError, match="expected convolutions and linear layers, got wirings graph; wiring_report"):
        layer_report(static(), (3, 32, 32))
