"""peek_a_boo: signs learn, magnitudes and masks do not; what the driver keeps and refuses."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet import artifact, optim
from hiddennet.config import ConfigError
from hiddennet.train import checkpoint, experiment
from hiddennet.train.folder import RunFolder

SMALL = {"name": "digits_conv", "width": 0.25}
PSG = {"input_bits": 8, "gradient_bits": 16}


@pytest.mark.parametrize("psg", [None, PSG])
def test_only_signs_of_revealed_weights_change(begun, psg):
    run = begun("peek_a_boo", pruner="synflow", iterations=4, density=0.4, psg=psg, adaptivity_rate=0.1)
    layers = hn.hidden_layers(run.model)
    first = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    losses = run.steps(30)
    assert losses[-1] < losses[0]
    flips = 0
    for name, layer in layers.items():
        assert torch.equal(layer.weight.abs(), first[name].abs())
        changed = layer.weight != first[name]
        assert not changed[~layer.mask()].any()
        flips += int(changed.sum())
    assert flips > 0
    assert sum(run.method._total_flips(run.model).values()) >= flips


@pytest.mark.parametrize("learn", ["flipping", "pruning", "ternary"])
@pytest.mark.parametrize("psg", [None, {**PSG, "sign": True, "threshold": 0.0}])
def test_latent_scores_learn_and_the_artifact_computes_the_same(begun, learn, psg, tmp_path):
    run = begun("peek_a_boo", pruner="magnitude", density=0.5, learn=learn, psg=psg)
    layers = {n: m for n, m in hn.hidden_layers(run.model).items() if isinstance(m.source, hn.Activated)}
    first = {name: layer.latent.detach().clone() for name, layer in layers.items()}
    drawn = {name: layer.drawn.clone() for name, layer in layers.items()}
    losses = run.steps(30)
    assert losses[-1] < losses[0] and layers
    for name, layer in layers.items():
        pruned = ~hn.ops.unpack_mask(layer.mask_bits, layer.weight_shape)
        t = layer.latent.detach()
        assert not torch.equal(t, first[name]) and torch.equal(layer.drawn, drawn[name])
        decayed = first[name] * (1 - 0.1 * 1e-4) ** 30
        assert torch.allclose(t[pruned], decayed[pruned], rtol=1e-2, atol=1e-4)
        if learn == "ternary":
            value = (t > layer.high).float() - (t < layer.low).float()
        else:
            value = t.sign() if learn == "flipping" else (t > 0).float()
        expected = torch.where(pruned, torch.zeros(()), drawn[name] * value)
        assert torch.equal(layer.effective_weight(), expected)
        assert torch.equal(layer.mask(), expected != 0)
    run.model.eval()
    hn.export(run.model, tmp_path / "net.safetensors")
    found = artifact.load(tmp_path / "net.safetensors")
    assert torch.equal(found(run.images), run.model(run.images))


def test_the_original_trains_linear_layers_of_its_networks(begun):
    run = begun("peek_a_boo", density=0.5, pruner="magnitude", model={"name": "resnet18", "width": 0.05})
    layers = hn.hidden_layers(run.model)
    kinds = {name: type(layer.source) for name, layer in layers.items()}
    assert {kind for name, kind in kinds.items() if isinstance(layers[name], torch.nn.Linear)} == {hn.Stored}
    assert {kind for name, kind in kinds.items() if not isinstance(layers[name], torch.nn.Linear)} == {hn.Flipped}
    assert isinstance(run.engine.optimizer, optim.Several)
    own = {id(p) for p in run.engine.learning_parameters()}
    assert own == {id(p) for p in run.model.parameters() if p.requires_grad}
    assert run.engine.scale_learning_rates(2.5) == 0.25
    assert "lr" not in run.engine.optimizer.param_groups[0]
    assert run.engine.optimizer.param_groups[-1]["lr"] == 0.25


def test_what_the_original_leaves_whole(begun):
    run = begun("peek_a_boo", density=0.2, pruner="magnitude", model={"name": "cifar_resnet18", "width": 0.05})
    assert type(run.model.get_submodule(run.model.last_layer)) is not hn.HiddenLinear
    run = begun("peek_a_boo", density=0.2, pruner="magnitude", model={"name": "resnet18", "width": 0.05})
    masks = hn.masks(run.model)
    whole = [name for name in masks if "downsample" in name]
    assert whole and all(masks[name].all() for name in whole)
    assert all(isinstance(run.model.get_submodule(name).source, hn.Flipped) for name in whole)
    model = {"name": "resnet18", "width": 0.05}
    everything = begun("peek_a_boo", density=0.2, pruner="magnitude", layers="all", model=model)
    assert not any(mask.all() for mask in hn.masks(everything.model).values())


@pytest.mark.parametrize(
    "timing, rates", [("after", [1, 1, 1, 0.5, 0.5, 0.5, 0.25]), ("before", [1, 1, 0.5, 0.5, 0.5, 0.25])]
)
def test_the_adaptivity_rate_falls_as_each_original_lets_it(begun, timing, rates):
    run = begun(
        "peek_a_boo",
        adaptivity_rate=0.01,
        adaptivity_decay=0.5,
        adaptivity_interval=3,
        adaptivity_timing=timing,
        pruner=None,
    )
    seen = []
    for epoch in range(len(rates)):
        run.method.on_epoch_start(run.model, epoch)
        seen += {group["adaptivity_rate"] for group in run.method.bop.param_groups}
    assert seen == pytest.approx([0.01 * rate for rate in rates])


def test_a_run_its_checkpoints_and_its_artifact(make):
    settings = make("peek_a_boo", model=SMALL, density=0.3, iterations=5, psg=PSG, adaptivity_rate=0.05)
    record = experiment.run(settings, bar=False)
    folder = RunFolder.of(settings)
    state = checkpoint.load(folder.best)["model"]
    assert not any(key.endswith(".weight") and key.removesuffix("weight") + "signs" in state for key in state)
    network = artifact.load(folder.artifact)
    kept = sum(int(mask.sum()) for mask in hn.masks(network).values())
    size = sum(mask.numel() for mask in hn.masks(network).values())
    assert kept / size == pytest.approx(record["density"]) == pytest.approx(0.3, abs=1e-3)
    for name, layer in hn.hidden_layers(network).items():
        drawn = hn.ops.generate_weight(tuple(layer.weight_shape), "kaiming_normal", seed=0, layer=layer.source.layer)
        assert torch.equal(layer.source_weight().abs()[layer.mask()], drawn.abs()[layer.mask()]), name
    assert record["artifact_bytes"] < 0.12 * record["dense_bytes"]
    row = folder.metrics.read_text().splitlines()[0].split(",")
    assert "flips" in row and "adaptivity_rate" in row


def test_pruning_and_training_as_two_runs(make):
    def settings(**method):
        return make("peek_a_boo", model=SMALL, pruner="snip", density=0.4, adaptivity_rate=0.05, **method)

    experiment.run(settings(stage="prune"), bar=False)
    folder = RunFolder.of(settings(stage="prune")).path
    two = experiment.run(settings(stage="train", subnet=str(folder)), bar=False)
    one = experiment.run(settings(), bar=False)
    for key in ("density", "test_top1", "test_loss", "best_epoch"):
        assert two[key] == one[key]
    assert abs(two["artifact_bytes"] - one["artifact_bytes"]) < 512


@pytest.mark.parametrize(
    "method, said",
    [
        ({"psg": {"input_bits": 0}}, "method.psg"),
        ({"psg": {"input_bits": 20}}, "method.psg"),
        ({"psg": {"sign": True}}, "method.psg.sign: expected false with Bop"),
        ({"adaptivity_rate": 1.0}, "method.adaptivity_rate"),
        ({"adaptivity_rate": 0.0}, "method.adaptivity_rate"),
        ({"flip_threshold": -1.0}, "method.flip_threshold"),
        ({"psg": {"bits": 4}}, "method.psg.bits"),
    ],
)
def test_what_is_refused(make, method, said):
    with pytest.raises(ConfigError, match=said):
        make("peek_a_boo", **method)
