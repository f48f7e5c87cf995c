"""Checkpoints of Peek-a-Boo give the logits of the original's forward (see original_peek_a_boo.py)."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet import artifact, cli
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.importers.peek_a_boo import ARCHITECTURES, convert, read
from hiddennet.registry import REGISTRIES
from hiddennet.train.evaluate import evaluate
from tests.importers.original_peek_a_boo import Network, effective, save_cifar, save_imagenet, save_pruned, state_of


def same(model, arch, state, weights):
    """The imported model computes with these weights under these masks, and gives the same logits."""
    layers = hn.hidden_layers(model)
    assert len(layers) == sum(key.endswith(".weight_mask") for key in state)
    assert all(isinstance(layer.rule, hn.Fixed) for layer in layers.values())
    kept = sum(int(mask.sum()) for mask in hn.masks(model).values())
    assert kept == sum(int(mask.sum()) for key, mask in state.items() if key.endswith(".weight_mask"))
    x = torch.randn(2, 3, 64 if arch.islower() else 32, 64 if arch.islower() else 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), Network(arch, state, weights)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "prefix", "width", "parallel"),
    [
        ("Conv4", "Psg", 0.25, False),
        ("Conv6", "", 0.25, True),
        ("ResNet20", "Psg", 1.0, False),
        ("ResNet18", "", 0.25, False),
        ("WideResNet28_10", "Psg", 0.125, False),
        ("VGG11", "", 0.25, True),
        ("VGG11", "Psg", 0.25, False),
    ],
)
def test_cifar(tmp_path, arch, prefix, width, parallel):
    torch.manual_seed(0)
    state = state_of(arch, width=width, psg=bool(prefix))
    path = save_cifar(tmp_path / "ckpt.pth", state, parallel=parallel)
    model = convert(path, prefix + arch, tmp_path / "out")
    same(model, arch, state, effective(state))
    same(hn.load(tmp_path / "out"), arch, state, effective(state))
    header = artifact.read_header(tmp_path / "out")
    assert header["method"] == "peek_a_boo"
    assert header["metadata"]["imported"] == {
        "from": "peek-a-boo",
        "file": "ckpt.pth",
        "arch": prefix + arch,
        "epoch": 179,
        "acc": 92.5,
    }
    assert header["metadata"]["data_options"] == {"normalization": "peek_a_boo_cifar10"}


@pytest.mark.parametrize(("arch", "prefix"), [("resnet18", "psg_"), ("resnet50", "")])
def test_imagenet(tmp_path, arch, prefix):
    torch.manual_seed(0)
    state = state_of(arch, width=0.125, classes=1000, psg=bool(prefix))
    path = save_imagenet(tmp_path / "checkpoint.pth.tar", prefix + arch, state)
    convert(path, None, tmp_path / "out")
    model = hn.load(tmp_path / "out")
    same(model, arch, state, effective(state))
    hidden = hn.hidden_layers(model)
    assert ("layer2.0.downsample.0" in hidden) == bool(prefix) and "fc" in hidden
    imported = artifact.read_header(tmp_path / "out")["metadata"]["imported"]
    assert (imported["arch"], imported["epoch"], imported["best_acc1"]) == (prefix + arch, 100, 70.5)


def test_what_stage_1_writes_is_read_as_the_network_of_stage_2(tmp_path):
    torch.manual_seed(0)
    state = state_of("resnet50", width=0.125, classes=1000)
    path = save_pruned(tmp_path / "pruned_model.pth", state)
    same(read(path, "psg_resnet50"), "resnet50", state, effective(state))
    with pytest.raises(CheckpointError, match=r"expected arch to be one of .* got None"):
        read(path)


@pytest.mark.parametrize("prefix", ["Seed", "PsgSeed"])
def test_seed_layers_are_weights_with_the_signs_of_t(tmp_path, prefix):
    torch.manual_seed(0)
    state = state_of("ResNet20", width=0.5, psg=prefix.startswith("Psg"), seed=True)
    path = save_cifar(tmp_path / "ckpt.pth", state)
    convert(path, f"{prefix}ResNet20", tmp_path / "out")
    same(hn.load(tmp_path / "out"), "ResNet20", state, effective(state))


def test_seed_resnet20_has_skip_paths_without_weights(tmp_path):
    torch.manual_seed(0)
    state = state_of("ResNet20", seed=True)
    state = {key: value for key, value in state.items() if ".shortcut." not in key}
    model = read(save_cifar(tmp_path / "ckpt.pth", state), "SeedResNet20")
    assert model.architecture["name"] == "resnet20"
    same(model, "ResNet20", state, effective(state))


def factor(kind, t):
    low, high = -0.1, 0.1
    return {
        "pruning": (t > 0).float(),
        "flipping": t.sign(),
        "ternary": (t - high).relu().sign() - (low - t).relu().sign(),
        "none": torch.ones_like(t),
    }[kind]


@pytest.mark.parametrize("kind", ["pruning", "flipping", "ternary", "none", "auto"])
def test_activations_of_seed_layers(tmp_path, kind):
    torch.manual_seed(0)
    state = state_of("Conv4", width=0.125, seed=True)
    weights = {}
    for name, shown in effective({key: value for key, value in state.items() if not key.endswith(".t")}).items():
        if kind in ("ternary", "auto"):
            state |= {f"{name}.lo": torch.tensor(-0.1), f"{name}.hi": torch.tensor(0.1)}
        state[f"{name}.scale"] = torch.rand(1, shown.shape[1], 1, 1) + 0.5  # of the input
        state[f"{name}.t"] = state[f"{name}.t"][:, :1].clone()  # shared over inputs
        kept = factor("ternary" if kind == "auto" else kind, state[f"{name}.t"])
        weights[name] = shown * kept * state[f"{name}.scale"]
    path = save_cifar(tmp_path / "ckpt.pth", state)
    same(read(path, "SeedConv4", hidden_act=kind), "Conv4", state, weights)


def test_without_masks_it_is_dense(tmp_path):
    torch.manual_seed(0)
    state = {key: value for key, value in state_of("ResNet20").items() if not key.endswith("_mask")}
    path = save_cifar(tmp_path / "ckpt.pth", state)
    convert(path, "ResNet20", tmp_path / "out")
    assert artifact.read_header(tmp_path / "out")["method"] == "dense"
    same(hn.load(tmp_path / "out"), "ResNet20", state, effective(state))


def test_every_network_of_the_original_is_one_of_ours():
    assert {source.ours for source in ARCHITECTURES.values()} <= set(hn.models.names())
    for name, source in ARCHITECTURES.items():
        with torch.device("meta"):
            model = hn.models.build(source.ours, num_classes=3)
        assert len(model.get_submodule(model.first_layer).weight) == source.channels, name


def without(key):
    return lambda state: state.pop(key)


def replace(key, tensor):
    return lambda state: state.update({key: tensor})


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (without("layer1.0.conv1.weight"), {}, r"layer1\.0\.conv1\.weight of shape \(4, 4, 3, 3\), got none"),
        (without("linear.weight"), {}, r"with a weight linear\.weight, got none"),
        (without("linear.bias"), {}, r"with linear\.bias of shape \(10,\), got none"),
        (without("layer2.0.bn1.running_var"), {}, r"layer2\.0\.bn1\.running_var of shape \(8,\), got none"),
        (
            replace("layer1.0.conv1.weight_mask", torch.ones(4, 4, 3, 1)),
            {},
            r"layer1\.0\.conv1\.weight_mask of shape \(4, 4, 3, 3\), got shape \(4, 4, 3, 1\)",
        ),
        (
            replace("conv1.weight_mask", torch.full((4, 3, 3, 3), 0.5)),
            {},
            "weight_mask of 0 and 1 in layer conv1 of .*, got others",
        ),
        (replace("conv1.t", torch.ones(4, 2, 3, 3)), {}, r"conv1\.t of shape \(4, 3, 3, 3\), or 1 .* got shape"),
        (replace("conv9.t", torch.ones(1)), {}, r"a weight conv9\.weight, got none"),
        (replace("linear.bias_mask", torch.ones(3)), {}, r"linear\.bias_mask of shape \(10,\), or 1"),
        (replace("conv9.bias_mask", torch.ones(3)), {}, r"a bias conv9\.bias, got none"),
        (replace("layer4.weight", torch.ones(3, 2)), {}, r"with no layer4\.weight, got one of shape \(3, 2\)"),
        (replace("conv1.t", torch.ones(4, 3, 3, 3)), {"hidden_act": "ternary"}, "lo and hi of the ternary layer conv1"),
        (lambda s: None, {"hidden_act": "signs"}, "hidden_act to be one of auto, flipping, .* got 'signs'"),
        (lambda s: None, {"arch": None}, "arch to be one of Conv4, Conv6, ResNet20, .* got None"),
        (lambda s: None, {"arch": "PsgLeNet"}, "arch to be one of .* got 'PsgLeNet'"),
        (lambda s: None, {"arch": "resnet18"}, r"checkpoint of resnet18 with a weight fc\.weight, got none"),
        (lambda s: s.update(note="text"), {}, "only tensors .* got str for note"),
        (lambda s: s.clear(), {}, "expected a dict with `net` or `state_dict`"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, arguments, words):
    state = state_of("ResNet20")
    change(state)
    path = save_cifar(tmp_path / "ckpt.pth", state)
    with pytest.raises(CheckpointError, match=words) as caught:
        convert(path, out=tmp_path / "out", **{"arch": "ResNet20", **arguments})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_arch_that_the_file_contradicts(tmp_path):
    path = save_imagenet(tmp_path / "checkpoint.pth.tar", "psg_resnet50", state_of("resnet18", width=0.125))
    with pytest.raises(
        CheckpointError, match="expected a checkpoint of resnet18 in .*, got one that says psg_resnet50"
    ):
        read(path, "resnet18")


def test_an_imported_network_is_evaluated_on_images_normalised_as_it_was_trained(tmp_path, monkeypatch):
    """The original divides CIFAR-10's colours by smaller deviations than the set's own."""
    draw = torch.Generator().manual_seed(0)
    pixels, labels = torch.randint(256, (64, 3, 32, 32), generator=draw, dtype=torch.uint8), torch.arange(64) % 10
    monkeypatch.setitem(REGISTRIES["data"]._things, "colours", lambda: ((pixels, labels), (pixels, labels)))
    torch.manual_seed(0)
    model = convert(save_cifar(tmp_path / "ckpt.pth", state_of("ResNet20")), "ResNet20", tmp_path / "out")
    mean, deviation = (
        torch.tensor(part).view(1, 3, 1, 1) for part in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    )
    with torch.no_grad():
        want = torch.nn.functional.cross_entropy(model((pixels / 255 - mean) / deviation), labels)
    assert evaluate(str(tmp_path / "out"), data_name="colours")["scores"].loss == pytest.approx(float(want), rel=1e-5)


def test_from_the_command_line(tmp_path, capsys):
    path = save_cifar(tmp_path / "ckpt.pth", state_of("ResNet20"))
    out = str(tmp_path / "out.safetensors")
    command = ["import", "peek-a-boo", str(path), "--arch", "PsgResNet20", "-o", out]
    assert cli.main(command) == 0
    assert "hidden weights" in capsys.readouterr().out
    assert cli.main([*command, "--density", "0.3"]) != 0
    assert "expected options of peek-a-boo such as --hidden-act, got --density" in capsys.readouterr().err
