"""Several optimisers as one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hiddennet.optim import Several


def network() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([3.0]))


def made(a, b) -> Several:
    return Several(torch.optim.SGD([a], lr=0.1, momentum=0.9), torch.optim.Adam([b], lr=0.2))


def descend(optimizer, a, b, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (a.square().sum() + b.square().sum()).backward()
        optimizer.step()


def test_each_parameter_moves_as_its_own_optimiser_moves_it():
    (a, b), (c, d) = network(), network()
    together, alone = made(a, b), [torch.optim.SGD([c], lr=0.1, momentum=0.9), torch.optim.Adam([d], lr=0.2)]
    descend(together, a, b, 4)
    for _ in range(4):
        for one in alone:
            one.zero_grad()
        (c.square().sum() + d.square().sum()).backward()
        for one in alone:
            one.step()
    assert torch.equal(a, c) and torch.equal(b, d)
    assert [group["lr"] for group in together.param_groups] == [0.1, 0.2]
    assert together.state.keys() == {a, b}


def test_a_state_dict_goes_on_to_the_bit():
    (a, b), (c, d) = network(), network()
    one = made(a, b)
    descend(one, a, b, 3)
    state = copy.deepcopy(one.state_dict())
    with torch.no_grad():
        c.copy_(a)
        d.copy_(b)
    other = made(c, d)
    other.load_state_dict(state)
    descend(one, a, b, 2)
    descend(other, c, d, 2)
    assert torch.equal(a, c) and torch.equal(b, d)
    with pytest.raises(ValueError, match="expected the state of 2 optimisers, got 1"):
        other.load_state_dict({"optimizers": state["optimizers"][:1]})


def test_a_closure_is_called_once():
    a, b = network()
    optimizer, calls = made(a, b), []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = a.square().sum() + b.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 14.0 and calls == [1]


def test_what_is_refused():
    a, b = network()
    with pytest.raises(ValueError, match="at least one optimiser"):
        Several()
    with pytest.raises(ValueError, match="each parameter in one optimiser"):
        Several(torch.optim.SGD([a], lr=0.1), torch.optim.SGD([a, b], lr=0.1))
