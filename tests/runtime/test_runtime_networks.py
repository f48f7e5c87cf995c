"""Networks of ours and of others give torch's outputs: within twice the error that torch's float32 itself has."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

import hiddennet as hn
from hiddennet import models
from tests.ordinary.test_plain import wired
from tests.runtime.common import check_outputs, samples, saved, warmed

pytestmark = pytest.mark.filterwarnings("ignore")
RULE = hn.TopK(0.3)


@pytest.mark.parametrize("density", [0.5, 0.3, 0.1])
def test_a_resnet18_of_signed_constants(tmp_path, density):
    model = hn.hide(models.build("cifar_resnet18", num_classes=10), hn.Generated(seed=1), hn.TopK(density))
    check_outputs(warmed(model), tmp_path / "net", (3, 32, 32))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "regnet_y_400mf"])
def test_networks_of_torchvision(tmp_path, name):
    torchvision = pytest.importorskip("torchvision")
    model = hn.hide(
        torchvision.models.get_model(name, weights=None, num_classes=7), hn.Generated("kaiming_normal"), RULE
    )
    check_outputs(warmed(model), tmp_path / "net", (3, 48, 48))


def test_a_densenet_of_torchvision(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.DenseNet(8, (2, 3), 16, num_classes=5)
    check_outputs(warmed(hn.hide(model, hn.Generated("kaiming_normal"), RULE)), tmp_path / "net", (3, 40, 40))


@pytest.mark.parametrize("name", ["resnet10t.c3_in1k", "mobilenetv2_035", "regnetz_005"])
def test_networks_of_timm(tmp_path, name):
    timm = pytest.importorskip("timm")
    model = hn.hide(timm.create_model(name.partition(".")[0], num_classes=6), hn.Generated("kaiming_normal"), RULE)
    check_outputs(warmed(model), tmp_path / "net", (3, 64, 64))


@pytest.mark.parametrize("name", ["digits_mlp", "lenet5", "conv4_bn", "mobilenet_v1"])
def test_our_small_networks(tmp_path, name):
    model = hn.hide(models.build(name, num_classes=10), hn.Generated("kaiming_uniform", seed=2), RULE)
    made = model.architecture
    check_outputs(warmed(model), tmp_path / "net", (made["in_channels"], made["image_size"], made["image_size"]))


class Corners(nn.Module):
    """Each operation at its corners: sides that are not square, strides, dilations, groups, uneven pads, ceilings."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 12, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2)
        self.b = nn.Conv2d(12, 12, 3, padding="same", groups=12, bias=False)
        self.c = nn.Conv2d(12, 12, 4, padding="same", bias=False)
        self.norm, self.late = nn.BatchNorm2d(12, affine=False), nn.BatchNorm2d(12)
        self.squeeze, self.grow = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.fc = nn.Linear(24, 9)
        self.register_buffer("mean", torch.tensor([0.1, -0.2, 0.3, 0.0]).view(1, 4, 1, 1))
        self.register_buffer("place", torch.linspace(-1, 1, 12 * 3 * 4).view(12, 3, 4))

    def forward(self, x):
        x = (x - self.mean) / 0.7
        x = F.leaky_relu(self.norm(self.a(x)), 0.2)
        y = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = F.avg_pool2d(x, (2, 3), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False)[:, :, : y.shape[2]]
        x = F.adaptive_avg_pool2d(x, (3, 4)) - 2.0 * F.adaptive_max_pool2d(y, (3, 4))
        x = F.silu(self.late(x + self.place)) + F.pad(F.gelu(self.b(x)), (1, 0, 0, 1))[:, :, 1:, :4]
        gate = torch.sigmoid(self.grow(F.relu6(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.tanh(self.c(F.hardswish(x))) * gate + F.hardtanh(x, -0.5, 0.8)
        left, right = x.chunk(2, 1)
        x = torch.cat([right, left.clamp(min=0.1), F.hardsigmoid(x[:, 2:5])], 1)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))[:, :9]], 1)
        return F.log_softmax(self.fc(F.dropout(x, 0.5, self.training)), 1) + F.softmax(1 - x[:, :9], -1)


@pytest.mark.isa
def test_corners_of_every_operation(tmp_path):
    check_outputs(warmed(hn.hide(Corners(), hn.Generated("kaiming_normal"), RULE)), tmp_path / "net", (4, 13, 9))


class Lines(nn.Module):
    """One dimension."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv1d(3, 8, 5, stride=2, padding=2), nn.BatchNorm1d(8)
        self.b, self.fc, self.last = nn.Conv1d(8, 6, 3, dilation=2, groups=2), nn.Linear(18, 10), nn.BatchNorm1d(10)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        x = F.adaptive_avg_pool1d(F.avg_pool1d(F.max_pool1d(self.b(x), 2), 2), 3)
        return self.last(self.fc(x.flatten(1)))


@pytest.mark.isa
def test_networks_of_one_dimension(tmp_path):
    check_outputs(warmed(hn.hide(Lines(), hn.Generated("kaiming_normal"), RULE)), tmp_path / "net", (3, 61))


class Shared(nn.Module):
    """A module that stands in two places and runs three times, and a tied weight."""

    def __init__(self):
        super().__init__()
        self.first, self.mix = nn.Linear(10, 10), nn.Linear(10, 10, bias=False)
        self.again, self.tied = self.mix, nn.Linear(10, 10)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(F.relu(self.mix(F.relu(self.again(F.relu(self.mix(self.first(x))))))))


class Padded(nn.Module):
    """Pixels of -inf around what is pooled, as a padding of TensorFlow's kind has them."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = F.max_pool2d(F.pad(self.conv(x), (0, 1, 0, 1), value=-math.inf), 3, 2)
        return self.last(F.hardtanh(x, -math.inf, 0.7))


def test_padding_with_infinity(tmp_path):
    check_outputs(hn.hide(Padded(), hn.Generated("kaiming_normal"), RULE).eval(), tmp_path / "net", (3, 8, 8))


class OnlyPadding(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.conv, self.value = nn.Conv2d(3, 8, 1), value

    def forward(self, x):
        return F.max_pool2d(F.pad(self.conv(x), (0, 4, 0, 2), value=self.value), 2)


@pytest.mark.parametrize("value", [-math.inf, math.inf])
def test_a_window_of_padding_alone_is_what_it_is_in_torch(tmp_path, value):
    model = hn.hide(OnlyPadding(value), hn.Generated("kaiming_normal"), RULE).eval()
    net, x = saved(model, tmp_path / "net", (3, 4, 4)), samples((3, 4, 4), 16)
    want = model(x).detach()
    assert torch.isinf(want).any()
    torch.testing.assert_close(torch.from_numpy(net(x.numpy())), want)


class Open(nn.Module):
    """Any number of inputs, the first of which is changed in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1)

    def forward(self, *x):
        return self.conv(x[0].relu_())


def test_a_forward_of_any_arguments_that_changes_its_input(tmp_path):
    model = hn.hide(Open(), hn.Generated("kaiming_normal"), RULE).eval()
    net, x = saved(model, tmp_path / "net", (4, 5, 5)), samples((4, 5, 5))
    before = x.clone()
    got = net(x.numpy())
    assert torch.equal(x, before)
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach())


def test_shuffled_channels(tmp_path):
    layers = nn.Conv2d(4, 12, 1), nn.ChannelShuffle(3), nn.Conv2d(12, 6, 3, groups=2)
    check_outputs(
        hn.hide(nn.Sequential(*layers), hn.Generated("kaiming_normal"), RULE).eval(), tmp_path / "net", (4, 6, 6)
    )


@pytest.mark.parametrize("tied", [["first", "tied"], []])
def test_shared_modules_and_tied_weights(tmp_path, tied):
    source = hn.Generated(seed=4) if tied else hn.Stored(trainable=True)
    check_outputs(hn.hide(Shared(), source, RULE, exclude=tied).eval(), tmp_path / "net", (10,))


def test_wrapped_models(tmp_path):
    inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    model = hn.hide(inner, hn.Generated("kaiming_normal"), RULE)
    check_outputs(warmed(AveragedModel(model)).module, tmp_path / "net", (3, 8, 8))
    saved(nn.DataParallel(model), tmp_path / "parallel", (3, 8, 8))


def test_a_model_without_hidden_layers_and_one_in_bfloat16(tmp_path):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    check_outputs(plain.eval(), tmp_path / "net", (3, 2, 2))
    half = hn.hide(nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3)), hn.Generated(seed=1), RULE).bfloat16()
    net = saved(half.eval(), tmp_path / "half", (12,))
    x = torch.randn(4, 12)
    want = hn.plain(half.float())(x)
    torch.testing.assert_close(torch.from_numpy(net(x.numpy())), want, rtol=1e-5, atol=1e-6)


def test_the_file_is_still_an_artifact(tmp_path):
    model = warmed(hn.hide(models.build("conv4_bn", num_classes=10), hn.Generated(seed=1), RULE))
    hn.export(model, tmp_path / "plain")
    hn.export(model, tmp_path / "net", runtime=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(hn.load(tmp_path / "net")(x), hn.load(tmp_path / "plain")(x))
    graph = (tmp_path / "net").stat().st_size - (tmp_path / "plain").stat().st_size
    assert graph < 8000


@pytest.mark.parametrize("name", ["dnw_static", "dnw_discrete", "dnw_mobilenet"])
@pytest.mark.parametrize("compact", [False, True])
def test_wirings_and_what_is_left_of_them(tmp_path, name, compact):
    model = wired(name)
    check_outputs(model, tmp_path / "net", (3, 32, 32), hn.compact(model) if compact else None)
    if compact:
        assert hn.load(tmp_path / "net").edges == hn.compact(model).edges
