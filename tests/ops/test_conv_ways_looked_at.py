"""Convolutions whose forward is more than its numbers are the library's: traced, exported, counted, transformed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import hiddennet as hn
from hiddennet.ops import conv_ways, masked_conv


@pytest.fixture(autouse=True)
def _ours(measuring):
    measuring["panels"] = measuring["lists"] = measuring["tiles"] = 1.0


def _layer(frozen: bool = False) -> hn.HiddenConv2d:
    torch.manual_seed(3)
    layer = hn.HiddenConv2d(20, 24, 3, 1, 1).to(memory_format=torch.channels_last)
    return layer.requires_grad_(False).eval() if frozen else layer


def _images(*shape: int) -> Tensor:
    return torch.randn(*(shape or (9, 20, 6, 5))).contiguous(memory_format=torch.channels_last)


def _by_the_library(layer: nn.Module, x: Tensor) -> Tensor:
    layer.plan = "effective_weight"
    y = layer(x)
    layer.plan = None
    return y


def test_a_frozen_layer_in_evaluation_hands_the_gradient_on():
    """Saliency maps, attacks, and features of a frozen network below."""
    layer, x = _layer(frozen=True), _images().requires_grad_()
    (found,) = torch.autograd.grad(layer(x).square().sum(), x)
    (want,) = torch.autograd.grad(_by_the_library(layer, x).square().sum(), x)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("shape", [(4, 1, 9, 9), (4, 3, 1, 1), (1, 1, 5, 5)])
def test_a_layout_that_is_both_gives_the_librarys(shape):
    """Whoever flattens by view() counts on it."""
    layer, x = hn.HiddenConv2d(shape[1], 8, 3, padding=2), torch.randn(shape)
    y = layer(x)
    assert y.stride() == _by_the_library(layer, x).stride()
    assert y.view(len(x), -1).shape[1] == y[0].numel()


def test_a_batch_of_any_size_is_exported(monkeypatch):
    monkeypatch.setattr(masked_conv, "MEASURED_FROM", 1 << 22)
    layer = hn.HiddenConv2d(20, 24, 3, 1, 1).eval()
    program = torch.export.export(layer, (torch.randn(8, 20, 16, 16),), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert program.module()(torch.randn(60, 20, 16, 16)).shape[0] == 60


def test_operations_are_counted_once():
    layer, found = _layer(), []
    for plan in (None, "effective_weight"):
        layer.plan = plan
        with FlopCounterMode(display=False) as counter:
            layer(_images()).sum().backward()
        found.append(counter.get_total_flops())
    assert found[0] == found[1] > 0


@pytest.mark.parametrize("how", ["fake", "traced", "make_fx"])
def test_what_is_recorded_is_not_timed(how):
    layer, x = _layer(frozen=True), _images()
    if how == "fake":
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert layer(_images()).shape == (9, 24, 6, 5)
    else:
        with torch.no_grad():
            run = torch.jit.trace(layer, x) if how == "traced" else make_fx(layer)(x)
        torch.testing.assert_close(run(x), layer.train()(x))
        conv_ways._chosen.clear()
        run(x)
    assert not conv_ways._chosen


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("learning", [False, True])
def test_forward_mode_keeps_its_tangent(frozen, learning):
    layer, x, along = _layer(frozen), _images(), _images()
    with torch.set_grad_enabled(learning), forward_ad.dual_level():
        y = layer(forward_ad.make_dual(x, along))
        torch.testing.assert_close(forward_ad.unpack_dual(y).tangent, _by_the_library(layer, along))


def test_transforms_of_a_frozen_layer():
    layer, x = _layer(frozen=True), _images()
    layer(x)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (want,) = torch.autograd.grad(layer(leaf).square().sum(), leaf)
    torch.testing.assert_close(grad(lambda x: layer(x).square().sum())(x), want)
    with torch.no_grad():
        torch.testing.assert_close(vmap(layer)(x[None])[0], layer(x))


def test_gradients_that_come_in_batches():
    layer, x = _layer(), _images().requires_grad_()
    with pytest.raises(RuntimeError, match="expected one gradient at a time for a layer that learns"):
        torch.autograd.grad(layer(x).sum((0, 2, 3)), x, torch.eye(24), is_grads_batched=True)
    layer.requires_grad_(False)
    y = layer(x).sum((0, 2, 3))
    (found,) = torch.autograd.grad(y, x, torch.eye(24), is_grads_batched=True, retain_graph=True)
    (want,) = torch.autograd.grad(y[5], x)
    torch.testing.assert_close(found[5], want)


def test_a_penalty_is_float32_where_the_layer_was():
    layer, x = _layer(), _images()

    def slope(plan: str | None) -> Tensor:
        leaf, layer.plan = x.clone(memory_format=torch.preserve_format).requires_grad_(), plan
        with torch.autocast("cpu", torch.bfloat16):
            with torch.autocast("cpu", enabled=False):
                y = layer(leaf)
            return torch.autograd.grad(y.square().sum(), leaf, create_graph=True)[0]

    torch.testing.assert_close(slope(None), slope("effective_weight"), rtol=1e-4, atol=1e-4)
