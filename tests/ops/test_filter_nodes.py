"""filter_nodes_: no worse than torch's batch norm, ReLU and convolution; wider buffers; bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hiddennet.ops import filter_nodes_
from tests import reference
from tests.checks import assert_equal, assert_no_worse_than

SHAPES = {  # images, nodes, height, width, stride
    "one of each": (1, 1, 1, 1, 1),
    "14x14": (1, 40, 14, 14, 1),
    "14x14, stride 2": (3, 40, 14, 14, 2),
    "7x7": (2, 33, 7, 7, 1),
    "odd, stride 2": (2, 5, 9, 33, 2),
    "large": (1, 3, 112, 112, 1),
    "large, stride 2": (1, 3, 112, 110, 2),
    "stride 3": (2, 4, 11, 17, 3),
    "stride past the map": (1, 2, 5, 6, 9),
    "a row": (2, 3, 1, 40, 1),
    "no images": (0, 3, 4, 4, 1),
    "no nodes": (2, 0, 4, 4, 1),
}


def make(name: str, device: torch.device):
    n, nodes, height, width, stride = SHAPES[name]
    x, scale, shift = torch.randn(n, nodes, height, width), torch.randn(nodes), torch.randn(nodes)
    taps = torch.randn(nodes, 3, 3)
    out = torch.full((n, nodes, (height - 1) // stride + 1, (width - 1) // stride + 1), float("nan"))
    return [t.to(device) for t in (out, x, scale, shift, taps)], stride


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(device, name):
    (out, x, scale, shift, taps), stride = make(name, device)
    assert filter_nodes_(out, x, scale, shift, taps, stride=stride) is out
    exact = reference.filter_nodes(x.cpu(), scale.cpu(), shift.cpu(), taps.cpu(), stride) if out.numel() else out
    assert out.shape == exact.shape
    if out.numel():
        ready = F.relu(x * scale[:, None, None] + shift[:, None, None])
        torchs = F.conv2d(ready, taps[:, None], stride=stride, padding=1, groups=len(taps))
        assert_no_worse_than(out, torchs, exact, floor=1e-6)


@pytest.mark.parametrize("name", ["14x14", "14x14, stride 2", "7x7", "stride 3"])
def test_channels_of_a_wider_buffer(device, name):
    (want, x, scale, shift, taps), stride = make(name, device)
    filter_nodes_(want, x, scale, shift, taps, stride=stride)
    n, nodes = x.shape[:2]
    wide_x = torch.randn(n, nodes + 3, *x.shape[2:], device=device)
    wide_x[:, 2 : 2 + nodes] = x
    wide = torch.full((n, nodes + 4, *want.shape[2:]), 7.0, device=device)
    filter_nodes_(wide[:, 1 : 1 + nodes], wide_x[:, 2 : 2 + nodes], scale, shift, taps, stride=stride)
    assert_equal(wide[:, 1 : 1 + nodes], want)
    assert bool((wide[:, [0, *range(1 + nodes, nodes + 4)]] == 7.0).all())


def test_from_and_into_one_buffer(device):
    (want, x, scale, shift, taps), _ = make("7x7", device)
    filter_nodes_(want, x, scale, shift, taps)
    buffer = torch.cat((torch.zeros_like(x), x), dim=1)
    filter_nodes_(buffer[:, :33], buffer[:, 33:], scale, shift, taps)
    assert_equal(buffer[:, :33], want)
    with pytest.raises(RuntimeError, match="expected out apart from x"):
        filter_nodes_(buffer[:, :33], buffer[:, 1:34], scale, shift, taps)


def test_no_number_stays_none(device):
    (out, x, scale, shift, taps), _ = make("one of each", device)
    x[:] = float("nan")
    assert bool(filter_nodes_(out, x, scale, shift, taps).isnan().all())


def refuse(**changed):
    names = ("out", "x", "scale", "shift", "taps")
    values = dict(zip(names, make("14x14", torch.device("cpu"))[0], strict=True)) | {"stride": 1} | changed
    stride = values.pop("stride")
    return filter_nodes_(*values.values(), stride=stride)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": torch.zeros(1, 40, 14, 14, dtype=torch.float64)}, (TypeError, ValueError), "float32"),
        ({"x": torch.zeros(40, 14, 14)}, ValueError, "expected x of 4 dimensions"),
        ({"x": torch.zeros(1, 40, 14, 28)[..., ::2]}, RuntimeError, "contiguous maps"),
        ({"out": torch.zeros(1, 40, 7, 14)}, RuntimeError, "expected out of x's images and nodes and 14 x 14"),
        ({"scale": torch.zeros(39)}, RuntimeError, "expected scale contiguous, of x's 40 nodes"),
        ({"taps": torch.zeros(40, 9)}, RuntimeError, "expected taps"),
        ({"stride": 0}, RuntimeError, "expected a stride of at least 1"),
        ({"stride": True}, TypeError, "expected stride to be an int"),
        ({"shift": torch.zeros(40, requires_grad=True)}, ValueError, "without gradients"),
        ({"scale": [1.0]}, TypeError, "scale"),
    ],
)
def test_bad_input(changed, error, message):
    with pytest.raises(error, match=message):
        refuse(**changed)


def test_opcheck(device):
    (out, x, scale, shift, taps), stride = make("14x14, stride 2", device)
    torch.library.opcheck(torch.ops.hiddennet.filter_nodes_.default, (out, x, scale, shift, taps, stride))
