"""Methods on what was found before: trained weights, runs, artifacts, sub-networks to fine-tune."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hiddennet as hn
from hiddennet.methods.weights import load_weights, read_weights
from hiddennet.train import evaluate, experiment
from hiddennet.train.build import build_model, build_plain
from hiddennet.train.folder import RunFolder
from hiddennet.train.opened import open_run


def run_of(make, name: str, **options) -> tuple[str, object]:
    """Run a method for an epoch; return its folder and its best model."""
    settings = make(name, **{"train": {"epochs": 1}, **options})
    experiment.run(settings)
    folder = str(RunFolder.of(settings).path)
    return folder, open_run(folder).model


def test_edge_popup_on_the_weights_of_a_run(make, trained):
    folder, dense = run_of(make, "dense")
    for where in (folder, f"{folder}/checkpoints/best.pt", f"{folder}/artifact.safetensors"):
        run = trained("edge_popup", weights=where)
        before = {name: p.detach().clone() for name, p in dense.named_parameters()}
        losses = run.steps()
        assert losses[-1] < losses[0]
        for name, layer in hn.hidden_layers(run.model).items():
            assert torch.equal(layer.stored, before[f"{name}.weight"]), name
            assert not layer.stored.requires_grad
            want = torch.where(layer.mask(), layer.stored, 0.0)
            assert torch.equal(layer.effective_weight(), want), name
    assert torch.equal(trained("edge_popup", weights=folder).model.bn1.running_var, dense.bn1.running_var)


def test_edge_popup_after_dense_epochs(make):
    settings = make("edge_popup", dense_epochs=1, density=0.3)
    model, method = build_model(settings, 10, 1, 8)
    assert [(stage.name, stage.epochs) for stage in method.stages] == [("dense", 1), ("search", 1)]
    assert not hn.hidden_layers(model)
    learned = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    model.load_state_dict(learned, strict=False)
    method.enter_stage(model, 1)
    for name, layer in hn.hidden_layers(model).items():
        assert torch.equal(layer.stored, learned[f"{name}.weight"])
        assert not layer.stored.requires_grad
        assert layer.scores.requires_grad
    assert method.density(model) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("batch_norm", ["non_affine", "affine"])
@pytest.mark.parametrize("source", ["edge_popup", "sampled"])
def test_fine_tuning_a_subnet(make, trained, batch_norm, source):
    folder, subnet = run_of(make, source, **({"density": 0.3} if source == "edge_popup" else {}))
    run = trained("fine_tune", subnet=folder, lr=0.01, model={"batch_norm": batch_norm})
    old = hn.masks(subnet)
    new = {name: mask.clone() for name, mask in hn.masks(run.model).items()}
    assert old.keys() == new.keys()
    for name, layer in hn.hidden_layers(run.model).items():
        assert torch.equal(new[name], old[name]), name
        revealed = subnet.get_submodule(name).source_weight()[old[name]]
        assert torch.equal(layer.stored[new[name]], revealed), name
    assert torch.equal(run.model.bn1.running_mean, subnet.bn1.running_mean)
    if source == "edge_popup":
        run.model.eval(), subnet.eval()
        if batch_norm != "affine":
            subnet.to(memory_format=torch.channels_last)
            torch.testing.assert_close(run.model(run.images), subnet(run.images), rtol=1e-5, atol=1e-6)
        run.model.train()
    losses = run.steps()
    assert losses[-1] < losses[0]
    for name, layer in hn.hidden_layers(run.model).items():
        assert torch.equal(layer.mask(), new[name]), name
        assert torch.equal(layer.effective_weight() != 0, new[name]), name


def test_a_fine_tuned_run_ends_with_the_subnets_density(make):
    folder, _ = run_of(make, "edge_popup", density=0.3)
    record = experiment.run(make("fine_tune", subnet=folder, lr=0.01, train={"epochs": 1}))
    assert record["density"] == pytest.approx(0.3, abs=0.01)


def test_fine_tune_needs_a_subnet(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"method.subnet: expected an artifact or the folder"):
        build_model(make("fine_tune", subnet=str(tmp_path / "none")), 10, 1, 8)
    dense, _ = run_of(make, "dense")
    with pytest.raises(ValueError, match=r"method.subnet: expected a sub-network in .* no hidden"):
        build_model(make("fine_tune", subnet=dense), 10, 1, 8)
    folder, _ = run_of(make, "edge_popup")
    with pytest.raises(ValueError, match=r"method.subnet: expected conv1.weight of shape \(16, 1"):
        build_model(make("fine_tune", subnet=folder, model={"width": 0.25}), 10, 1, 8)
    affine, _ = run_of(make, "edge_popup", model={"batch_norm": "affine"})
    with pytest.raises(ValueError, match=r"set model.batch_norm=affine"):
        build_model(make("fine_tune", subnet=affine), 10, 1, 8)


def plain(make, **model):
    return build_plain(make("dense", model=model), 10, 1, 8)


def test_state_dicts_of_others(make, tmp_path):
    model = plain(make)
    state = {f"module.{key}": value + 1 for key, value in model.state_dict().items()}
    state["module.fc.weight"] = state["module.fc.weight"][:, :, None, None]  # a 1x1 convolution
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "other.pth")
    want = model.fc.weight.detach() + 1
    assert load_weights(model, str(tmp_path / "other.pth"), open_run) == []
    assert torch.equal(model.fc.weight, want)


def test_weights_that_do_not_fit_are_refused(make, tmp_path):
    def saved(state: dict) -> str:
        torch.save(state, tmp_path / "weights.pth")
        return str(tmp_path / "weights.pth")

    state = plain(make).state_dict()
    without = {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}
    with pytest.raises(ValueError, match=r"method.weights: expected layer1.0.conv1.weight in .* none"):
        load_weights(plain(make), saved(without), open_run)
    with pytest.raises(ValueError, match=r"expected conv1.weight of shape \(16, 1, 3, 3\), got \(8"):
        load_weights(plain(make, width=0.25), saved(state), open_run)
    affine = plain(make, batch_norm="affine").state_dict()
    with pytest.raises(ValueError, match=r"model.batch_norm=affine"):
        load_weights(plain(make), saved(affine), open_run)
    with pytest.raises(ValueError, match=r"expected a state dict in .*, got no tensors"):
        load_weights(plain(make), saved({"epoch": 3}), open_run)
    with pytest.raises(FileNotFoundError, match=r"method.weights: expected a checkpoint, a run"):
        read_weights(str(tmp_path / "none.pth"), "method.weights", open_run)


def test_a_classifier_for_other_classes_keeps_its_own_weights(make, tmp_path):
    state = build_plain(make("dense"), 7, 1, 8).state_dict()
    state["fc.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "weights.pth")
    model = plain(make)
    own = model.fc.weight.detach().clone()
    notes = load_weights(model, str(tmp_path / "weights.pth"), open_run)
    assert len(notes) == 2
    assert notes[0].startswith("fc.weight keeps its own weights")
    assert notes[1].startswith("fc.bias of ")
    assert torch.equal(model.fc.weight, own)
    assert torch.equal(model.conv1.weight, state["conv1.weight"])


def test_torchvisions_weights(make, monkeypatch):
    """torchvision's ResNet-18 has our names; the download is replaced by its random weights."""
    import torchvision

    theirs = torchvision.models.resnet18(weights=None)
    weights = torchvision.models.get_model_weights("resnet18")
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: theirs.state_dict())
    settings = make(
        "edge_popup",
        model={"name": "resnet18", "width": 1.0, "batch_norm": "affine"},
        weights="torchvision:resnet18",
    )
    model, method = build_model(settings, 1000, 3, 32)
    assert method.notes == ["fc.bias of torchvision:resnet18 is left out: the model has no biases"]
    layer = hn.hidden_layers(model)["layer4.1.conv2"]
    assert torch.equal(layer.stored, theirs.layer4[1].conv2.weight)
    assert torch.equal(model.bn1.weight, theirs.bn1.weight)


def test_torchvision_without_a_network_says_where_the_file_goes(monkeypatch):
    import torchvision

    def offline(*_, **__):
        raise OSError("no route")

    weights = torchvision.models.get_model_weights("resnet18")
    monkeypatch.setattr(weights, "get_state_dict", offline)
    with pytest.raises(ValueError, match=r"expected torchvision's weights of resnet18 in .*no route"):
        read_weights("torchvision:resnet18", "method.weights", open_run)
    with pytest.raises(ValueError, match="expected a classification model of torchvision, got 'x'"):
        read_weights("torchvision:x", "method.weights", open_run)


def test_a_stage_of_a_run_is_opened_by_its_name(make, trained, tmp_path):
    """Of dense, search and fine_tune: weights after the first, a sub-network after the second, all three evaluated."""
    settings = make("edge_popup", dense_epochs=1, fine_tune={"epochs": 1, "optimizer": {"lr": 0.01}})
    record = experiment.run(settings)
    folder = str(RunFolder.of(settings).path)
    dense, search = (open_run(f"{folder}@{stage}") for stage in ("dense", "search"))
    assert (dense.stage, search.stage, open_run(f"{folder}@stage_1").stage) == ("dense", "search", "search")
    assert not hn.hidden_layers(dense.model) and hn.hidden_layers(search.model)

    frozen = trained("edge_popup", weights=f"{folder}@dense")
    for name, layer in hn.hidden_layers(frozen.model).items():
        assert torch.equal(layer.stored, dense.model.get_submodule(name).weight), name
    tuned = trained("fine_tune", subnet=f"{folder}@search", lr=0.01)
    for name, mask in hn.masks(tuned.model).items():
        assert torch.equal(mask, hn.masks(search.model)[name]), name

    tops = [evaluate.evaluate(f"{folder}@{stage['name']}")["scores"].top1 for stage in record["stages"]]
    assert tops == pytest.approx([stage["test_top1"] for stage in record["stages"]])
    path = evaluate.export(f"{folder}@search", str(tmp_path / "search.safetensors"))
    assert evaluate.evaluate(str(path))["scores"].top1 == pytest.approx(tops[1])
    with pytest.raises(ValueError, match="export: expected a file to write the end of a stage to"):
        evaluate.export(f"{folder}@search")
    with pytest.raises(
        ValueError, match=r"method.weights: expected a stage of the run after '@' \(dense, search, fine"
    ):
        build_model(make("edge_popup", weights=f"{folder}@serch"), 10, 1, 8)
    assert open_run(str(tmp_path / "nowhere")) is None


def test_a_run_that_is_not_finished_is_no_subnet_yet(make):
    folder, _ = run_of(make, "edge_popup")
    record = RunFolder(Path(folder)).record
    record.write_text(record.read_text().replace('"finished"', '"begun"'))
    with pytest.raises(FileNotFoundError, match="expected an artifact or the folder of a finished run"):
        build_model(make("fine_tune", subnet=folder), 10, 1, 8)
    assert not open_run(folder).finished
