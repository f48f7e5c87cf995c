"""When a wiring makes its effective weight: once an optimiser's step, once an evaluation, and after every change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.nn.block_sums import Blocks
from hiddennet.nn.edge_rules import KINDS
from hiddennet.nn.wiring import Wiring
from hiddennet.optim import optimizers

BLOCKS = Blocks(((0, 6, 0, 8), (6, 12, 0, 20)))


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
            made.listed(BLOCKS)
    assert spent(made) == 1
    run(made.train())  # what was made in inference mode must not be in a graph
    assert made.weight.grad is not None


@pytest.mark.parametrize("kind", ["targeted_dropout", "regular_targeted_dropout"])
def test_a_dropout_draws_anew_in_training(kind):
    made = counted(kind).train()
    assert not torch.equal(made.effective_weight(), made.effective_weight())
    (first, _), (second, _) = made.listed(BLOCKS), made.listed(BLOCKS)
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
    before = made.effective_weight().detach().clone(), made.listed(BLOCKS)[1][0].received[1].values.clone()
    with torch.no_grad():
        CHANGES[name](made)
    after = made.effective_weight().detach()
    assert torch.equal(after, now(made)) and not torch.equal(after, before[0])
    weight, (lists,) = made.listed(BLOCKS)
    piece, values = weight[6:], lists.received[1].values
    assert torch.equal(values, piece[piece != 0]) and not torch.equal(values, before[1])


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
def test_listed_are_the_weight_its_gradient_and_its_edges(kind, dtype):
    made = counted(kind).to(dtype).eval()
    inside = torch.zeros(12, 20, dtype=dtype)
    for a, b, c, d in BLOCKS.spans:
        inside[a:b, c:d] = torch.randn(b - a, d - c, dtype=dtype)
    (made.effective_weight() * inside).sum().backward()
    want, made.weight.grad = made.weight.grad, None
    weight, (lists,) = made.listed(BLOCKS)
    (weight * inside).sum().backward()
    assert torch.equal(made.weight.grad, want)
    assert torch.equal(weight, made.effective_weight())
    if dtype == torch.float64 or kind == "complete":
        assert lists is None
        return
    for edges, (a, b, c, d) in zip(lists.received, BLOCKS.spans, strict=True):
        assert edges.n_edges == int((weight[a:b, c:d] != 0).sum())
    assert made.listed(BLOCKS)[1][0] is lists


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
        more = {"chosen"} if kind in ("random", "fine_tune") else {"draw"} if "dropout" in kind else set()
        assert set(made.state_dict()) == {"weight"} | more


@pytest.mark.parametrize("kind", ["targeted_dropout", "regular_targeted_dropout"])
def test_draws_are_a_function_of_seed_layer_and_step_and_go_on_from_a_state_dict(kind):
    torch.manual_seed(0)
    made = Wiring(20, 12, 0.25, kind, seed=3, layer=1)
    draws = [made.effective_weight().detach().clone() for _ in range(3)]
    torch.manual_seed(9)  # torch's generator has no say
    twin = Wiring(20, 12, 0.25, kind, seed=3, layer=1)
    twin.load_state_dict({**made.state_dict(), "draw": torch.ones(1, dtype=torch.int64)})
    for draw in draws:
        assert torch.equal(twin.effective_weight().detach(), draw)
    twin.load_state_dict(made.state_dict())
    assert torch.equal(twin.effective_weight(), made.effective_weight())
    other = Wiring(20, 12, 0.25, kind, seed=3, layer=2)
    other.load_state_dict({"weight": made.weight.detach()})  # an older file, that had no draws
    assert not torch.equal(other.effective_weight().detach(), draws[0])


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
