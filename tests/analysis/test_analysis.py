"""Counts of kept and alive weights, against taking each weight out of a network in which every path shows."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from hiddennet import models, ops
from hiddennet.analysis import layer_report, table, total, training_cost
from hiddennet.analysis.paths import layers_of
from hiddennet.nn import HiddenMixin
from hiddennet.nn.expose import expose


def hidden(model: nn.Module, density: float, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return hn.hide(model, hn.Generated("signed_constant", seed=seed), hn.TopK(density))


class Residual(nn.Module):
    """Strides, a skip path, batch norm with a shift, a grouped convolution, functional activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=True)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.skip = nn.Conv2d(4, 6, 1, stride=2, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu6(self.norm(self.stem(x)), inplace=True)
        y = F.leaky_relu(self.first(x), 0.1)
        x = F.relu(self.second(y) + self.skip(x))
        return F.log_softmax(self.head(F.adaptive_avg_pool2d(x, 1).flatten(1)), dim=1)


class Shared(nn.Module):
    """One layer twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(5, 5, bias=False)
        self.never = nn.Linear(5, 5, bias=False)
        self.head = nn.Linear(5, 2, bias=False)

    def forward(self, x):
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


NETWORKS = {
    "mlp": (lambda: models.build("digits_mlp", num_classes=3, image_size=3, width=0.02), (1, 3, 3), 0.2),
    "convolutions and pooling": (lambda: models.build("digits_conv", num_classes=3, width=0.1), (1, 8, 8), 0.12),
    "2x2 images": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3, padding=1)),
                   (1, 2, 2), 0.7),
    "residual": (Residual, (1, 6, 6), 0.2),
    "shared": (Shared, (5,), 0.25),
}  # fmt: skip


def brute_force(model: nn.Module, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Alive weights: those without which the output of the network with positive weights changes.

    Nothing is negative there, so nothing cancels; the mean stands for the maximum of a pooling.
    """
    kept = hn.masks(model)
    probe = copy.deepcopy(model)
    expose(probe)
    probe = probe.double().eval()
    for parent in probe.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size))
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for name, layer in layers_of(probe).items():
            layer.weight.copy_(kept[name] * (0.5 + torch.rand(kept[name].shape)) * 0.01)
            layer.bias = None
        x = torch.rand(1, *shape, dtype=torch.float64) + 0.5
        whole = _last_but_softmax(probe, x)
        alive = {name: torch.zeros_like(mask) for name, mask in kept.items()}
        for name, mask in kept.items():
            flat = dict(layers_of(probe))[name].weight.view(-1)
            for index in mask.flatten().nonzero().flatten().tolist():
                value = flat[index].item()
                flat[index] = 0.0
                alive[name].view(-1)[index] = not torch.equal(_last_but_softmax(probe, x), whole)
                flat[index] = value
    return alive


def _last_but_softmax(probe: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits: the softmax would bring other classes' changes into each."""
    before = F.log_softmax, torch.tanh, F.relu6
    try:
        F.log_softmax = lambda x, dim: x
        torch.tanh = F.relu6 = lambda x, inplace=False: x
        return probe(x)
    finally:
        F.log_softmax, torch.tanh, F.relu6 = before


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_alive_is_what_the_output_needs(name, seed):
    build, shape, density = NETWORKS[name]
    model = hidden(build(), density, seed)
    want = brute_force(model, shape)
    dead = 0
    for found in layer_report(model, shape):
        assert found.kept == int(hn.masks(model)[found.name].count_nonzero())
        assert found.alive == int(want[found.name].count_nonzero()), found.name
        dead += found.kept - found.alive
    if name != "2x2 images":
        assert dead > 0  # the case is one in which something is to be found


def test_padding_kills_what_meets_only_zeros():
    """A 3x3 kernel with padding on one pixel: only its middle ever meets an image."""
    (found,) = layer_report(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), (2, 1, 1))
    assert (found.size, found.kept, found.alive, found.multiply_adds) == (54, 54, 6, 54)
    assert found.flags_kept is None and not found.hidden


def test_a_plain_network_is_alive_and_counted_by_its_positions():
    model = models.build("conv2", num_classes=10, image_size=8, in_channels=1)
    first, second, *linear = layer_report(model, (1, 8, 8))
    assert [first.multiply_adds, second.multiply_adds] == [64 * 9 * 64, 64 * 64 * 9 * 64]
    assert [r.multiply_adds for r in linear] == [r.size for r in linear]
    assert all(r.alive == r.kept == r.size and not r.hidden for r in (first, second, *linear))
    whole = total([first, second, *linear])
    assert whole.size == sum(p.numel() for p in model.parameters())
    assert whole.alive_multiply_adds == whole.multiply_adds


def test_a_layer_used_twice_counts_twice_and_an_unused_one_not():
    twice, never, _ = layer_report(hidden(Shared(), 0.5), (5,))
    assert twice.multiply_adds == 50 and twice.kept_multiply_adds == 2 * twice.kept
    assert (never.multiply_adds, never.alive) == (0, 0) and never.kept > 0


def test_flags_alone_and_with_rounding():
    model = hidden(models.build("digits_mlp", num_classes=3, image_size=3, width=0.02), 0.2)
    first, *_ = hn.hidden_layers(model).values()
    flags = torch.rand(first.weight_shape) < 0.6
    first.register_buffer("flags", ops.pack_mask(flags))
    report, *others = layer_report(model, (1, 3, 3))
    assert report.flags_kept == int(flags.count_nonzero())
    assert report.flags_density == report.flags_kept / report.size and report.density == report.kept / report.size
    assert all(other.flags_kept is None for other in others)
    assert total([report, *others]).flags_kept == report.flags_kept + sum(o.kept for o in others)


def test_the_model_stays_as_it_was():
    model = hidden(Residual(), 0.3).train()
    model.stem.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items() if torch.is_tensor(value)}
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    x = torch.randn(2, 1, 6, 6)
    wanted = copy.deepcopy(model)(x)
    layer_report(model, (1, 6, 6))
    after = {key: value for key, value in model.state_dict().items() if torch.is_tensor(value)}
    assert all(torch.equal(before[key], after[key]) for key in before | after)
    assert learns == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(x), wanted)


def test_pooling_whose_paths_are_not_known_is_refused():
    with pytest.raises(ValueError, match="expected pooling without dilation or indices"):
        layer_report(nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, dilation=2)), (1, 6, 6))


def test_other_hidden_layers_are_refused():
    class Odd(HiddenMixin, nn.Module):
        pass

    model = nn.Sequential(Odd())
    with pytest.raises(ValueError, match="expected convolutions and linear layers, got Odd 0"):
        layer_report(model, (1, 6, 6))


def test_the_table_has_a_line_a_layer_and_a_total():
    reports = layer_report(hidden(Residual(), 0.3), (1, 6, 6))
    lines = table(reports).splitlines()
    assert [line.split()[0] for line in lines] == ["layer", *(r.name for r in reports), "total"]
    assert f"{reports[0].density:.4%}" in lines[1] and len({len(line) for line in lines}) == 1


def test_the_cost_of_a_training_step_by_hand():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    mask = torch.zeros(3, 2, 3, 3, dtype=torch.bool)
    mask[:2] = True
    hn.hide(model, rule=hn.Fixed(mask), include="0")
    reports = layer_report(model, (2, 4, 4))
    conv, kept, linear = 54 * 16, 36 * 16, 48 * 5
    cost = training_cost(reports, input_bits=8, gradient_bits=16)
    assert cost.multiply_adds == 3 * (conv + linear)
    assert cost.kept_multiply_adds == 3 * (kept + linear)
    assert cost.dense_bit_operations == 3 * 1024 * (conv + linear)
    assert cost.bit_operations == (2048 + 128) * conv + 3072 * linear
    assert cost.kept_bit_operations == (2048 + 128) * kept + 3072 * linear
    assert training_cost(reports).bit_operations == cost.dense_bit_operations
