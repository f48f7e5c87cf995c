"""A network comes back from its artifact with the same bits: masks, weights and logits."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import artifact, models

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TRAINED = hn.Stored(trainable=True)

NETWORKS = {
    "edge_popup": (hn.Generated("signed_constant", seed=5), hn.TopK(0.5)),
    "edge_popup_global": (hn.Generated("signed_constant", seed=5), hn.TopK(0.3, scope="global")),
    "by_value": (hn.Generated("kaiming_uniform", seed=1), hn.TopK(0.3, by="value")),
    "scaled_fan": (hn.Generated("kaiming_normal", scale_fan=True), hn.TopK(0.3)),
    "scaled_fan_global": (
        hn.Generated("signed_constant", scale_fan=True),
        hn.TopK(0.3, scope="global"),
    ),
    "redrawn": (hn.Generated("xavier_normal", seed=2**40, redraw=3), hn.TopK(0.7)),
    "unsigned": (hn.Generated("unsigned_constant", mode="fan_out"), hn.Threshold(0.01)),
    "everything": (hn.Generated("xavier_constant"), hn.All()),
    "nothing": (hn.Generated("standard"), hn.TopK(0.0)),
    "random": (TRAINED, lambda _, m: hn.Fixed(torch.rand_like(m.weight) < 0.4)),
    "learned_all": (TRAINED, hn.All()),
    "fine_tune": (TRAINED, hn.TopK(0.5)),
    "magnitude_topk": (hn.Stored(trainable=True, gradient="through"), hn.TopK(0.4, of="weights")),
    "targeted_dropout": (TRAINED, hn.TargetedDropout(0.4, 0.8, seed=3)),
    "sampled_expectation": (hn.Generated("kaiming_normal"), hn.Sampled(seed=4)),
    "sampled_draw": (hn.Generated("xavier_constant"), hn.Sampled(seed=4, evaluation="draw")),
    "sampled_stored": (hn.Stored(), hn.Sampled(seed=4)),
}


def network(name: str) -> nn.Module:
    """A narrow network with running statistics that are not the default ones."""
    torch.manual_seed(11)
    source, rule = NETWORKS[name]
    net = models.build("cifar_resnet18", num_classes=10, width=0.125)
    hn.hide(net, source, rule, exclude="conv1")
    if name == "scaled_fan_global":  # a layer of which nothing is kept
        net.layer1[0].conv2.scores.data.zero_()
    net.train()
    with torch.no_grad():
        net(images(net))
    return net


def images(net: nn.Module, count: int = 3) -> torch.Tensor:
    size, channels = net.architecture["image_size"], net.architecture["in_channels"]
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, channels, size, size, generator=generator)


def logits(net: nn.Module, layout: torch.memory_format) -> torch.Tensor:
    net = net.eval().to(memory_format=layout)
    with torch.no_grad():
        return net(images(net).contiguous(memory_format=layout))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_same_logits(tmp_path, name, layout):
    net = network(name)
    if FORMATS[layout] is torch.channels_last:
        net = net.to(memory_format=torch.channels_last)
    hn.export(net, tmp_path / "net")
    again = hn.load(tmp_path / "net")
    assert not again.training
    assert torch.equal(logits(again, FORMATS[layout]), logits(net, FORMATS[layout]))
    masks = hn.masks(net)
    for layer, mask in hn.masks(again).items():
        assert torch.equal(mask, masks[layer])
    layers = hn.hidden_layers(net)
    for layer_name, layer in hn.hidden_layers(again).items():
        assert isinstance(layer.rule, hn.Fixed | hn.All | hn.Sampled)
        assert layer.source == layers[layer_name].source
        if layer.stored is not None and layers[layer_name].stored is not None:
            assert layer.stored.requires_grad == layers[layer_name].stored.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_second_generation_is_the_same_file(tmp_path, name):
    """What was loaded exports to a network of the same weights and bytes."""
    net = network(name)
    hn.export(net, tmp_path / "first")
    second = hn.load(tmp_path / "first")
    hn.export(second, tmp_path / "second")
    third = hn.load(tmp_path / "second")
    layout = torch.contiguous_format
    assert torch.equal(logits(third, layout), logits(net, layout))


def test_export_leaves_the_model_as_it_was(tmp_path):
    net = network("edge_popup")
    before = {key: str(value) for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    hn.export(net, tmp_path / "net")
    assert net.training
    assert {key: str(value) for key, value in net.state_dict().items()} == before
    hn.load(tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    hn.export(network("magnitude_topk"), tmp_path / "net")

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    hn.load(tmp_path / "net")


def test_header_tells_what_it_is(tmp_path):
    net = network("edge_popup")
    facts = {"method": "edge_popup", "config_hash": "abc", "accuracy": 0.97}
    hn.export(net, tmp_path / "net", metadata=facts)
    header = artifact.read_header(tmp_path / "net")
    assert header["model"] == net.architecture
    assert header["method"] == "edge_popup" and header["config_hash"] == "abc"
    assert header["metadata"] == {"accuracy": 0.97}
    assert header["versions"]["hiddennet"] == hn.__version__
    assert header["class"] == "hiddennet.models.resnet.ResNet"
    layer = header["layers"][0]
    hidden = hn.hidden_layers(net)["layer1.0.conv1"]
    assert layer["name"] == "layer1.0.conv1" and layer["shape"] == list(hidden.weight_shape)
    assert layer["source"] == hidden.source.spec() and layer["rule"] == hidden.rule.spec()
    assert layer["kept"] == hidden.k and layer["reveals"] == "mask"


def test_metadata_must_be_json(tmp_path):
    with pytest.raises(TypeError):
        hn.export(network("edge_popup"), tmp_path / "net", metadata={"weights": torch.ones(1)})
    assert not (tmp_path / "net").exists()


class Own(nn.Module):
    """A model of a user: biases, groups, a buffer, one layer in two places, a tied parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect")
        self.body = nn.ModuleList([nn.Conv2d(8, 8, 3, 1, 2, 2, groups=4), nn.BatchNorm2d(8)])
        self.again = self.body[0]
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.tensor(0.25, dtype=torch.float64))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.again(self.body[1](self.body[0](self.stem(x)))) * self.scale + self.shift.float()
        return self.head(x.mean((2, 3)))


def own() -> nn.Module:
    torch.manual_seed(2)
    net = hn.hide(Own(), hn.Generated(seed=9), hn.TopK(0.5))
    with torch.no_grad():
        net.scale.fill_(1.5)
        net.shift.fill_(-0.125)
        net(torch.randn(4, 3, 9, 9))
    return net.eval()


@pytest.mark.parametrize("hidden_before", [False, True, "partly"])
def test_into_a_given_model(tmp_path, hidden_before):
    net = own()
    hn.export(net, tmp_path / "net")
    given = Own()
    if hidden_before:
        exclude = "stem" if hidden_before == "partly" else None
        hn.hide(given, hn.Stored(trainable=True), hn.Sampled(), exclude=exclude)
    assert hn.load(tmp_path / "net", given) is given
    x = torch.randn(4, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(given(x), net(x))
    assert given.again is given.body[0]


def test_dense_layers_of_the_artifact_are_dense_again(tmp_path):
    net = hn.hide(Own(), exclude="stem").eval()
    hn.export(net, tmp_path / "net")
    given = hn.load(tmp_path / "net", hn.hide(Own()))
    assert type(given.stem) is nn.Conv2d
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(given(x), net(x))


def test_own_model_must_be_given(tmp_path):
    hn.export(own(), tmp_path / "net")
    with pytest.raises(artifact.ArtifactError, match=r"Own; make the model and call load\(path"):
        hn.load(tmp_path / "net")


def test_model_without_hidden_layers(tmp_path):
    torch.manual_seed(1)
    net = models.build("digits_conv", num_classes=10)
    hn.export(net, tmp_path / "net", metadata={"method": "dense"})
    layout = torch.contiguous_format
    assert torch.equal(logits(hn.load(tmp_path / "net"), layout), logits(net, layout))


def test_every_model_of_ours(tmp_path):
    for name in models.names():
        width = 1.0 if name.startswith(("digits", "lenet5", "dnw")) else 0.25 if "next" in name else 0.0625
        torch.manual_seed(3)
        net = hn.hide(models.build(name, num_classes=7, width=width, batch_norm="non_affine"))
        hn.export(net, tmp_path / "net")
        again = hn.load(tmp_path / "net")
        for key, value in again.state_dict().items():
            if key.endswith(("running_mean", "running_var")):
                assert torch.equal(value, net.state_dict()[key])
        weights = {n: layer.effective_weight() for n, layer in hn.hidden_layers(net).items()}
        for layer_name, layer in hn.hidden_layers(again).items():
            assert torch.equal(layer.effective_weight(), weights[layer_name])


@pytest.mark.cuda
def test_into_a_model_on_a_gpu(tmp_path):
    net = own()
    hn.export(net.cuda(), tmp_path / "net")
    given = hn.load(tmp_path / "net", Own().cuda())
    x = torch.randn(4, 3, 9, 9, device="cuda")
    with torch.no_grad():
        assert torch.equal(given(x), net(x))
