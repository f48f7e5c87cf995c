"""dnw: which edges a graph network keeps and which learn; stages, hand-over, artifacts, refusals."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet import artifact, cli, config
from hiddennet.config import ConfigError
from hiddennet.nn import wirings
from hiddennet.train import checkpoint, evaluate, experiment, opened
from hiddennet.train.build import build_model
from hiddennet.train.folder import RunFolder

STATIC = {"name": "dnw_static", "batch_norm": "affine", "graph": {"blocks": [8, 16, 20], "outputs": 10}}
DISCRETE = {"name": "dnw_discrete", "graph": {"nodes": 40, "inputs": 8, "outputs": 10, "steps": 2}}
CONTINUOUS = {
    "name": "dnw_continuous",
    "graph": {"nodes": 30, "inputs": 8, "outputs": 10, "solver": "original", "tolerance": 0.1},
}
MOBILENET = {"name": "dnw_mobilenet", "width": 0.6, "graph": {"stages": [[8, 12, 1, 1], [12, 16, 2, 3]]}}
NETWORKS = {"static": STATIC, "discrete": DISCRETE, "continuous": CONTINUOUS, "mobilenet": MOBILENET}
KINDS = {
    "dnw": {},
    "random": {},
    "dnw_no_update": {},
    "complete": {},
    "targeted_dropout": {"drop": 0.7},
    "regular_targeted_dropout": {},
}


@pytest.fixture
def settings(tmp_path):
    def build(model=STATIC, *, lr=0.05, train=None, **method):
        if model is not MOBILENET and "density" not in method:
            method["density"] = 0.2
        return config.parse(
            {
                "name": "small",
                "runs": str(tmp_path / "runs"),
                "model": model,
                "data": {"name": "digits", "batch_size": 32, "limit": 200, "image_size": 16},
                "method": {"name": "dnw", **method},
                "optimizer": {"lr": lr},
                "train": {"epochs": 2, "device": "cpu", **(train or {})},
            }
        )

    return build


def images():
    return torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def steps(model, count=12, lr=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    labels, losses = torch.arange(16) % 10, []
    for _ in range(count):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.train()(images()), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def built(settings):
    return build_model(settings, 10, 1, 16)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_its_artifact_computes_the_same(settings, tmp_path, network, kind):
    model, _ = built(settings(NETWORKS[network], kind=kind, **KINDS[kind]))
    losses = steps(model)
    assert losses[-1] < losses[0]
    model.eval()
    with torch.no_grad():
        want = model(images())
    hn.export(model, tmp_path / "net.safetensors")
    found = artifact.load(tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(found(images()), want)
    for name, graph in wirings(model).items():
        assert torch.equal(wirings(found)[name].mask(), graph.mask())
    assert hn.density(found) == hn.density(model)


def test_unkept_edges_learn_only_where_the_kind_says_so(settings):
    for kind, learns in (("dnw", True), ("random", False), ("dnw_no_update", False)):
        model, _ = built(settings(kind=kind))
        graph = model.graph
        first, mask = graph.weight.detach().clone(), graph.mask()
        steps(model, 1)
        changed = (graph.weight != first) & graph.usable
        assert bool((changed & ~mask).any()) == learns
        assert bool((changed & mask).any())


def test_all_kinds_begin_with_the_same_weights(settings):
    models = [built(settings(kind=kind, **options))[0] for kind, options in KINDS.items()]
    for other in models[1:]:
        for (name, a), b in zip(models[0].named_parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b), name
    moved, _ = built(settings().model_copy(update={"seed": 1}))
    assert not torch.equal(moved.graph.weight, models[0].graph.weight)


@pytest.mark.parametrize("rewind", [False, True])
def test_a_complete_graph_is_trained_on_along_its_largest_edges(settings, rewind):
    options = settings(MOBILENET, kind="complete", fine_tune={"epochs": 1}, rewind=rewind)
    experiment.run(options)
    folder = RunFolder.of(options)
    drawn = checkpoint.load(folder.first)["model"]
    found, ended = checkpoint.load(folder.stage(0)), checkpoint.load(folder.last)
    graph = "layers.1.graph"
    model = opened.restore(options, found)[0]
    twin = opened.restore(options, ended)[0]
    wanted = wirings(model)[graph].weight.detach().abs().masked_fill(~wirings(twin)[graph].usable, -1)
    kept = wirings(twin)[graph].mask()
    assert int(kept.count_nonzero()) == wirings(twin)[graph].edges == ended["model"][f"{graph}.chosen"].sum()
    assert wanted[kept].min() >= wanted[~kept].max()
    off = ended["model"][f"{graph}.weight"][~kept & wirings(twin)[graph].usable]
    start = (drawn if rewind else found["model"])[f"{graph}.weight"][~kept & wirings(twin)[graph].usable]
    assert torch.allclose(off, start, rtol=1e-2)  # they only decay
    record = folder.read_record()
    assert [stage["name"] for stage in record["stages"]] == ["train", "fine_tune"]
    assert record["density"] == hn.density(twin) < record["stages"][0]["density"]


@pytest.mark.parametrize("weights", ["found", "drawn"])
@pytest.mark.parametrize("where", ["run", "artifact"])
def test_edges_of_another_run(settings, weights, where):
    before = settings(kind="complete")
    experiment.run(before)
    folder = RunFolder.of(before)
    trained = opened.restore(before, checkpoint.load(folder.best))[0]
    path = folder.path if where == "run" else folder.artifact
    model, _ = built(settings(kind="fine_tune", graph_from=str(path), weights=weights))
    wanted = trained.graph.weight.detach().abs().masked_fill(~model.graph.usable, -1)
    kept = model.graph.mask()
    assert int(kept.sum()) == model.graph.edges == 44 * 44 - int(0.8 * 44 * 44)
    assert wanted[kept].min() >= wanted[~kept].max()
    drawn, _ = built(settings(kind="complete"))
    expected = trained if weights == "found" else drawn
    assert torch.equal(model.graph.effective_weight(), expected.graph.weight * kept)
    assert torch.equal(model.fc.weight, expected.fc.weight)


def test_swaps_and_edges_of_each_epoch(settings):
    model, method = built(settings())
    assert method.begin(model) == []
    first = model.graph.mask()
    steps(model, 3)
    found = method.on_epoch_end(model, 0)
    entered = int((model.graph.mask() & ~first).sum())
    assert entered > 0
    assert found["wiring_swaps"] == found["wiring_swaps/graph"] == entered
    assert found["wiring_running_edges"] == model.graph.edges == int(model.graph.running().sum())
    assert method.on_epoch_end(model, 1)["wiring_swaps"] == 0
    kept = method.state()
    model.graph.weight.data.neg_().add_(0.5)
    model.graph.forget()
    other = built(settings())[1]
    other.restore(kept)
    assert other.on_epoch_end(model, 2) == method.on_epoch_end(model, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": {"name": "digits_mlp"}}, "expected one of dnw_static, .* with dnw, got 'digits_mlp'"),
        ({"model": MOBILENET, "density": 0.1}, "method.density: expected null with dnw_mobilenet"),
        ({"drop": 0.3}, "method.drop: expected null with kind dnw"),
        ({"kind": "fine_tune"}, "method.graph_from: expected it exactly with kind fine_tune"),
        ({"weights": "drawn"}, "method.weights: expected graph_from"),
        ({"rewind": True}, "method.rewind: expected fine_tune with it"),
        ({"kind": "random", "fine_tune": {}}, "method.fine_tune: expected a kind whose edges are learned"),
        ({"fine_tune": {}, "train": {"epochs": 0}}, "method.fine_tune: expected training of at least one epoch"),
        ({"model": {**STATIC, "graph": {"nodes": 9, "blocks": [4, 4], "outputs": 2}}}, "add up to 9 nodes"),
        ({"model": {**STATIC, "graph": {"steps": 3}}}, "model.graph.steps: expected a key of dnw_static"),
        ({"model": {**STATIC, "graph": {"step": 3}}}, "model.graph.step: expected a key of model.graph"),
        ({"model": {"name": "dnw_mobilenet", "graph": {"stages": [[1, 2, 3]]}}}, "expected a list of at least 4"),
        ({"model": {**STATIC, "width": 2}}, "model.width: expected 1 with dnw_static"),
        ({"model": {"name": "digits_mlp", "graph": {"steps": 3}}}, "model.graph: expected null with digits_mlp"),
    ],
)
def test_configs_that_are_refused(settings, options, said):
    with pytest.raises(ConfigError, match=said):
        settings(**options)


def test_networks_that_are_refused(settings):
    with pytest.raises(ValueError, match=r"number of edges in \[0, 708\], the usable ones, got 1743"):
        built(settings(density=0.9))
    with pytest.raises(ValueError, match="expected a path from its 8 input nodes .* wiring 'graph'"):
        built(settings(kind="random", density=0.001))
    with pytest.raises(FileNotFoundError, match="method.graph_from: expected a checkpoint, a run"):
        built(settings(kind="fine_tune", graph_from="/nowhere"))


def test_the_graph_comes_from_the_same_network(settings):
    before = settings(train={"epochs": 0})
    experiment.run(before)
    smaller = {**STATIC, "graph": {"blocks": [8, 16, 16], "outputs": 10}}
    with pytest.raises(ValueError, match=r"method.graph_from: expected conv.weight of shape \(40, 1, 3, 3\).* got"):
        built(settings(smaller, kind="fine_tune", graph_from=str(RunFolder.of(before).path)))


def test_an_artifact_has_no_more_edges_than_it_kept(settings):
    before = settings()
    experiment.run(before)
    folder = RunFolder.of(before)
    for name, density in (("run", 0.25), ("artifact", 0.2)):
        path = folder.path if name == "run" else folder.artifact
        model, _ = built(settings(kind="fine_tune", graph_from=str(path), density=density))
        assert model.graph.edges == 44 * 44 - int((1 - density) * 44 * 44)
    with pytest.raises(ValueError, match=r"method.graph_from: expected at least 484 edges of graph in .*, got \d+"):
        built(settings(kind="fine_tune", graph_from=str(folder.artifact), density=0.25))


def test_other_methods_refuse_graphs(settings):
    document = settings().model_dump(mode="json")
    with pytest.raises(ConfigError, match="method.name: expected one of dense, dnw with model.name=dnw_static"):
        config.parse({**document, "method": {"name": "edge_popup"}})
    dense = config.parse({**document, "method": {"name": "dense"}})
    model, _ = built(dense)
    assert model.graph.kind == "complete"


@pytest.mark.parametrize("network", ["static", "discrete", "mobilenet"])
def test_a_run_is_exported_without_its_dead_nodes(settings, tmp_path, capsys, network):
    options = settings(NETWORKS[network], **({} if network == "mobilenet" else {"density": 0.03}))
    record = experiment.run(options)
    folder = RunFolder.of(options).path
    capsys.readouterr()
    assert cli.main(["export", str(folder), "--compact", "-o", str(tmp_path / "compact")]) == 0
    found = evaluate.evaluate(str(tmp_path / "compact"), device="cpu")
    assert found["scores"].top1 == pytest.approx(record["test_top1"])
    assert (tmp_path / "compact").stat().st_size < RunFolder.of(options).artifact.stat().st_size
    model = opened.restore(options, checkpoint.load(RunFolder.of(options).best))[0]
    small = hn.load(tmp_path / "compact")
    with torch.no_grad():
        torch.testing.assert_close(small(images()), model(images()), rtol=1e-4, atol=1e-5)
