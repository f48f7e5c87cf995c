"""When a wiring makes its effective weight: once an optimiser's step, once an evaluation, and after every change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.nn.budget import KINDS
from hiddennet.nn.wiring import Wiring
from hiddennet.optim import optimizers

SPANS = ((0, 6, 0, 8), (6, 12, 0, 20))


class Counted(Wiring):
    """Counts how often it makes the effective weight."""

    made_weights = 0

    def _make(self):
        self.made_weights += 1
        return super()._make()


def counted(kind="dnw", **options):
    torch.manual_seed(0)
    return Counted(20, 12, 0.25, kind, **options)


def spent(made):
    before, made.made_weights = made.made_weights, 0
    return before


def run(made, times=3):
    for _ in range(times):
        made(torch.randn(2, 20)).sum().backward()


def now(made):
    """The effective weight as a wiring that remembers nothing has it."""
    twin = Wiring(20, 12, made.density, made.kind, chosen=made.chosen if made.kind in ("random", "fine_tune") else None)
    twin.load_state_dict(made.state_dict())
    return twin.eval().effective_weight().detach()


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 1.0, foreach=False),
    "sgd foreach": lambda p: torch.optim.SGD(p, 1.0, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 1.0, fused=True),
    "adam fused": lambda p: torch.optim.Adam(p, 1.0, fused=True),
    "adam foreach": lambda p: torch.optim.Adam(p, 1.0, foreach=True),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "dropout" not in kind])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_once_an_optimiser_step_however_often_it_runs(name, kind):
    made = counted(kind)
    optimizer = OPTIMISERS[name](made.parameters())
    run(made)
    assert spent(made) == 1
    for _ in range(3):
        optimizer.step()
        run(made)
        assert spent(made) == 1
        assert torch.equal(made.effective_weight().detach(), now(made))
    optimizers.step(optimizer)
    assert torch.equal(made.effective_weight().detach(), now(made))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_once_an_evaluation(kind, context):
    made = counted(kind)
    run(made)
    spent(made)
    made.eval()
    with context():
        for _ in range(4):
            made(torch.randn(2, 20))
            made.parts(SPANS)
    assert spent(made) == 1
    run(made.train())  # what was made in inference mode must not be in a graph
    assert made.weight.grad is not None


@pytest.mark.parametrize("kind", ["targeted_dropout", "regular_targeted_dropout"])
def test_a_dropout_draws_anew_in_training(kind):
    made = counted(kind).train()
    assert not torch.equal(made.effective_weight(), made.effective_weight())
    (first, _), _ = made.parts(SPANS)
    (second, _), _ = made.parts(SPANS)
    assert not torch.equal(first, second)


CHANGES = {
    "copied to": lambda made: made.weight.copy_(torch.randn(12, 20)),
    "one element": lambda made: made.weight[8, 3].fill_(100.0),
    "data, told": lambda made: (made.weight.data.normal_(), made.forget()),
    "another parameter": lambda made: setattr(made, "weight", nn.Parameter(torch.randn(12, 20))),
    "reset": lambda made: made.reset_parameters(),
    "loaded": lambda made: made.load_state_dict(counted().state_dict() | {"weight": torch.randn(12, 20)}),
    "assigned": lambda made: made.load_state_dict({"weight": torch.randn(12, 20)}, assign=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name):
    made = counted().eval()
    before = made.effective_weight().detach().clone(), made.parts(SPANS)[1][1].values.clone()
    with torch.no_grad():
        CHANGES[name](made)
    after = made.effective_weight().detach()
    assert torch.equal(after, now(made)) and not torch.equal(after, before[0])
    (_, piece), (_, edges) = made.parts(SPANS)
    assert torch.equal(edges.values, piece[piece != 0]) and not torch.equal(edges.values, before[1])


def test_the_next_selection_starts_from_the_last(monkeypatch):
    made, hints = counted(), []
    real = hn.ops.topk_weight

    def spy(*args, hint=None, **options):
        hints.append(hint)
        return real(*args, hint=hint, **options)

    monkeypatch.setattr(hn.ops, "topk_weight", spy)
    optimizer = torch.optim.SGD(made.parameters(), 1e-4)
    for _ in range(3):
        run(made)
        optimizer.step()
    made.eval().effective_weight()
    assert hints[0] is None and all(hint is not None for hint in hints[1:]) and len(hints) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_weight_and_its_gradient(kind, dtype):
    made = counted(kind).to(dtype).eval()
    weight, factor = made.effective_weight(), torch.randn(12, 20, dtype=dtype)
    inside = torch.zeros_like(factor)
    for a, b, c, d in SPANS:
        inside[a:b, c:d] = 1
    (weight * factor * inside).sum().backward()
    want, made.weight.grad = made.weight.grad, None
    pieces, lists = made.parts(SPANS)
    total = sum((p * factor[a:b, c:d]).sum() for p, (a, b, c, d) in zip(pieces, SPANS, strict=True))
    total.backward()
    assert torch.equal(made.weight.grad, want)
    for piece, edges, (a, b, c, d) in zip(pieces, lists, SPANS, strict=True):
        assert torch.equal(piece, weight[a:b, c:d])
        if dtype == torch.float64 or kind == "complete":
            assert edges is None
        else:
            assert edges.n_edges == int((piece != 0).sum())
    again = made.parts(SPANS)[1]
    assert all(first is second for first, second in zip(lists, again, strict=True))


def test_another_tensor_at_the_same_address_is_noticed():
    made, images, outputs = counted().eval(), torch.randn(2, 20), []
    drawn = made.weight.detach().clone()
    for scale in (1.0, 2.0, 4.0, 8.0):
        made.weight = None  # the memory is free for the next one
        made.weight = nn.Parameter(drawn * scale)
        outputs.append(made(images).detach() / scale)
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    for scale in (1.0, 2.0, 4.0):
        output = torch.func.functional_call(made, {"weight": drawn * scale}, (images,))
        assert torch.equal(output / scale, outputs[0])


def test_a_wiring_made_in_inference_mode_runs_and_notices_changes():
    with torch.inference_mode():
        made, images = counted().eval(), torch.randn(2, 20)
        before = made(images)
        made.weight.mul_(2.0)
        assert torch.equal(made(images), 2.0 * before)


def test_state_dicts_round_trip():
    for kind in KINDS:
        made, twin = counted(kind), counted(kind)
        made.effective_weight()
        with torch.no_grad():
            made.weight.normal_()
        twin.load_state_dict(made.state_dict())
        assert torch.equal(twin.weight, made.weight)
        assert torch.equal(twin.eval().effective_weight(), made.eval().effective_weight())
        assert set(made.state_dict()) == ({"weight", "chosen"} if kind in ("random", "fine_tune") else {"weight"})


def test_a_frozen_choice_comes_with_the_state_dict_and_goes():
    made, twin = counted("fine_tune"), counted("fine_tune")
    made.freeze()
    with torch.no_grad():
        made.weight.normal_()
    twin.load_state_dict(made.state_dict())
    assert torch.equal(twin.mask(), made.mask())
    twin.load_state_dict(counted("fine_tune").state_dict())
    assert twin.chosen is None
    random = counted("random")
    chosen = torch.zeros(12, 20, dtype=torch.bool)
    chosen[0, :7] = True
    random.load_state_dict({"weight": made.weight.detach(), "chosen": chosen})
    assert random.edges == 7 and int(random.effective_weight().count_nonzero()) == 7
    with pytest.raises(RuntimeError, match="chosen"):
        random.load_state_dict({"weight": made.weight.detach()})
    with pytest.raises(RuntimeError, match="chosen"):
        counted().load_state_dict(random.state_dict())
