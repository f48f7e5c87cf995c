"""Gradients that are owed until somebody reads them: the step takes the same bits, and every reader finds them."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hiddennet as hn
from hiddennet import config, optim
from hiddennet.optim import optimizers
from hiddennet.optim.deferred import Deferred
from tests.checks import assert_equal

OPTIONS = {"lr": 0.05, "weight_decay": 1e-3, "clamp": None}
RULES = {
    "magnitude": lambda: hn.TopK(0.5),
    "value": lambda: hn.TopK(0.3, by="value"),
    "all layers": lambda: hn.TopK(0.4, scope="global"),
    "kth value": lambda: hn.nn.KthValue(0.5),
    "n of m": lambda: hn.nn.Grouped(2, 4),
    "sampled": lambda: hn.nn.Sampled(),
    "rounded": lambda: hn.nn.Rounded(0.0),
}
SOURCES = {
    "signs": lambda: hn.Generated("signed_constant", seed=3),
    "normals": lambda: hn.Generated("kaiming_normal", seed=3),
    "uniforms": lambda: hn.Generated("kaiming_uniform", seed=3),
    "constant": lambda: hn.Generated("unsigned_constant", seed=3),
    "stored": lambda: hn.Stored(),
}


def network(rule=RULES["magnitude"], source=SOURCES["signs"], layout=torch.contiguous_format) -> nn.Module:
    """Channels in eights and not, 3x3, 5x5 and 1x1 kernels, sizes that are no multiple of 8, a bias, a norm."""
    torch.manual_seed(0)
    layers = (
        *(nn.Conv2d(4, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 16, 1, bias=False)),
        *(nn.Conv2d(16, 24, 3, bias=False), nn.ReLU(), nn.Conv2d(24, 7, 5, bias=False), nn.Flatten(), nn.Linear(28, 5)),
    )
    excluded = (lambda name, module: name in ("3", "6", "8")) if rule is RULES["n of m"] else None
    model = nn.Sequential(*layers)
    model = hn.hide(model, source=lambda *_: source(), rule=lambda *_: rule(), exclude=excluded or (lambda *_: False))
    return model.to(memory_format=layout)


def batch(layout=torch.contiguous_format) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(6, 4, 8, 8).contiguous(memory_format=layout), torch.arange(6) % 5


def owing(model: nn.Module) -> list[bool]:
    return [layer.scores.owed is not None for layer in hn.hidden_layers(model).values()]


def backward(model: nn.Module, layout=torch.contiguous_format, dtype=None) -> None:
    x, y = batch(layout)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(x)
    F.cross_entropy(logits.float(), y).backward()


def twins(make=optim.ScoreSGD, **options) -> tuple:
    """Two equal networks with an optimiser each."""
    one = network(**{k: options.pop(k) for k in ("rule", "source", "layout") if k in options})
    other = copy.deepcopy(one)
    return one, make(one.parameters(), **OPTIONS | options), other, make(other.parameters(), **OPTIONS | options)


def check_equal(one: nn.Module, optimizer, other: nn.Module, beside) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert_equal(p, q)
        for name, value in optimizer.state.get(p, {}).items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(beside.state[q][name]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rule", "source"), [*((rule, "signs") for rule in RULES), *(("magnitude", source) for source in SOURCES)]
)
def test_the_step_takes_the_bits_of_two_passes(rule, source, dtype, layout):
    one, optimizer, other, beside = twins(
        rule=RULES[rule], source=SOURCES[source], layout=layout, momentum=0.9, nesterov=True
    )
    for _ in range(3):
        for model, own in ((one, optimizer), (other, beside)):
            own.zero_grad()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if model is one:
                    backward(model, layout, dtype)
                    assert all(owing(model))
                else:
                    with optim.whole_gradients():
                        backward(model, layout, dtype)
                    assert not any(owing(model))
            own.step()
    check_equal(one, optimizer, other, beside)
    for mine, theirs in zip(*(hn.hidden_layers(model).values() for model in (one, other)), strict=True):
        assert mine.scores.grad is None and theirs.scores.grad is not None


@pytest.mark.parametrize("make", [optim.ScoreSGD, optim.ScoreAdam])
def test_flags_regulariser_and_clamp(make):
    one, optimizer, other, beside = twins(make, rule=RULES["rounded"], l1=0.01, l2=0.02, clamp=(-0.1, 0.1))
    for model, own in ((one, optimizer), (other, beside)):
        for layer in hn.hidden_layers(model).values():
            layer.flags.copy_(torch.arange(len(layer.flags)) % 251)
        own.set_flags({layer.scores: layer.flags for layer in hn.hidden_layers(model).values()})
    for _ in range(2):
        backward(one)
        assert all(owing(one))
        optimizer.step()
        with optim.whole_gradients():
            backward(other)
        beside.step()
        for own in (optimizer, beside):
            own.zero_grad()
    check_equal(one, optimizer, other, beside)


def readers(model: nn.Module, optimizer) -> dict:
    """Ways to read gradients between backward and step, each with what it does to them."""
    scores = [layer.scores for layer in hn.hidden_layers(model).values()]
    return {
        "clipping": lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01),
        "foreach": lambda: torch._foreach_mul_([p.grad for p in scores], 2.0),
        "in place": lambda: scores[0].grad.mul_(3.0),
        "another one": lambda: setattr(scores[0], "grad", torch.ones_like(scores[0])),
        "none": lambda: setattr(scores[0], "grad", None),
        "a hook before the step": lambda: optimizer.register_step_pre_hook(
            lambda *_: [p.grad.sign_() for p in scores] and None
        ),
        "a second backward": lambda: backward(model),
        "a regulariser": lambda: sum(p.abs().sum() for p in scores).backward(),
    }


@pytest.mark.parametrize("reader", readers(network(), None))
def test_who_reads_finds_them(reader):
    one, optimizer, other, beside = twins(momentum=0.9)
    for model, own in ((one, optimizer), (other, beside)):
        if model is one:
            backward(model)
            readers(model, own)[reader]()
        else:
            with optim.whole_gradients():
                backward(model)
                readers(model, own)[reader]()
        own.step()
    check_equal(one, optimizer, other, beside)


def test_hooks_of_parameters_are_called_with_them():
    model = network()
    scores = [layer.scores for layer in hn.hidden_layers(model).values()]
    optim.ScoreSGD(model.parameters(), **OPTIONS)
    seen = []
    scores[0].register_hook(lambda g: seen.append(g.clone()))
    scores[1].register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    backward(model)
    assert owing(model) == [False, False, True, True, True]
    assert_equal(seen[1], scores[0].grad)
    assert_equal(seen[0], scores[1].grad)


def test_gradients_that_are_asked_for_are_returned():
    """torch.autograd.grad, backward(inputs=...), retained graphs, gradients of gradients through the input."""
    model, (x, y) = network(), batch()
    optimizer = optim.ScoreSGD(model.parameters(), **OPTIONS)
    scores = [layer.scores for layer in hn.hidden_layers(model).values()]
    loss = F.cross_entropy(model(x), y)
    asked = torch.autograd.grad(loss, scores, retain_graph=True)
    assert not any(owing(model)) and all(p.grad is None for p in scores)
    loss.backward(inputs=scores[1:2], retain_graph=True)
    assert owing(model) == [False, True, False, False, False]
    loss.backward(retain_graph=True)  # adds
    for p, g in zip(scores, asked, strict=True):
        assert_equal(p.grad, g + g if p is scores[1] else g)
    optimizer.zero_grad()
    loss.backward()
    for p, g in zip(scores, asked, strict=True):
        assert_equal(p.grad, g)


def test_a_weight_of_two_layers_gets_the_sum():
    """Shared modules and shared scores: both uses count, as for torch's optimisers."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6, bias=False)

        def forward(self, x):
            return self.inner(self.inner(x).relu())

    torch.manual_seed(0)
    one = hn.hide(Twice())
    other = copy.deepcopy(one)
    x = torch.randn(4, 6)
    optimizer = optim.ScoreSGD(one.parameters(), **OPTIONS)
    beside = torch.optim.SGD(other.parameters(), 0.05)
    one(x).square().sum().backward()
    other(x).square().sum().backward()
    assert_equal(one.inner.scores.grad, other.inner.scores.grad)
    assert optimizer.step() is None and beside.step() is None


def test_gradient_scaler_and_torchs_own_optimizer():
    one, optimizer, other, beside = twins()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    x, y = batch()
    scaler.scale(F.cross_entropy(one(x), y)).backward()
    assert all(owing(one))
    scaler.step(optimizer)
    with optim.whole_gradients():
        (8.0 * F.cross_entropy(other(x), y)).backward()
    for p in other.parameters():
        p.grad.mul_(0.125)
    beside.step()
    check_equal(one, optimizer, other, beside)
    one.zero_grad()
    backward(one)
    torch.optim.SGD(one.parameters(), 0.1).step()  # of deferred parameters, too
    with optim.whole_gradients():
        other.zero_grad()
        backward(other)
    torch.optim.SGD(other.parameters(), 0.1).step()
    check_equal(one, optimizer, other, beside)


def test_what_moves_between_backward_and_step_is_refused():
    model = network()
    optimizer = optim.ScoreSGD(model.parameters(), **OPTIONS)
    scores = next(iter(hn.hidden_layers(model).values())).scores
    backward(model)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        scores.clamp_(0.0, 1.0)
    kept = scores.detach().clone()
    with pytest.raises(RuntimeError, match="written to in between, so that the step has no gradient; read their .grad"):
        optimizer.step()
    assert_equal(scores, kept)
    for p, was in zip(model.parameters(), before, strict=True):
        assert p is scores or torch.equal(p, was)
    with pytest.warns(UserWarning, match="there is no .grad"):
        assert scores.grad is None
    model.zero_grad()
    backward(model)
    optimizer.step()


def test_moving_scores_whose_gradient_is_dropped_says_nothing():
    model = network()
    optimizer = optim.ScoreSGD(model.parameters(), **OPTIONS)
    backward(model)
    model.load_state_dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.zero_grad()
    backward(model)
    optimizer.step()


@pytest.mark.parametrize("whole", [False, True])
def test_reading_changes_nothing_without_zero_grad(whole):
    """Gradients that were owed are gone after the step, read or not; those that were not pile up, as for torch."""
    one, optimizer, other, beside = twins(momentum=0.9)
    before = copy.deepcopy(one)
    torchs = torch.optim.SGD(before.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(3):
        for model, own in ((one, optimizer), (other, beside), (before, torchs)):
            with optim.whole_gradients() if whole else contextlib.nullcontext():
                backward(model)
            if model is one:
                torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
            own.step()
            for layer in hn.hidden_layers(model).values():
                assert (layer.scores.grad is None) == (model is not before and not whole)
    check_equal(one, optimizer, other, beside)
    for p, q in zip(one.parameters(), before.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6) or not whole


@pytest.mark.parametrize("second", [None, torch.optim.SGD, optim.ScoreAdam])
def test_a_step_whose_gradients_an_earlier_one_took_says_so(second):
    model = network()
    scores = [layer.scores for layer in hn.hidden_layers(model).values()]
    optimizer = optim.ScoreSGD(scores, **OPTIONS)
    again = optimizer if second is None else second(scores, 0.1)
    backward(model)
    optimizer.step()
    kept = [p.detach().clone() for p in scores]
    with pytest.warns(UserWarning, match=f"^{type(again).__name__}.step: expected a backward .* for 5 parameters"):
        again.step()
    for p, was in zip(scores, kept, strict=True):
        assert_equal(p, was)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.step()  # said once
        for clear in (model.zero_grad, optimizer.zero_grad, lambda: optimizer.zero_grad(set_to_none=False)):
            backward(model)
            optimizer.step()
            clear()
            again.step()
        with optim.whole_gradients():
            backward(model)
        optimizer.step()
        again.step()
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        optimizer.step(lambda: backward(model))
    assert not any(torch.equal(p, was) for p, was in zip(scores, kept, strict=True))


def test_accumulation_over_a_write_is_refused():
    """The first gradient, which was not made yet, would be lost."""
    model = network()
    optimizer = optim.ScoreSGD(model.parameters(), **OPTIONS)
    scores = next(iter(hn.hidden_layers(model).values())).scores
    backward(model)
    with torch.no_grad():
        scores.clamp_(-0.1, 0.1)
    with pytest.raises(RuntimeError, match="second backward cannot add to the gradient of the first; read their .grad"):
        backward(model)
    optimizer.zero_grad()
    backward(model)
    optimizer.step()


def test_copies_and_pickles_owe_nothing():
    model = network()
    optimizer = optim.ScoreSGD(model.parameters(), **OPTIONS)
    backward(model)
    twin, (again, own) = copy.deepcopy(model), pickle.loads(pickle.dumps((model, optimizer)))
    assert all(p.grad is None for m in (twin, again) for p in m.parameters())
    assert all(owing(model)) and not any(owing(twin)) and not any(owing(again))
    backward(again)
    assert all(owing(again))
    own.step()
    assert isinstance(next(model.parameters()), nn.Parameter)


def test_the_class_is_only_taken_by_plain_parameters():
    class Mine(nn.Parameter):
        pass

    mine, plain, shift = Mine(torch.rand(3, 1)), nn.Parameter(torch.rand(3, 1)), nn.Parameter(torch.rand(3))
    optim.ScoreAdam([mine, plain, shift])
    assert type(mine) is Mine and type(plain) is Deferred and type(shift) is nn.Parameter
    plain.grad = torch.ones(3, 1)
    del plain.grad
    assert plain.grad is None


@pytest.mark.parametrize("make", [optim.ScoreSGD, optim.ScoreAdam])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_one_graph_and_trains_the_same(backend, make):
    torch.manual_seed(0)
    one = hn.hide(nn.Sequential(nn.Linear(6, 16, bias=False), nn.ReLU(), nn.Linear(16, 5)))
    other, before = copy.deepcopy(one), copy.deepcopy(one)
    for model, compiled in ((one, True), (other, False)):
        optimizer = make(model.parameters(), **OPTIONS)
        run = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        F.cross_entropy(run(torch.linspace(-1, 1, 24).view(4, 6)), torch.arange(4)).backward()
        optimizer.step()
    for p, q, was in zip(one.parameters(), other.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        assert not torch.equal(p, was)


@pytest.mark.parametrize("make", [optim.ScoreSGD, torch.optim.SGD])
def test_a_gradient_of_a_gradient_of_scores_is_refused(make):
    """Penalties on gradients: the straight-through gradient has none, which is said as for torch's optimisers."""
    layer = hn.nn.HiddenLinear(8, 4, rule=hn.TopK(0.5))
    make([layer.scores], 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of the cycle that create_graph makes
        layer(torch.ones(2, 8)).square().sum().backward(create_graph=True)
    found, layer.scores.grad = layer.scores.grad, None
    assert found.requires_grad
    with pytest.raises(RuntimeError, match="differentiate twice"):
        (layer(torch.ones(2, 8)).sum() + found.square().sum()).backward()


def test_a_state_of_torchs_sgd_is_taken_over():
    """Checkpoints of runs whose optimiser was torch's: rate and momentum go on."""
    model = network()
    torchs = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    backward(model)
    torchs.step()
    ours = optim.ScoreSGD(model.parameters(), 1.0, momentum=0.1, clamp=None, l2=0.5)
    ours.load_state_dict(torchs.state_dict())
    (group,) = ours.param_groups
    assert (group["lr"], group["momentum"], group["clamp"], group["l2"]) == (0.05, 0.9, None, 0.5)
    p = next(model.parameters())
    assert_equal(ours.state[p]["momentum_buffer"], torchs.state[p]["momentum_buffer"])
    backward(model)
    ours.step()


def make(*overrides: str):
    return config.load("digits", list(overrides))


def test_the_config_takes_it_where_scores_learn():
    model = network()
    assert type(optimizers.build(model, make().optimizer)) is optim.ScoreSGD
    assert type(optimizers.build(network(), make("optimizer.name=adam").optimizer)) is optim.ScoreAdam
    assert type(optimizers.build(network(), make("optimizer.name=adamw").optimizer)) is torch.optim.AdamW
    assert type(optimizers.build(network(), make("optimizer.clip_norm=1.0").optimizer)) is torch.optim.SGD
    assert type(optimizers.build(nn.Linear(3, 4), make().optimizer)) is torch.optim.SGD
