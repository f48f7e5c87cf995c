"""prune(): against plain float64, its invariants, the model left as it was, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from hiddennet import models
from hiddennet.pruning import densities, prune, steps, synflow
from tests.pruning.net import Net
from tests.reference import pruning as oracle

pytestmark = pytest.mark.usefixtures("one_thread")


def _batches(shape=(3, 6, 6), classes=5, sizes=(4, 4)):
    return [(torch.randn(n, *shape), torch.randint(classes, (n,))) for n in sizes]


def _chain(depth: int, channels: int = 8) -> nn.Sequential:
    """Convolutions, batch norm and ReLU; the sum of its outputs grows by a factor with each."""
    layers: list[nn.Module] = []
    for i in range(depth):
        conv = nn.Conv2d(3 if i == 0 else channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


class Wide(nn.Module):
    """Two pre-activation blocks with a bare shortcut, as in a wide ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(48)
        self.conv1 = nn.Conv2d(16, 48, 3, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(48, 48, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(16, 48, 1, 2, bias=False)
        self.fc = nn.Linear(48, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y))) + self.shortcut(x)
        return self.fc(F.adaptive_avg_pool2d(F.relu(y), 1).flatten(1))


NETS = {
    "small": (Net, (3, 6, 6)),
    "chain": (lambda: _chain(5), (3, 8, 8)),
    "past float32": (lambda: _chain(36), (3, 8, 8)),
    "wide": (Wide, (3, 12, 12)),
    "resnet20": (lambda: models.build("resnet20", num_classes=10, width=0.25), (3, 8, 8)),
    "conv2": (lambda: models.build("conv2", num_classes=10, width=0.1, image_size=8), (3, 8, 8)),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3, bias=False),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, bias=False),
            nn.Flatten(),
            nn.Linear(128, 5),
        ),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", NETS)
def test_synflow_is_plain_float64(name, scope, mixed, monkeypatch):
    """Equal masks, also where the scores are float32 but near the threshold; layers of other kinds included."""
    if mixed:
        monkeypatch.setattr(synflow, "MANY_WEIGHTS", 0)
    make, shape = NETS[name]
    net = make()
    found = prune(net, "synflow", 0.1, iterations=8, scope=scope, input_shape=shape)
    want = oracle.prune(net, list(found), "synflow", densities(0.1, 8), scope=scope, input_shape=shape)
    assert all(torch.equal(found[key], want[key]) for key in want)


def test_float64_weights_are_not_rounded(monkeypatch):
    monkeypatch.setattr(synflow, "MANY_WEIGHTS", 0)
    net = Wide().double()
    with torch.no_grad():
        for p in (p for p in net.parameters() if p.dim() > 1):
            p.copy_(1 + torch.rand_like(p) * 2.0**-26)
    found = prune(net, "synflow", 0.3, iterations=3, scope="layer", input_shape=(3, 12, 12))
    want = oracle.prune(net, list(found), "synflow", densities(0.3, 3), scope="layer", input_shape=(3, 12, 12))
    different = sum(int((found[key] != want[key]).sum()) for key in want)
    assert different <= 2  # of scores that differ in their last bits alone


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp"])
def test_others_are_plain_float64(method, scope):
    net, batches = Net(), _batches()
    found = prune(net, method, 0.2, iterations=3, scope=scope, batches=batches)
    want = oracle.prune(net, list(found), method, densities(0.2, 3), scope=scope, batches=batches)
    assert all(torch.equal(found[key], want[key]) for key in want)


@pytest.mark.parametrize("iterations", [10, 50, 100])
def test_synflow_of_a_large_network_is_plain_float64(iterations):
    """270 thousand weights, of which the schedule leaves one in twenty."""
    net = models.build("resnet20", num_classes=10)
    found = prune(net, "synflow", 0.05, iterations=iterations, input_shape=(3, 16, 16))
    want = oracle.prune(net, list(found), "synflow", densities(0.05, iterations), input_shape=(3, 16, 16))
    different = sum(int((found[key] != want[key]).sum()) for key in want)
    assert different <= 1e-5 * sum(mask.numel() for mask in want.values())


def test_sums_of_layers_are_equal_and_fall():
    """Without shifts, the scores of each layer add up to R, which falls; also where R leaves float64's range."""
    found = list(steps(_chain(4), "synflow", 0.5, iterations=3, input_shape=(3, 8, 8)))
    sums = [[float(s.sum()) for s in step.scores.values()] for step in found]
    for each in sums:
        assert each == pytest.approx([each[0]] * len(each), rel=1e-12)
    assert sums[0][0] > sums[1][0] > sums[2][0]
    deep = prune(_chain(350, 4), "synflow", 0.5, iterations=2, input_shape=(3, 8, 8))
    kept = sum(int(mask.sum()) for mask in deep.values()) / sum(mask.numel() for mask in deep.values())
    assert kept == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("method", ["synflow", "magnitude"])
def test_masks_are_nested(method):
    before = None
    for step in steps(Wide(), method, 0.1, iterations=6, input_shape=(3, 12, 12)):
        if before is not None:
            assert all(bool((mask <= before[key]).all()) for key, mask in step.masks.items())
        before = step.masks


def test_snip_brings_weights_back():
    """Pruned weights have scores too."""
    masks = [step.masks for step in steps(Net(), "snip", 0.1, iterations=5, batches=_batches())]
    assert any(bool((b[name] > a[name]).any()) for a, b in itertools.pairwise(masks) for name in a)


@pytest.mark.parametrize("density", [1.0, 0.73, 0.5, 0.01])
@pytest.mark.parametrize("method", ["magnitude", "random", "synflow"])
def test_as_many_are_kept_as_asked_for(method, density):
    masks = prune(Wide(), method, density, input_shape=(3, 12, 12))
    n = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == n - int((1 - density) * n)


def test_ties_all_go():
    net = nn.Sequential(nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2, 2, 2], [3, 4, -2, 5], [6, 7, 8, 9]]))
    assert prune(net, "magnitude", 0.75)["0.weight"].tolist() == [[False] * 4, [True, True, False, True], [True] * 4]
    assert prune(net.double(), "magnitude", 0.75)["0.weight"].sum() == 7


def test_invert_and_shuffle():
    net = Wide()
    masks = prune(net, "magnitude", 0.4, invert=True)
    weights = {name: p.detach().abs() for name, p in net.named_parameters() if name in masks}
    kept = max(float(weights[name][mask].max()) for name, mask in masks.items() if bool(mask.any()))
    assert kept < min(float(weights[name][~mask].min()) for name, mask in masks.items() if not bool(mask.all()))
    inverted = prune(net, "synflow", 0.9, invert=True, input_shape=(3, 12, 12))
    scores = next(steps(net, "synflow", 0.9, input_shape=(3, 12, 12))).scores
    cut = min(float(scores[name][~mask].min()) for name, mask in inverted.items() if not bool(mask.all()))
    assert max(float(scores[name][mask].max()) for name, mask in inverted.items() if bool(mask.any())) < cut
    assert sum(int((~m).sum()) for m in inverted.values()) == int(0.1 * sum(m.numel() for m in inverted.values()))
    plain = prune(net, "magnitude", 0.4)
    shuffled = prune(net, "magnitude", 0.4, shuffle=True, seed=3)
    assert [int(m.sum()) for m in shuffled.values()] == [int(m.sum()) for m in plain.values()]
    assert not any(torch.equal(shuffled[name], plain[name]) for name in plain if 0 < plain[name].float().mean() < 1)
    again = prune(net, "magnitude", 0.4, shuffle=True, seed=3)
    other = prune(net, "magnitude", 0.4, shuffle=True, seed=4)
    assert all(torch.equal(again[name], shuffled[name]) for name in plain)
    assert not all(torch.equal(other[name], shuffled[name]) for name in plain)


def test_random_is_a_function_of_its_seed():
    net = Wide()
    torch.manual_seed(1)
    first = prune(net, "random", 0.3, seed=5)
    torch.manual_seed(2)
    assert all(torch.equal(first[name], mask) for name, mask in prune(net, "random", 0.3, seed=5).items())
    assert not torch.equal(first["fc.weight"], prune(net, "random", 0.3, seed=6)["fc.weight"])


def test_shots_go_on_from_each_other():
    net, masks = Wide(), None
    for density in (0.8, 0.6, 0.4):
        new = prune(net, "synflow", density, iterations=2, input_shape=(3, 12, 12), start=masks)
        if masks is not None:
            assert all(bool((new[name] <= masks[name]).all()) for name in new)
        masks = new
    kept = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    assert kept == pytest.approx(0.4, abs=1e-3)


def test_classifier_density():
    how = {"scope": "layer", "classifier_density": 0.9, "input_shape": (3, 6, 6)}
    kept = {name: float(m.float().mean()) for name, m in prune(Net(), "synflow", 0.2, **how).items()}
    assert kept["fc.weight"] == pytest.approx(0.9, abs=0.04)
    assert kept["c1.weight"] == pytest.approx(0.2, abs=0.01)


def test_which_parameters_are_pruned():
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ConvTranspose2d(3, 2, 2), nn.Conv3d(2, 2, 1), nn.BatchNorm1d(3),
                        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))  # fmt: skip
    assert list(prune(net, "magnitude", 0.5)) == ["0.weight", "1.weight", "2.weight", "4.0.weight", "4.1.weight"]
    assert list(prune(net, "magnitude", 0.5, exclude=["0", "2.weight", "4"])) == ["1.weight"]
    assert list(prune(net, "magnitude", 0.5, exclude="4.*", biases=True))[:2] == ["0.weight", "0.bias"]
    net[4][1].weight = net[4][0].weight
    assert "4.1.weight" not in prune(net, "magnitude", 0.5)


def _state(net: nn.Module) -> dict:
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {
        "values": {name: (t, t.detach().clone(), t.requires_grad, t._version) for name, t in tensors.items()},
        "grads": {name: None if p.grad is None else (p.grad, p.grad.clone()) for name, p in net.named_parameters()},
        "training": {name: m.training for name, m in net.named_modules()},
        "attributes": {name: list(m.__dict__) for name, m in net.named_modules()},
        "hooks": list(net._forward_pre_hooks.values()),
    }


def _assert_as_it_was(net: nn.Module, before: dict) -> None:
    after = _state(net)
    assert after["training"] == before["training"] and after["attributes"] == before["attributes"]
    assert after["hooks"] == before["hooks"]
    for name, (tensor, value, learns, version) in before["values"].items():
        now = after["values"][name]
        assert now[0] is tensor and torch.equal(now[1], value) and now[2:] == (learns, version), name
    for name, grad in before["grads"].items():
        now = after["grads"][name]
        assert now is grad is None or (now[0] is grad[0] and torch.equal(now[1], grad[1])), name


def _used(net: nn.Module) -> nn.Module:
    """With gradients, statistics, frozen parameters and a part in evaluation mode."""
    net(torch.randn(2, 3, 6, 6)).sum().backward()
    net.fc.weight.requires_grad_(False)
    net.b1.eval()
    return net


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("method", ["magnitude", "random", "snip", "grasp", "synflow"])
def test_the_model_stays_as_it_was(method, train_mode):
    for net in (_used(Net()), hn.hide(_used(Net())), hn.hide(Net(), exclude="c2", rule=hn.TopK(0.5, scope="global"))):
        batches = _batches()
        before, state = _state(net), torch.get_rng_state()
        prune(net, method, 0.3, iterations=2, batches=batches, train_mode=train_mode, exclude="c2")
        _assert_as_it_was(net, before)
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
def test_the_model_stays_as_it_was_when_it_raises(method, monkeypatch):
    class Failing(Net):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("no luck")

    monkeypatch.setattr(synflow, "MANY_WEIGHTS", 0)
    for net in (_used_without_call(Failing()), hn.hide(_used_without_call(Failing()))):
        before = _state(net)
        with pytest.raises(RuntimeError, match="no luck"):
            prune(net, method, 0.3, batches=_batches())
        _assert_as_it_was(net, before)


def _used_without_call(net: nn.Module) -> nn.Module:
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    net.fc.weight.requires_grad_(False)
    net.b1.eval()
    return net


@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "synflow"])
def test_hidden_layers_are_pruned_as_their_sources(method):
    """Generated or stored, whatever is revealed: as the plain network of those weights."""
    plain, batches = Net(), _batches()
    twin = hn.hide(copy.deepcopy(plain), source=hn.Stored(), rule=hn.TopK(0.3))
    drawn = hn.hide(copy.deepcopy(plain), source=hn.Generated("kaiming_normal", seed=2), include=["c1", "c2"])
    drawn_twin = copy.deepcopy(plain)
    with torch.no_grad():
        for name in ("c1", "c2"):
            getattr(drawn_twin, name).weight.copy_(getattr(drawn, name).source_weight())
    for hidden, same in ((twin, plain), (drawn, drawn_twin)):
        found, want = (prune(net, method, 0.3, iterations=2, batches=batches) for net in (hidden, same))
        assert list(found) == list(want) == ["c1.weight", "c2.weight", "fc.weight"]
        assert all(torch.equal(found[name], want[name]) for name in want)


def test_hidden_layers_left_out_compute_as_they_do():
    net = hn.hide(Net(), rule=hn.TopK(0.4), include=["c2"], source=hn.Stored())
    twin = Net()
    twin.load_state_dict({k: v for k, v in net.state_dict().items() if k in twin.state_dict()}, strict=False)
    with torch.no_grad():
        hn.select(net)
        twin.c2.weight.copy_(net.c2.effective_weight())
    found, want = (prune(n, "snip", 0.3, batches=_seeded(), exclude="c2") for n in (net, twin))
    assert all(torch.equal(found[name], want[name]) for name in want)


def _seeded():
    torch.manual_seed(3)
    return _batches()


def test_layers_with_another_backward_are_pruned_by_the_true_one():
    """A layer of this package whose gradient is coarser than its forward's derivative."""

    class Coarse(nn.Conv2d):
        def forward(self, x):
            exact = super().forward(x)
            return exact.detach() + 0.5 * (exact - exact.detach())

    Coarse.__module__ = "hiddennet.nn.coarse"
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    net.c2 = Coarse(4, 6, 3, stride=2, padding=1, bias=False)
    net.c2.weight = nn.Parameter(twin.c2.weight.detach().clone())
    for method in ("snip", "synflow"):
        found, want = (prune(n, method, 0.3, batches=_seeded()) for n in (net, twin))
        assert all(torch.equal(found[name], want[name]) for name in want)


def test_what_is_not_scaled_is_said(monkeypatch, caplog):
    """Shifts and other functions than piecewise linear ones: in float64, unscaled, with a note; equal to the oracle."""
    monkeypatch.setattr(synflow, "MANY_WEIGHTS", 0)
    shifted = Net()
    shifted.b1.bias.data.normal_()
    curved = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(64, 3))
    for net, reason in ((shifted, "b1 adds a bias"), (curved, "GELU 1 does not scale")):
        with caplog.at_level(logging.INFO, "hiddennet.pruning"):
            found = prune(net, "synflow", 0.3, iterations=3, input_shape=(3, 6, 6))
        assert reason in caplog.text and "float64" in caplog.text
        want = oracle.prune(net, list(found), "synflow", densities(0.3, 3), input_shape=(3, 6, 6))
        assert all(torch.equal(found[key], want[key]) for key in want)


NET = Net()
OVERFLOWING = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
for _p in OVERFLOWING.parameters():
    _p.data.fill_(torch.inf)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prune(NET, "magnitude", 0.0), ValueError, r"a density in \(0, 1\], got 0.0"),
        (lambda: prune(NET, "magnitude", 1.01), ValueError, r"a density in \(0, 1\], got 1.01"),
        (lambda: prune(NET, "magnitude", math.nan), ValueError, r"a density in \(0, 1\], got nan"),
        (lambda: prune(NET, "magnitude", "half"), TypeError, "density to be a number, got str"),
        (lambda: prune(NET, "flip", 0.5), ValueError, "method to be 'magnitude' or .*, got 'flip'"),
        (lambda: prune(NET, "magnitude", 0.5, schedule="cosine"), ValueError, "'exponential' or 'linear'"),
        (lambda: prune(NET, "magnitude", 0.5, scope="net"), ValueError, "'global' or 'layer', got 'net'"),
        (lambda: prune(NET, "magnitude", 0.5, iterations=0), ValueError, "iterations of 1 or more, got 0"),
        (lambda: prune(NET, "magnitude", 0.5, seed=-1), ValueError, "seed in"),
        (lambda: prune(NET, "snip", 0.5), ValueError, "expected batches for 'snip', got none"),
        (lambda: prune(NET, "grasp", 0.5, batches=[]), ValueError, "batches for 'grasp', got an empty list"),
        (lambda: prune(NET, "grasp", 0.5, batches=[1]), ValueError, r"\(input, target\) tensors, got int"),
        (lambda: prune(NET, "synflow", 0.5), ValueError, "expected input_shape for 'synflow', got none"),
        (lambda: prune(nn.ReLU(), "magnitude", 0.5), ValueError, "weights to prune, got none of 0"),
        (lambda: prune(NET, "magnitude", 0.5, exclude="*"), ValueError, "weights to prune, got none of 3"),
        (lambda: prune(NET, "magnitude", 0.5, exclude="c9"), ValueError, "exclude to name .*, got 'c9'; there are c1"),
        (lambda: prune(lambda x: x, "magnitude", 0.5), TypeError, "an nn.Module, got function"),
        (lambda: prune(nn.LazyLinear(3), "magnitude", 0.5), ValueError, "to have values, got none"),
        (lambda: prune(OVERFLOWING, "magnitude", 0.5), ValueError, r"finite scores, .* in 0.weight \(and in 1 o"),
        (lambda: prune(OVERFLOWING, "synflow", 0.5, input_shape=(3,)), ValueError, "finite scores, .* in 0.weight"),
        (lambda: prune(NET, "magnitude", 0.5, classifier_density=0.5), ValueError, "scope='layer' with"),
        (lambda: prune(NET, "magnitude", 0.5, scope="layer", classifier_density=2.0), ValueError, "got 2.0"),
        (lambda: prune(NET, "magnitude", 0.5, scope="layer", classifier_density=0.5, num_classes=7), ValueError,
         "a classifier of 7 rows"),
        (lambda: prune(NET, "magnitude", 0.5, start={}), ValueError, "start to hold a mask of each of c1.weight"),
        (lambda: prune(NET, "magnitude", 0.5, dtype=torch.float16), ValueError, "dtype torch.float32 or torch.float64"),
        (lambda: steps(NET, "magnitude", 2.0), ValueError, "got 2.0"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_parametrization_is_refused_by_name():
    net = Net()
    nn.utils.parametrizations.weight_norm(net.c2)
    with pytest.raises(ValueError, match="expected c2.weight to be a parameter"):
        prune(net, "magnitude", 0.5)
    assert list(prune(net, "magnitude", 0.5, exclude="c2")) == ["c1.weight", "fc.weight"]
