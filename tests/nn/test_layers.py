"""HiddenConv2d and HiddenLinear: torch's layers in every habit, whatever source and rule."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hiddennet as hn
from hiddennet.nn import rules
from tests import reference
from tests.checks import assert_equal

MASK = torch.rand(6, 4, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.3
CASES = {
    "edge_popup": {"source": hn.Generated(seed=5), "rule": hn.TopK(0.3)},
    "by_value": {"source": hn.Generated("kaiming_normal"), "rule": hn.TopK(0.5, by="value")},
    "sampled": {"source": hn.Generated("xavier_constant"), "rule": hn.Sampled(seed=2)},
    "sampled_draw": {"source": hn.Generated(), "rule": hn.Sampled(evaluation="draw")},
    "threshold": {"source": hn.Generated("standard"), "rule": hn.Threshold(0.01)},
    "fixed": {"source": hn.Stored(trainable=True), "rule": hn.Fixed(MASK)},
    "wiring": {
        "source": hn.Stored(trainable=True, gradient="through"),
        "rule": hn.TopK(0.3, of="weights"),
    },
    "targeted_dropout": {"source": hn.Stored(trainable=True), "rule": hn.TargetedDropout(0.3, 0.5, seed=2)},
    "dense": {"source": hn.Stored(trainable=True), "rule": hn.All()},
    "random_network": {"source": hn.Generated(), "rule": hn.All()},
}


def layer(case: str, **more) -> hn.HiddenConv2d:
    return hn.HiddenConv2d(4, 6, 3, padding=1, **CASES[case], **more)


@pytest.mark.parametrize("case", CASES)
def test_forward_is_the_convolution_with_the_effective_weight(case):
    conv, x = layer(case, bias=True), torch.randn(2, 4, 8, 8)
    for training in (True, False):
        conv.train(training)
        weight = copy.deepcopy(conv).effective_weight()  # a copy, since a sampled layer draws anew at each forward
        assert_equal(conv(x), F.conv2d(x, weight, conv.bias, padding=1))


@pytest.mark.parametrize("case", CASES)
def test_backward_reaches_what_learns_and_nothing_else(case):
    conv = layer(case)
    learns = {name for name, p in conv.named_parameters() if p.requires_grad}
    stored = ("fixed", "wiring", "targeted_dropout", "dense")
    assert learns == ({"weight"} if case in stored else set() if case == "random_network" else {"scores"})
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    conv(x).square().sum().backward()
    assert bool((x.grad != 0).any())
    for name in learns:
        assert bool((dict(conv.named_parameters())[name].grad != 0).any())
    if case == "fixed":
        assert not bool(conv.stored.grad[~MASK].any())
    if case == "wiring":
        assert bool(conv.stored.grad[~conv.mask()].any())


@pytest.mark.parametrize("case", CASES)
def test_deepcopy_pickle_and_state_dict(case):
    conv, x = layer(case), torch.randn(1, 4, 5, 5)
    conv(x)
    conv.eval()
    want = conv(x)
    assert_equal(copy.deepcopy(conv)(x), want)
    assert_equal(pickle.loads(pickle.dumps(conv))(x), want)
    file = io.BytesIO()
    torch.save(conv.state_dict(), file)
    file.seek(0)
    other = layer(case).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_equal(other(x), want)


@pytest.mark.parametrize("case", CASES)
def test_compiles_in_one_graph_and_learns_the_same(case):
    torch._dynamo.reset()
    plain, x = layer(case), torch.randn(2, 4, 6, 6)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        outs = []
        for model, run in ((plain, plain), (twin, compiled)):
            out = run(x)
            outs.append(out)
            if out.requires_grad:
                out.square().sum().backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= 0.05 * p.grad
                        p.grad = None
        torch.testing.assert_close(outs[0], outs[1])


@pytest.mark.parametrize("case", CASES)
def test_channels_last_gives_the_same_mask(case):
    conv = layer(case).eval()
    want = conv.mask()
    moved = copy.deepcopy(conv).to(memory_format=torch.channels_last)
    assert_equal(moved.mask(), want)
    x = torch.randn(2, 4, 7, 7)
    torch.testing.assert_close(moved(x.contiguous(memory_format=torch.channels_last)), conv(x))


@pytest.mark.parametrize("case", CASES)
def test_meta_and_autocast(case):
    out = layer(case, device="meta")(torch.empty(2, 4, 8, 8, device="meta"))
    assert out.shape == (2, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(case)(torch.randn(2, 4, 8, 8)).dtype == torch.bfloat16


def test_the_mask_is_exactly_k_and_follows_the_scores():
    conv = layer("edge_popup")
    n = conv.weight_shape.numel()
    assert conv.k == n - int(0.7 * n) == int(conv.mask().sum())
    for _ in range(3):
        with torch.no_grad():
            conv.scores.copy_(torch.randn_like(conv.scores))
        assert_equal(conv.mask(), reference.topk_mask(conv.scores, conv.k, by="magnitude"))
    conv.scores.data.copy_(torch.randn_like(conv.scores))  # behind autograd's back: training selects anyway
    conv(torch.randn(1, 4, 5, 5))
    assert_equal(conv.mask(), reference.topk_mask(conv.scores, conv.k, by="magnitude"))


def test_evaluation_selects_once(monkeypatch):
    conv, calls = layer("edge_popup").eval(), []
    original = rules.topk_select_
    monkeypatch.setattr(rules, "topk_select_", lambda *a: calls.append(1) or original(*a))
    for _ in range(3):
        conv(torch.randn(1, 4, 5, 5))
    assert len(calls) == 1


def test_sampled_training_draws_anew_and_evaluation_does_not():
    conv, x = layer("sampled_draw"), torch.randn(1, 4, 6, 6)
    assert not torch.equal(conv(x), conv(x))
    conv.eval()
    assert_equal(conv(x), conv(x))
    twin = layer("sampled_draw")
    twin.load_state_dict(conv.state_dict())
    conv.train(), twin.train()
    assert_equal(conv(x), twin(x))  # the draw counter is in the state dict


def test_expectation_is_the_mean_of_draws():
    conv = layer("sampled")
    expectation = conv.eval().effective_weight().detach()
    total = torch.zeros_like(expectation)
    conv.train()
    for _ in range(2000):
        total += conv.effective_weight().detach()
        conv.draw += 1
    scale = float(expectation.abs().max())
    torch.testing.assert_close(total / 2000, expectation, rtol=0, atol=0.1 * scale)


def test_gradient_of_the_input_is_a_true_derivative():
    """gradcheck in float64 through the convolution with the frozen effective weight."""
    conv = layer("edge_popup")
    weight = conv.effective_weight().detach().double()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: F.conv2d(t, weight, padding=1), x)
    x32 = x.detach().float().requires_grad_()
    grad = torch.randn(1, 6, 5, 5)
    (want,) = torch.autograd.grad(F.conv2d(x, weight, padding=1), x, grad.double())
    (got,) = torch.autograd.grad(conv(x32), x32, grad)
    torch.testing.assert_close(got, want.float(), rtol=1e-4, atol=1e-5)


def test_a_state_dict_of_another_seed_is_refused():
    with pytest.raises(ValueError, match="source seed=5, got 6"):
        layer("edge_popup").load_state_dict(
            hn.HiddenConv2d(4, 6, 3, source=hn.Generated(seed=6), rule=hn.TopK(0.3)).state_dict()
        )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hn.TopK(1.4), ValueError, "density in \\[0, 1\\].*got 1.4"),
        (lambda: hn.TopK(0.5, scope="model"), ValueError, "'layer' or 'global'"),
        (lambda: hn.Generated("kaiming"), ValueError, "expected init to be"),
        (lambda: hn.Generated(seed=-1), ValueError, "expected seed"),
        (lambda: hn.Sampled(evaluation="mean"), ValueError, "'expectation' or 'draw'"),
        (lambda: hn.Stored(gradient="none"), ValueError, "'masked' or 'through'"),
        (lambda: hn.HiddenLinear(3, 2, rule=hn.Fixed(torch.ones(3, 2).bool())), ValueError, r"mask of shape \(2, 3\)"),
        (lambda: hn.HiddenLinear(3, 2, source=hn.Stored(torch.ones(3, 3))), ValueError, "stored weight of shape"),
        (lambda: hn.HiddenLinear(3, 2, source="random"), TypeError, r"Generated\(\) or Stored\(\), got str"),
        (
            lambda: hn.HiddenLinear(3, 2, rule=hn.TopK(0.5, of="weights")),
            ValueError,
            "expected a source that stores its weights",
        ),
        (
            lambda: hn.HiddenLinear(3, 2, source=hn.Generated(scale_fan=True), rule=hn.Sampled()),
            ValueError,
            "rule with a density",
        ),
        (
            lambda: hn.HiddenLinear(3, 2, rule=hn.TopK(0.5, scope="global"))(torch.ones(1, 3)),
            RuntimeError,
            "selection over the whole model",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_padding_modes_and_unbatched_input():
    conv = hn.HiddenConv2d(2, 3, 3, padding=1, padding_mode="circular").eval()
    x = torch.randn(2, 5, 5)
    want = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False)
    with torch.no_grad():
        want.weight.copy_(conv.effective_weight())
    assert_equal(conv(x), want(x).detach())
