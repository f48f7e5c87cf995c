"""ONNX files: any batch size, equal logits in ONNX Runtime, integers that are exact."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import hiddennet as hn
from hiddennet import cli, config, models
from hiddennet.ordinary import onnx_file
from hiddennet.train import experiment
from tests.ordinary.test_plain import Net, warmed, wired

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")


def run(path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def resnet() -> nn.Module:
    return hn.hide(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5), hn.Generated(seed=1), hn.TopK(0.3))


class Small(nn.Module):
    """A convolution, one with groups, a transposed one, a linear layer of three dimensions and one of two."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.up = nn.Conv2d(8, 8, 3, groups=4, stride=2), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.mix, self.fc = nn.Linear(6, 5), nn.Linear(5, 4, bias=False)

    def forward(self, x):
        x = self.up(self.grouped(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.relu(self.mix(x.flatten(2).transpose(1, 2))).mean(1))


def small(init="signed_constant") -> nn.Module:
    return hn.hide(Small(), hn.Generated(init, seed=1), hn.TopK(0.3))


MODELS = {
    "torchvision": (resnet, (3, 32, 32)),
    "wirings": (wired, (3, 32, 32)),
    "steps": (lambda: wired("dnw_discrete"), (3, 32, 32)),
    "shared": (lambda: hn.hide(Net(), hn.Stored(trainable=True), exclude=["left", "right"]), (3, 8, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_torchs_for_any_batch(name, tmp_path):
    make, shape = MODELS[name]
    x = torch.randn(5, *shape)
    model = warmed(make(), x)
    made = hn.export_onnx(model, tmp_path / "net.onnx", x[:1])
    assert made.bytes == (tmp_path / "net.onnx").stat().st_size and made.logit_error <= 1e-5
    onnx.checker.check_model(onnx.load(made.path), full_check=True)
    assert onnx.load(made.path).opset_import[0].version >= 23
    for batch in (x, x[:1], torch.cat([x, x, x])):
        torch.testing.assert_close(run(made.path, batch), model(batch), rtol=1e-5, atol=1e-5)


def held(path) -> dict[str, np.ndarray]:
    """The weights that ONNX's standard makes of the file's integers, by name, and the bytes that these take."""
    proto = onnx.load(path)
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear":
            values, scale = arrays[node.input[0]].astype(np.float32), arrays[node.input[1]]
            axis = {a.name: a.i for a in node.attribute}.get("axis", 1)
            shape = [-1 if i == axis else 1 for i in range(values.ndim)] if scale.ndim else ()
            found[node.output[0].removesuffix(".dequantized")] = values * scale.reshape(shape)
    return found


@pytest.mark.parametrize("weights", ["int4", "int8"])
def test_signed_constants_are_exact(weights, tmp_path):
    x = torch.randn(4, 3, 32, 32)
    model = warmed(small(), x)
    made = hn.export_onnx(model, tmp_path / "net.onnx", x, weights=weights)
    plain = hn.plain(model)
    found = held(made.path)
    assert made.weight_error == 0.0 and made.layers == len(found) == len(hn.hidden_layers(model))
    for name, weight in found.items():
        assert np.array_equal(weight, plain.get_parameter(name).detach().numpy()), name
    near = 1e-5 if weights == "int4" else 1e-3  # ONNX Runtime's own products with weights of 8 bits are coarser
    torch.testing.assert_close(run(made.path, x), model(x), rtol=near, atol=near)
    proto = onnx.load(made.path)
    kinds = Counter(one.data_type for one in proto.graph.initializer)
    assert kinds[onnx.TensorProto.INT4 if weights == "int4" else onnx.TensorProto.INT8] == made.layers
    bits = 4 if weights == "int4" else 8
    size = sum(len(one.raw_data) for one in proto.graph.initializer if one.name.endswith(".integers"))
    assert size == sum(math.ceil(bits * weight.size / 8) for weight in found.values())
    assert all(not node.metadata_props for node in proto.graph.node)


def test_other_weights_are_rounded_and_said_or_refused(tmp_path):
    x = torch.randn(4, 3, 32, 32)
    model = warmed(small("kaiming_normal"), x)
    with pytest.raises(
        ValueError, match=r"onnx: expected weights of -c, 0 and \+c .* got others in conv1.weight, "
    ) as e:
        hn.export_onnx(model, tmp_path / "net.onnx", x, weights="int4")
    assert "take int8 or float32" in str(e.value) and not (tmp_path / "net.onnx").exists()
    made = hn.export_onnx(model, tmp_path / "net.onnx", x, weights="int8")
    assert 0.5 / 128 < made.weight_error <= 0.5 / 126
    for name, weight in held(made.path).items():
        assert np.abs(weight - hn.plain(model).get_parameter(name).detach().numpy()).max() > 0
    torch.testing.assert_close(run(made.path, x), model(x), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("weight", [torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [-2.0, 2.0], [0.3, 0.1]])])
def test_the_integers_of_a_weight(weight):
    found = onnx_file._by_channel(weight.numpy(), 0)
    back = found.values * found.scale[:, None]
    assert np.array_equal(back[:2], weight[:2].numpy()) and np.abs(back - weight.numpy()).max() <= 0.3 / 254 * 1.01
    assert (onnx_file._signs(weight.numpy()) is None) == bool(weight.any())


class Picky(nn.Module):
    """Not of any batch size."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x).reshape(2, 2)


def test_what_is_not_possible_is_one_sentence(tmp_path, monkeypatch):
    model = hn.hide(nn.Sequential(nn.Linear(4, 2)))
    file = tmp_path / "net.onnx"
    cases = [
        (lambda: hn.export_onnx(model, file), "expected an example of the input, since Sequential does not say"),
        (lambda: hn.export_onnx(model, file, torch.zeros(1, 4), weights="int2"), "weights to be one of float32, int8"),
        (
            lambda: hn.export_onnx(hn.hide(nn.Sequential(Picky())), file, torch.zeros(1, 4)),
            "a network that torch's exporter takes with any batch size, got Sequential",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"got no onnx and no onnxscript .*; pip install 'hiddennet\[onnx\]'"):
        hn.export_onnx(model, file, torch.zeros(1, 4))
    assert not file.exists()


def test_a_run_from_the_command_line(tmp_path, capsys):
    overrides = ["model.width=0.2", "train.epochs=1", "train.device=cpu", f"runs={tmp_path}", "data.limit=64"]
    experiment.run(config.load("digits", overrides))
    folder = str(next(tmp_path.glob("*/*/config.yml")).parent)
    file, x = tmp_path / "net.onnx", torch.randn(3, 1, 8, 8)
    capsys.readouterr()
    assert cli.main(["export", folder, "--onnx", str(file), "--onnx-weights", "int4"]) == 0
    said = capsys.readouterr().out
    assert f"{file.stat().st_size:,} bytes; " in said and "layers in int4, exactly the same weights; logits in" in said
    torch.testing.assert_close(run(file, x), hn.plain(folder)(x), rtol=1e-5, atol=1e-5)
    assert cli.main(["export", folder, "--onnx-weights", "int4"]) == 1
    assert "expected --onnx FILE with --onnx-weights" in capsys.readouterr().err
    assert cli.main(["export", folder, "--onnx", str(file), "-o", "x"]) == 1
    assert "expected --onnx FILE without -o" in capsys.readouterr().err


def test_words_are_refused():
    model = models.build("lstm_lm", num_classes=5, width=0.01)
    with pytest.raises(ValueError, match="onnx: "):
        hn.export_onnx(model, "nowhere.onnx")
