"""Steps that count for the next selection: the masks are those of a sort, whoever writes to scores in between."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hiddennet as hn
from hiddennet import optim
from hiddennet.nn import rules
from hiddennet.optim import optimizers
from tests import reference
from tests.checks import assert_equal

RULES = {
    "magnitude": lambda: hn.TopK(0.5),
    "value": lambda: hn.TopK(0.3, by="value"),
    "all layers": lambda: hn.TopK(0.4, scope="global"),
    "kth value": lambda: hn.nn.KthValue(0.5),
    "all": lambda: hn.TopK(1.0),
}
OPTIMISERS = {
    "SGD": lambda p: optim.ScoreSGD(p, 0.02, clamp=None),
    "momentum": lambda p: optim.ScoreSGD(p, 0.01, momentum=0.9, weight_decay=1e-3, clamp=(-0.2, 0.2), l1=1e-4),
    "Adam": lambda p: optim.ScoreAdam(p, 1e-3, clamp=None),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Net:
    """A network in training, its optimiser, and which of its selections were made of a step's counts."""

    def __init__(
        self, monkeypatch, rule="magnitude", optimiser="momentum", layout="contiguous", source="signed_constant"
    ):
        torch.manual_seed(0)
        layers = nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 5)
        self.model = hn.hide(nn.Sequential(*layers), hn.Generated("signed_constant", seed=1), RULES[rule]())
        self.model.to(memory_format=LAYOUTS[layout])
        self.layers = list(hn.hidden_layers(self.model).values())
        self.scores = [layer.scores for layer in self.layers]
        self.optimizer = OPTIMISERS[optimiser](self.scores)
        self.x, self.y = torch.randn(6, 4, 8, 8), torch.arange(6) % 5
        self.counted: list[bool] = []
        real = rules.topk_select_

        def watched(*arguments):
            self.counted.append(arguments[-1] is not None)
            real(*arguments)

        monkeypatch.setattr(rules, "topk_select_", watched)

    def forward(self) -> None:
        self.optimizer.zero_grad()
        self.loss = F.cross_entropy(self.model(self.x), self.y)
        self.exact()

    def backward(self) -> None:
        self.loss.backward()

    def step(self) -> None:
        self.forward()
        self.backward()
        self.optimizer.step()

    def exact(self) -> None:
        """The masks of the last forward are those of a sort of the scores as they are."""
        rule = self.layers[0].rule
        scores = [layer.scores.detach() for layer in self.layers]
        if not rule.alone:
            k = rule.count(sum(s.numel() for s in scores))
            want = reference.topk_mask_global(scores, k, by=rule.by)
        else:
            want = [reference.topk_mask(s, rule.count(s.numel()), by=rule.by) for s in scores]
        for layer, mask in zip(self.layers, want, strict=True):
            assert_equal(hn.ops.rule_mask(layer.scores, layer._selected.value, layer.weight_shape), mask)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("rule", RULES)
def test_masks_are_those_of_a_sort(monkeypatch, rule, optimiser, layout):
    net = Net(monkeypatch, rule, optimiser, layout)
    for _ in range(6):
        net.step()
    assert net.counted == [False] + [True] * 5


def test_scores_are_those_of_steps_that_count_nothing(monkeypatch):
    counting, plain = Net(monkeypatch), Net(monkeypatch)
    for net in (counting, plain):
        for _ in range(5):
            net.step()
        monkeypatch.setattr(rules.Bracket, "of", lambda *_: None)
    assert [s.bracket is None for s in counting.scores + plain.scores] == [False] * 3 + [True] * 3
    for got, want in zip(counting.scores, plain.scores, strict=True):
        assert_equal(got, want)


@torch.no_grad()
def _fused(net: Net) -> None:
    for p in net.scores:
        p.grad = torch.ones_like(p)
    torch.optim.SGD(net.scores[:1], 0.05, fused=True).step()
    net.optimizer.zero_grad()


@torch.no_grad()
def _loaded(net: Net) -> None:
    net.model.load_state_dict(
        {n: t.roll(1, 0) for n, t in net.model.state_dict().items() if n.endswith("scores")}, strict=False
    )


def _data(net: Net) -> None:
    net.scores[1].data.mul_(-2)
    net.scores[1].data[:3] = 0
    hn.refresh(net.model)


@torch.no_grad()
def _again(net: Net) -> None:
    for p in net.scores:
        p.grad = torch.randn_like(p)
    net.optimizer.step()


@torch.no_grad()
def _part(net: Net) -> None:
    """Of the scores alone, by an optimiser of ours."""
    net.scores[2].grad = torch.randn_like(net.scores[2])
    optim.ScoreSGD(net.scores[2:], 0.3, clamp=None).step()
    net.optimizer.zero_grad()


WRITES = {
    "in place": lambda net: net.scores[1].detach().mul_(-2),
    "other memory": lambda net: setattr(net.scores[0], "data", torch.randn_like(net.scores[0])),
    "channels_last": lambda net: net.model.to(memory_format=torch.channels_last),
    "a fused step": _fused,
    "a state dict": _loaded,
    "data, told": _data,
    "evaluation and data": lambda net: (net.model.eval(), net.scores[0].data.normal_(), net.model.train()),
    "a step of a part": _part,
}


@pytest.mark.parametrize("name", WRITES)
def test_scores_written_between_step_and_selection(monkeypatch, name):
    net = Net(monkeypatch)
    for _ in range(3):
        net.step()
    WRITES[name](net)
    net.step()
    assert net.counted[-2:] == [True, False]
    net.step()
    net.step()
    assert net.counted[-2:] == [True, True]


def test_two_steps_in_a_row_and_two_forwards(monkeypatch):
    net = Net(monkeypatch)
    net.step()
    net.step()
    _again(net)
    net.step()
    assert net.counted == [False, True, True]
    net.forward()
    net.forward()
    net.backward()
    net.optimizer.step()
    net.step()
    assert net.counted == [False, True, True, True, False, True]


def test_evaluation_takes_the_counts(monkeypatch):
    net = Net(monkeypatch)
    net.step()
    hn.select(net.model)
    net.exact()
    assert net.counted == [False, True]
    net.step()
    net.step()
    assert net.counted == [False, True, False, True]


def test_scores_in_two_groups_are_read(monkeypatch):
    net = Net(monkeypatch)
    net.optimizer = optim.ScoreSGD([{"params": net.scores[:1]}, {"params": net.scores[1:], "lr": 0.05}], 0.01)
    for _ in range(4):
        net.step()
    assert net.counted == [False] * 4


def test_several_optimisers(monkeypatch):
    net = Net(monkeypatch)
    other = nn.Parameter(torch.ones(3))
    net.optimizer = optim.Several(net.optimizer, torch.optim.SGD([other], 0.1, fused=True))
    for _ in range(4):
        other.grad = torch.ones(3)
        net.step()
        optimizers.step(net.optimizer)  # the trainer's, which tells of fused steps; nothing has a gradient
    assert net.counted == [False, True, True, True]


def test_torchs_optimisers_have_no_counts(monkeypatch):
    net = Net(monkeypatch)
    model = copy.deepcopy(net.model)
    assert all(layer.scores.bracket is None for layer in hn.hidden_layers(model).values())
    net.optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    for layer in net.layers:
        layer.scores.__class__ = nn.Parameter
    net.step()
    net.step()
    assert net.counted == [False, False]


def test_copies_and_pickles_have_no_counts(monkeypatch):
    net = Net(monkeypatch)
    net.step()
    net.step()
    assert net.scores[0].bracket is not None
    for other in (copy.deepcopy(net.scores[0]), pickle.loads(pickle.dumps(net.scores[0]))):
        assert getattr(other, "bracket", None) is None


def test_a_replay_is_checked_before(monkeypatch):
    """A graph's selection takes the counts whatever the host knows: they are gone where they are not the scores'."""
    net = Net(monkeypatch)
    net.step()
    net.step()
    bracket = net.scores[0].bracket
    bracket.check(net.scores)
    assert bool(bracket.counts.any())
    with torch.no_grad():
        net.scores[2].mul_(2)
    bracket.check(net.scores)
    assert not bool(bracket.counts.any())
    net.step()
    assert net.counted == [False, True, False]
