"""Checkpoints of Discovering Neural Wirings: the logits are the original's, and no code of the file runs."""

from __future__ import annotations

import os
import sys
import types
from collections import OrderedDict

import pytest
import torch

import hiddennet as hn
from hiddennet import cli, models
from hiddennet.importers.checkpoint import CheckpointError, Inert, read_checkpoint
from hiddennet.importers.dnw import read
from hiddennet.models import dnw
from hiddennet.nn.wiring import wirings
from tests.golden import Golden
from tests.importers.original_dnw import same_logits, save, small, theirs
from tests.importers.test_import_checkpoint import Payload


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


@pytest.fixture
def train(monkeypatch, tmp_path):
    """A module `train` whose class does harm as soon as it is made, restored or called."""
    module = types.ModuleType("train")

    class ScalarMeter:
        def __init__(self, values):
            self.values = values

        def harm(self, *_):
            (tmp_path / "it_ran").touch()

        __setstate__ = harm

    ScalarMeter.__module__, ScalarMeter.__qualname__ = "train", "ScalarMeter"
    module.ScalarMeter = ScalarMeter
    monkeypatch.setitem(sys.modules, "train", module)
    yield module
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("zipped, layout", [(True, "whole"), (False, "whole"), (True, "best"), (False, "bare")])
@pytest.mark.parametrize("name", ["dnw_static", "dnw_discrete", "dnw_continuous", "dnw_mobilenet"])
def test_networks(tmp_path, train, name, zipped, layout):
    options = {"width": 0.5} if name == "dnw_mobilenet" else {"density": 0.4}
    model = small(name, **options)
    path = save(tmp_path / "in.pt", theirs(model), train, zipped=zipped, layout=layout)
    found = read(path, density=next(iter(options.values())), image_size=16)
    assert type(found) is type(model) and not found.training
    same_logits(found, model)
    assert all(torch.equal(graph.mask(), wirings(model)[n].mask()) for n, graph in wirings(found).items())
    assert found.architecture["name"] == name and found.architecture["graph"]["compat"] is True
    assert set(found.architecture) == {"name", "num_classes", "in_channels", "image_size", "width", "graph"}


KINDS = ["random", "fine_tune", "dnw_no_update", "complete", "targeted_dropout", "regular_targeted_dropout"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["dnw_static", "dnw_discrete", "dnw_mobilenet"])
def test_kinds(tmp_path, name, kind):
    options = {"small": True, "width": 0.5} if name == "dnw_mobilenet" else {"density": 0.4}
    model = small(name, kind=kind, **options)
    if kind == "fine_tune":
        for graph in wirings(model).values():
            graph.freeze()
            graph.weight.data.neg_().add_(0.01)  # the largest are others by now
            graph.forget()
    state = theirs(model)
    if kind == "dnw_no_update":  # the original has a mask there, of all edges
        for key in [key for key in state if key.endswith("graph.weight")]:
            state[key.replace("weight", "mask")] = torch.ones_like(state[key])
    fixed = kind in ("random", "fine_tune")
    asked = "auto" if fixed or kind == "dnw_no_update" else kind
    density = None if fixed or kind == "complete" else 0.5 if name == "dnw_mobilenet" else 0.4
    found = read(save(tmp_path / "in.pt", state), kind=asked, density=density, image_size=16)
    same_logits(found, model)
    if fixed:
        with pytest.raises(CheckpointError, match="masks of all edges for kind 'dnw', got others"):
            read(tmp_path / "in.pt", kind="dnw", density=0.3)
        with pytest.raises(CheckpointError, match=r"no density of dnw_\w+ with fixed edges, got 0.3"):
            read(tmp_path / "in.pt", density=0.3)


def test_a_mask_of_all_edges_that_drew_an_exact_zero(tmp_path):
    """The original's `rand != 0` of 640 000 positions lacks one in four draws of a hundred."""
    torch.manual_seed(0)
    model = dnw.StaticGraph(dnw.StaticConfig(kind="dnw_no_update", density=0.05, nodes=800, compat=True))
    state = theirs(model.eval())
    weight = state["module.graph.weight"]
    lost = int(weight.abs().argmax())
    state["module.graph.mask"] = torch.ones_like(weight)
    state["module.graph.mask"].view(-1)[lost] = 0
    path = save(tmp_path / "in.pt", state)
    for kind in ("auto", "dnw_no_update"):
        found = read(path, kind=kind, density=0.05)
        assert found.config.kind == "dnw_no_update" and found.graph.edges == 32_000
        assert not bool(found.graph.mask().flatten()[lost]) and int(found.graph.mask().sum()) == 32_000
    assert read(path, kind="fine_tune").graph.edges == 639_999
    state["module.graph.mask"].view(-1)[:5000] = 0  # a mask that fixes edges, unless one says otherwise
    path = save(tmp_path / "in.pt", state)
    assert read(path).config.kind == "fine_tune"
    assert read(path, kind="dnw_no_update", density=0.05).graph.edges == 32_000


def test_the_published_size_of_small_graphs_is_the_default(tmp_path):
    torch.manual_seed(0)
    model = dnw.StaticGraph(dnw.StaticConfig(nodes=800, compat=True))
    found = read(save(tmp_path / "in.pt", theirs(model)))
    assert found.config == model.config and found.graph.edges == 32_000
    same_logits(found, model.eval(), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("prefix, density", [("B", 0.4), ("G/p0.3", 0.7), ("G/p0.6", 0.4), ("G/p0.65", 0.35)])
def test_what_the_original_computed(tmp_path, prefix, density):
    golden = Golden("dnw")
    state = {key: torch.as_tensor(value) for key, value in golden.below(f"{prefix}/param/").items()}
    batch, key = torch.as_tensor(golden[f"{prefix}/x"]), "logits_train" if prefix == "B" else "logits_eval"
    want = torch.as_tensor(golden[f"{prefix}/{key}"])
    model = read(save(tmp_path / "in.pt", state, layout="bare"), density=density, image_size=16).double()
    if prefix == "B":
        model.train()
    with torch.no_grad():  # in the file's float32
        torch.testing.assert_close(model(batch), want, rtol=0, atol=2e-5)


def test_a_file_from_a_gpu(tmp_path):
    """Storages of torch.cuda, as training on GPUs leaves them."""
    model = small("dnw_discrete", density=0.4)
    path = save(tmp_path / "in.pt", theirs(model), zipped=False)
    data = path.read_bytes().replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage")
    path.write_bytes(data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    assert b"cuda:0" in path.read_bytes()
    same_logits(read(path, density=0.4), model)


def test_plain_mobilenet(tmp_path):
    torch.manual_seed(1)
    model = models.build("mobilenet_v1", num_classes=10, width=0.25, bias=True).eval()
    found = read(save(tmp_path / "in.pt", OrderedDict((f"module.{k}", v) for k, v in model.state_dict().items())))
    assert found.architecture["width"] == 0.25
    same_logits(found, model, torch.randn(2, 3, 32, 32))


def resnet(width=0.125):
    torch.manual_seed(2)
    return models.build("resnet18", num_classes=7, width=width).eval()


def as_theirs(model):
    """The classifier is a 1x1 convolution."""
    state = OrderedDict((f"module.{key}", value) for key, value in model.state_dict().items())
    state["module.fc.weight"] = state["module.fc.weight"][:, :, None, None]
    return {"epoch": 100, "arch": "resnet18", "state_dict": state, "best_prec1": torch.tensor(74.0), "optimizer": {}}


def prune(model, rate, *, first=True, signed=True):
    """The original's pruning, by a sort of each layer's magnitudes."""
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and (first or name != "conv1"):
            order = layer.weight.data.abs().flatten().sort(stable=True).indices
            layer.weight.data.view(-1)[order[: int(rate * len(order))]] = 0
            layer.weight.data.copy_(layer.weight.data if signed else layer.weight.data.abs())
    return model


@pytest.mark.parametrize(
    "rate, density, options",
    [
        (0.9, 0.1, {}),
        (0.3, 0.7, {"dense_first": True}),
        (0.9, 0.1, {"kind": "targeted_dropout"}),
        (0.0, None, {"kind": "complete"}),
    ],
)
def test_sparse_resnets(tmp_path, rate, density, options):
    model = resnet()
    torch.save(as_theirs(model), tmp_path / "in.pth.tar")
    found = read(tmp_path / "in.pth.tar", density=density, **options)
    signed = options.get("kind") != "targeted_dropout"
    pruned = prune(model, rate, first=not options.get("dense_first"), signed=signed)
    with torch.no_grad():
        batch = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(found(batch), pruned(batch), rtol=1e-5, atol=1e-6)
    kept = {name: int(mask.sum()) for name, mask in hn.masks(found).items()}
    assert kept == {n: int((pruned.get_submodule(n).weight != 0).sum()) for n in kept}
    assert len(kept) == {True: 20 if options.get("dense_first") else 21, False: 0}[density is not None]


def test_a_sparse_resnet_becomes_an_artifact(tmp_path, capsys):
    torch.save(as_theirs(resnet()), tmp_path / "in.pth.tar")
    given = ["import", "dnw", str(tmp_path / "in.pth.tar"), "-o", str(tmp_path / "out"), "--density", "0.2"]
    assert cli.main([*given, "--dense-first"]) == 0
    assert "hidden weights" in capsys.readouterr().out
    found, direct = hn.load(tmp_path / "out"), read(tmp_path / "in.pth.tar", density=0.2, dense_first=True)
    same_logits(found, direct, torch.randn(2, 3, 32, 32))
    header = hn.artifact.read_header(tmp_path / "out")
    imported = header["metadata"]["imported"]
    assert header["method"] == "magnitude_topk" and imported["epoch"] == 100 and imported["best_prec1"] == 74.0
    assert cli.main([*given, "--hidden-act", "none"]) == 1
    assert "expected options of dnw such as --density, got --hidden-act" in capsys.readouterr().err


@pytest.mark.parametrize("zipped", [True, False])
def test_meters_are_left_out_and_code_is_refused(tmp_path, train, zipped):
    path = tmp_path / "in.pt"
    save(path, {"a": torch.ones(2)}, train, zipped=zipped)
    found = read_checkpoint(path, inert=("train.ScalarMeter",))
    assert type(found["meters"]["train"]["CELoss"]) is Inert and vars(found["meters"]["train"]["CELoss"]) == {}
    with pytest.raises(CheckpointError, match=r"it calls train\.ScalarMeter"):
        read_checkpoint(path)
    mark = tmp_path / "it_ran"
    state = {"weight": torch.ones(2)}
    for evil in (Payload(os.mkdir, str(mark)), train.ScalarMeter([Payload(os.system, f"touch {mark}")])):
        torch.save({"model": state, "meters": evil}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"cannot be read safely \(it calls \w+\.(mkdir|system)\)"):
            read(path)


@pytest.mark.parametrize(
    "name, gone, said",
    [
        ("dnw_static", ("norm.2.bias", "conv.weight"), r"2 missing: conv\.weight, norm\.2\.bias"),
        ("dnw_static", ("norm.1.weight",), r"a tensor norm\.1\.weight of 1 dimensions, got none"),
        ("dnw_static", ("graph.weight",), r"a tensor graph\.weight of 4 dimensions, got none"),
        ("dnw_discrete", ("norm.weight",), r"1 missing: norm\.weight"),
        ("dnw_continuous", ("odesolve.odefunc.conv.weight",), r"1 missing: odesolve\.odefunc\.conv\.weight"),
        ("dnw_mobilenet", ("layers.1.graph.weight",), r"a tensor layers\.1\.graph\.weight of 4 dimensions, got none"),
        ("dnw_mobilenet", ("layers.2.norm.1.running_var", "bn.bias"), r"2 missing: bn\.bias, layers\.2\.norm\.1\.run"),
    ],
)
def test_missing_tensors_are_named(tmp_path, name, gone, said):
    state = theirs(small(name), parallel=False)
    for key in gone:
        del state[key]
    with pytest.raises(CheckpointError, match=said) as caught:
        read(save(tmp_path / "in.pt", state), density=0.2)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("import: ")


def test_mistakes_are_one_sentence(tmp_path, capsys):
    path = save(tmp_path / "in.pt", theirs(small("dnw_mobilenet")))
    with pytest.raises(CheckpointError, match="expected a density for a MobileNet-like graph .*, got none"):
        read(path)
    with pytest.raises(CheckpointError, match="expected a checkpoint of dnw_static in .*, got one of dnw_mobilenet"):
        read(path, "dnw_static", density=0.2)
    with pytest.raises(CheckpointError, match="the masks of a random graph, got none"):
        read(path, kind="random", density=0.2)
    with pytest.raises(CheckpointError, match=r"a density in \[0, 1\] \(the kept fraction\), got 2"):
        read(path, density=2)
    with pytest.raises(CheckpointError, match="expected no dense_first for dnw_mobilenet"):
        read(path, density=0.2, dense_first=True)
    torch.save(as_theirs(resnet()), tmp_path / "res")
    with pytest.raises(CheckpointError, match="expected a density for a sparse ResNet"):
        read(tmp_path / "res")
    checkpoint = as_theirs(resnet())
    del checkpoint["state_dict"]["module.layer1.0.bn1.bias"]
    torch.save(checkpoint, tmp_path / "res")
    with pytest.raises(CheckpointError, match=r"1 missing: layer1\.0\.bn1\.bias"):
        read(tmp_path / "res", density=0.2)
    torch.save({"weight": torch.ones(2)}, tmp_path / "other")
    assert cli.main(["import", "dnw", str(tmp_path / "other"), "-o", str(tmp_path / "out")]) == 1
    assert "expected the tensors of one of dnw_static" in capsys.readouterr().err
