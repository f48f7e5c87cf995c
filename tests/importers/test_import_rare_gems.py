"""Checkpoints of Rare Gems' code: the logits are the original's, scores and flags stay."""

from __future__ import annotations

import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import artifact, cli, models
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.importers.rare_gems import ARCHITECTURES, convert, read
from tests.golden import Golden
from tests.models.test_models_golden_gems import NETWORKS, sine


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


def named(original: str, key: str) -> str:
    """The original's name of our key."""
    if original == "WideResNet28":
        return re.sub(r"\.shortcut(?=\.)", ".convShortcut", re.sub(r"^(block\d)\.", r"\1.layer.", key))
    return re.sub(r"^fc(?=\.)", "linear", key.replace("blocks.", "layers.")) if original == "MobileNetV2" else key


def layer_of(number: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, scores and flags by the formulas of the golden values."""
    fan = shape[1:].numel()
    weight = sine(shape, 1.3 + 0.011 * number, 0.3 * number, 2 / fan**0.5)
    scores = 0.5 + 0.5 * sine(shape, 0.9 + 0.017 * number, 0.2 * number)
    return weight, scores, sine(shape, 2.1 + 0.019 * number, 0.1 * number) > -0.8


def searched(original: str, *, width: float = 1.0):
    """(our network as the original computes it in a search, the original's state dict of it), after one batch."""
    name, classes, side = NETWORKS[original]
    model = models.build(name, num_classes=classes, image_size=side, batch_norm="non_affine", width=width)
    state = OrderedDict()
    for number, (key, layer) in enumerate(models.prunable(model).items()):
        weight, scores, flag = layer_of(number, layer.weight.shape)
        layer.weight.data = weight * ((scores > 0.5) & flag)
        where, kernel = named(original, f"{key}."), (1, 1) if weight.dim() == 2 else ()
        for leaf, value in (("weight", weight), ("scores", scores), ("flag", flag.int())):
            state[f"{where}{leaf}"] = value.reshape(*value.shape, *kernel)
        state[f"{where}bias_flag"] = torch.tensor([float("nan")])  # memory that nobody wrote
        state[f"{where}bias_scores"] = torch.tensor([0.3])
    images = sine((4, 3, side, side), 0.0137, 0.2) * sine((4, 1, 1, 1), 1.0, 0.5)
    with torch.no_grad():
        model.train()(images)
    layers = (nn.Conv2d, nn.Linear)
    for key, value in model.state_dict().items():
        if not isinstance(model.get_submodule(key.rpartition(".")[0]), layers):
            state[named(original, key)] = value
    return model.eval(), state, images


@pytest.mark.parametrize("original", ["resnet20", "resnet32_double", "cResNet18", "Conv4"])
def test_logits_are_those_that_the_original_computed(tmp_path, original):
    _, state, images = searched(original)
    torch.save(state, tmp_path / "in.pth")
    model = convert(tmp_path / "in.pth", original, tmp_path / "out")
    want = torch.from_numpy(Golden("rare_gems")[f"L_{original}_eval_logits"])
    for found in (model, hn.load(tmp_path / "out")):
        with torch.no_grad():
            torch.testing.assert_close(found(images)[:, : want.shape[1]], want, rtol=1e-4, atol=1e-5)
    for number, layer in enumerate(hn.hidden_layers(model).values()):
        weight, scores, flag = layer_of(number, layer.weight_shape)
        assert torch.equal(layer.scores.detach(), scores) and torch.equal(layer.stored, weight)
        assert torch.equal(hn.ops.unpack_mask(layer.flags, layer.weight_shape), flag)
        assert torch.equal(layer.mask(), (scores > 0.5) & flag)
    header = artifact.read_header(tmp_path / "out")
    assert header["method"] == "gem_miner" and header["metadata"]["imported"]["arch"] == original


@pytest.mark.parametrize("original", ["WideResNet28", "MobileNetV2", "vgg16", "TinyResNet18"])
def test_names_and_widths(tmp_path, original):
    model, state, images = searched(original, width=0.25)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "in.pth")
    found = read(tmp_path / "in.pth", original)
    with torch.no_grad():
        torch.testing.assert_close(found(images), model(images), rtol=1e-5, atol=1e-5)


def edited(state, change):
    return OrderedDict((key, change(value) if key.endswith(".scores") else value) for key, value in state.items())


def test_kinds(tmp_path):
    model, state, _ = searched("resnet20")
    path = tmp_path / "in.pth"

    def masks(scores, flags=None, **options):
        changed = edited(state, scores)
        if flags is not None:
            changed = OrderedDict((k, flags(v) if k.endswith(".flag") else v) for k, v in changed.items())
        torch.save(changed, path)
        found = read(path, "resnet20", **options)
        return found, hn.masks(found)

    found, rounded = masks(lambda s: s, threshold=0.75, kind="rounded")
    for number, mask in enumerate(rounded.values()):
        _, scores, flag = layer_of(number, mask.shape)
        assert torch.equal(mask, (scores > 0.75) & flag)
    found, fixed = masks(lambda s: (s > 0.5).float())  # as fine-tuning leaves them: its weights learn
    assert all(type(layer.rule) is hn.Fixed for layer in hn.hidden_layers(found).values())
    assert all(torch.equal(m, model.get_submodule(key).weight != 0) for key, m in fixed.items())
    found, dense = masks(torch.ones_like, torch.ones_like)
    assert not dense
    found, subnet = masks(lambda s: s - 0.5, density=0.3)
    assert all(int(m.sum()) == m.numel() - int(0.7 * m.numel()) for m in subnet.values())
    found, both = masks(lambda s: s - 0.5, density=0.3, kind="global")
    total = sum(m.numel() for m in both.values())
    assert sum(int(m.sum()) for m in both.values()) == total - int(0.7 * total)
    assert {int(m.sum()) for m in both.values()} != {int(m.sum()) for m in subnet.values()}


REFUSALS = [
    (None, {}, "expected arch to be one of resnet20, resnet32, .*, got None"),
    ("resnet32", {}, "expected a checkpoint of resnet32 with"),
    ("resnet20", {"density": 0.3}, r"expected no density, got 0.3; .*\(kind rounded\)"),
    ("resnet20", {"kind": "subnet"}, "expected a density for scores of edge-popup"),
    ("resnet20", {"kind": "sample"}, "expected kind to be one of auto, rounded, subnet, global, dense, got 'sample'"),
]


@pytest.mark.parametrize("arch, options, words", REFUSALS)
def test_what_does_not_fit_is_named(tmp_path, arch, options, words):
    torch.save(searched("resnet20")[1], tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "in.pth", arch, **options)


def test_flags_are_needed(tmp_path):
    state = searched("resnet20")[1]
    for change in (lambda s: s.pop("conv1.flag"), lambda s: s.update({"conv1.flag": torch.full((16, 3, 3, 3), 2)})):
        damaged = OrderedDict(state)
        change(damaged)
        torch.save(damaged, tmp_path / "in.pth")
        with pytest.raises(CheckpointError, match="a flag of 0 or 1 for each of 432 scores"):
            read(tmp_path / "in.pth", "resnet20")


def test_every_network_is_one_of_ours():
    for name, (ours, channels) in ARCHITECTURES.items():
        with torch.device("meta"):
            model = models.build(ours, num_classes=10)
        assert len(next(iter(models.prunable(model).values())).weight) == channels, name


def test_from_the_command_line(tmp_path, capsys):
    torch.save(searched("resnet20")[1], tmp_path / "in.pth")
    command = ["import", "rare-gems", str(tmp_path / "in.pth"), "--arch", "resnet20", "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--threshold", "0.6"]) == 0
    assert "hidden weights" in capsys.readouterr().out
    assert cli.main([*command, "--hidden-act", "none"]) != 0
