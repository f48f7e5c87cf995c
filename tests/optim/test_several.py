"""Several optimisers as one."""

from __future__ import annotations

import copy
import pickle

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
    with pytest.raises(ValueError, match=r"call optimizers\[i\].add_param_group"):
        made(a, b).add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_hooks_are_called_in_their_places():
    a, b = network()
    optimizer, seen = made(a, b), []
    optimizer.register_step_pre_hook(lambda one, *_: seen.append(("before", one is optimizer, a.tolist())))
    optimizer.register_step_post_hook(lambda one, *_: seen.append(("after", one is optimizer, a.tolist())))
    descend(optimizer, a, b, 1)
    moved = a.tolist()
    assert seen == [("before", True, [1.0, -2.0]), ("after", True, moved)] and moved != [1.0, -2.0]

    optimizer.register_state_dict_pre_hook(lambda one: seen.append("state"))
    optimizer.register_state_dict_post_hook(lambda one, state: {**state, "note": "ours"})
    optimizer.register_load_state_dict_pre_hook(lambda one, state: seen.append(state["note"]))
    optimizer.register_load_state_dict_post_hook(lambda one: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[2:] == ["state", "ours", "loaded"]


def test_schedulers_and_scalers_of_torch_drive_it():
    (a, b), (c, d) = network(), network()
    together, alone = made(a, b), [torch.optim.SGD([c], lr=0.1, momentum=0.9), torch.optim.Adam([d], lr=0.2)]
    schedules = [torch.optim.lr_scheduler.StepLR(one, 2, 0.5) for one in (together, *alone)]
    scalers = [torch.amp.GradScaler("cpu", init_scale=64.0) for _ in range(2)]
    for _ in range(5):
        for (p, q), ones, scaler in zip(((a, b), (c, d)), ([together], alone), scalers, strict=True):
            for one in ones:
                one.zero_grad()
            scaler.scale(p.square().sum() + q.square().sum()).backward()
            for one in ones:
                scaler.step(one)
            scaler.update()
        for schedule in schedules:
            schedule.step()
    assert torch.equal(a, c) and torch.equal(b, d)
    assert [group["lr"] for group in together.param_groups] == [0.025, 0.05]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_to_the_bit(copied):
    a, b = network()
    optimizer = made(a, b)
    descend(optimizer, a, b, 2)
    other, (c, d) = copied((optimizer, (a, b)))
    descend(optimizer, a, b, 2)
    descend(other, c, d, 2)
    assert torch.equal(a, c) and torch.equal(b, d) and c is not a
    assert repr(other).startswith("Several(SGD (") and "Adam" in repr(other)


def test_the_state_is_the_optimisers_own():
    a, b = network()
    optimizer = made(a, b)
    assert len(optimizer.state) == 0
    descend(optimizer, a, b, 1)
    for p, kept in optimizer.state.items():  # as trainers move it to another device
        optimizer.state[p] = {name: value * 2 if torch.is_tensor(value) else value for name, value in kept.items()}
    assert torch.equal(optimizer.optimizers[0].state[a]["momentum_buffer"], torch.tensor([4.0, -8.0]))
    del optimizer.state[a]
    assert a not in optimizer.optimizers[0].state and list(optimizer.state) == [b]
