"""Bop: the original system's traces, what never changes under it, and a real Optimizer in every respect."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch

import hiddennet as hn
from hiddennet import ops, optim
from tests import reference
from tests.checks import assert_equal
from tests.golden import Golden

SHAPES = ((40, 7), (12, 5, 3, 3), (9,))
TRACES = ("readme", "fast", "mid", "tau0")


@pytest.mark.parametrize("name", TRACES)
def test_the_originals_trace(device, name):
    """Flips of every step and signs exactly, averages to float32's precision; the rate decays where theirs did."""
    file = Golden("peekaboo")
    arrays = {k.split("/")[2]: file[k] for k in file if k.startswith(f"bop/{name}/")}
    wanted = ["hyper", "decay_after_steps", "decay_ratio", "flips", "ar_used"]
    wanted += [f"{what}_{x}" for what in ("w0", "g", "w", "m", "weight_flips") for x in "ab"]
    missing = [key for key in wanted if key not in arrays]
    if missing:
        pytest.skip(f"bop/{name}: {', '.join(missing)} are not among the original's values here")
    params = [torch.nn.Parameter(torch.from_numpy(arrays[f"w0_{x}"]).to(device)) for x in "ab"]
    rate, threshold = arrays["hyper"].tolist()
    optimizer = optim.Bop(params, rate, threshold)
    for step, flips in enumerate(arrays["flips"]):
        assert optimizer.param_groups[0]["adaptivity_rate"] == pytest.approx(arrays["ar_used"][step], rel=1e-12)
        for p, x in zip(params, "ab", strict=True):
            p.grad = torch.from_numpy(arrays[f"g_{x}"][step]).to(device)
        optimizer.step()
        assert [c.item() for c in optimizer.flips().values()] == flips.tolist(), f"step {step}"
        for p, x in zip(params, "ab", strict=True):
            assert_equal(p.detach().cpu().double(), torch.from_numpy(arrays[f"w_{x}"][step]), f"w_{x} at step {step}")
            average = optimizer.state[p]["moving_average"].cpu().double()
            torch.testing.assert_close(average, torch.from_numpy(arrays[f"m_{x}"][step]), rtol=1e-5, atol=1e-9)
        if step + 1 in arrays["decay_after_steps"]:
            optimizer.decay_adaptivity_rate(arrays["decay_ratio"].item())
    totals = [c.item() for c in optimizer.total_flips().values()]
    assert totals == [int(arrays[f"weight_flips_{x}"].sum()) for x in "ab"]


def parameters(device="cpu") -> list[torch.nn.Parameter]:
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape).to(device)) for shape in SHAPES]


def set_grads(params, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.device)


@pytest.mark.parametrize("init", ["grad", "zero"])
def test_steps_are_the_references(device, init):
    params = parameters(device)
    beside = [(p.detach().cpu().clone(), None if init == "grad" else torch.zeros(p.shape)) for p in params]
    optimizer = optim.Bop(params, 0.2, 0.1, init=init)
    for step in range(5):
        set_grads(params, step)
        assert optimizer.step() is None
        for i, p in enumerate(params):
            w, m = beside[i]
            w, m, flips = reference.bop_step(w, p.grad.cpu(), m, adaptivity_rate=0.2, threshold=0.1)
            beside[i] = (w, m)
            assert_equal(p.detach().cpu(), w)
            assert_equal(optimizer.state[p]["moving_average"].cpu(), m)
            assert optimizer.flips()[p].item() == flips


def test_the_average_starts_as_told():
    for init, want in (("grad", 1.25), ("zero", 0.25)):
        p = torch.nn.Parameter(torch.ones(1))
        optimizer = optim.Bop([p], 0.25, 0.3, init=init)
        p.grad = torch.ones(1)
        optimizer.step()
        assert optimizer.state[p]["moving_average"].item() == want
        assert p.item() == (-1.0 if init == "grad" else 1.0)


def test_what_never_changes():
    """Magnitudes; weights without a gradient from the start, or without a flag, whose average rests, too."""
    params = parameters()
    magnitudes = [p.detach().abs().clone() for p in params]
    pruned = [torch.rand(p.shape) < 0.5 for p in params]
    before = [p.detach().clone() for p in params]
    optimizer = optim.Bop(params, 0.3, 1e-6)
    free = torch.rand(params[1].shape) < 0.5
    optimizer.set_flags({params[1]: ops.pack_mask(free)})
    for step in range(10):
        set_grads(params, step)
        for p, off in zip(params, pruned, strict=True):
            p.grad[off] = 0.0
        optimizer.step()
    for i, p in enumerate(params):
        assert_equal(p.detach().abs(), magnitudes[i])
        still = pruned[i] | ~free if i == 1 else pruned[i]
        assert_equal(p.detach()[still], before[i][still])
        assert optimizer.total_flips()[p].item() > 0
    assert not bool(optimizer.state[params[1]]["moving_average"][~free].any())
    optimizer.set_flags({params[1]: None})
    set_grads(params, 10)
    optimizer.step()
    assert bool(optimizer.state[params[1]]["moving_average"][~free].any())


def test_copies_with_equal_gradients_agree():
    """As ranks do: nothing but the gradients decides."""
    runs = []
    for _ in range(2):
        params = parameters()
        optimizer = optim.Bop([{"params": params[:2]}, {"params": params[2:], "threshold": 0.5}], 0.1, 1e-3)
        for step in range(6):
            set_grads(params, step)
            optimizer.step()
        runs.append((params, [c.item() for c in optimizer.total_flips().values()]))
    for ours, theirs in zip(runs[0][0], runs[1][0], strict=True):
        assert_equal(ours, theirs)
    assert runs[0][1] == runs[1][1]


def test_resumed_is_uninterrupted(device):
    """Through a file, decay in between; counters too, beyond what float32 holds."""
    params = parameters(device)
    optimizer = optim.Bop(params, 0.2, 0.05)
    for step in range(3):
        set_grads(params, step)
        optimizer.step()
    optimizer.total_flips()[params[0]].fill_(2**24 + 1)
    optimizer.decay_adaptivity_rate(0.5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = optim.Bop(others, 0.9, 7.0, init="zero")
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.param_groups[0]["adaptivity_rate"] == 0.1
    assert resumed.total_flips()[others[0]].item() == 2**24 + 1
    for step in range(3, 6):
        for opt, group in ((optimizer, params), (resumed, others)):
            set_grads(group, step)
            opt.step()
    for a, b in zip(params, others, strict=True):
        assert_equal(b, a)
        assert set(resumed.state[b]) == {"moving_average", "flips", "total_flips"}
        for name, value in optimizer.state[a].items():
            assert resumed.state[b][name].dtype is value.dtype
            assert_equal(resumed.state[b][name], value, name)


def test_loading_leaves_the_saved_state_alone():
    params = parameters()
    optimizer = optim.Bop(params, 0.2, 0.05)
    set_grads(params, 0)
    optimizer.step()
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    twin = optim.Bop([torch.nn.Parameter(p.detach().clone()) for p in params])
    twin.load_state_dict(saved)
    set_grads(twin.param_groups[0]["params"], 1)
    twin.step()
    for number, state in kept["state"].items():
        for name in ("flips", "total_flips"):
            assert_equal(saved["state"][number][name], state[name], name)


def test_memory_format_changes_between_steps(device):
    """Gradients and parameter in either layout, flags in OIHW order: the same values throughout."""
    runs = []
    for last in (False, True):
        p = torch.nn.Parameter(parameters(device)[1].detach().clone())
        optimizer = optim.Bop([p], 0.2, 0.05)
        mask = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)).to(device) < 0.5
        optimizer.set_flags({p: ops.pack_mask(mask)})
        for step in range(4):
            if last and step in (1, 3):
                p.data = p.data.contiguous(memory_format=(torch.channels_last, None, torch.contiguous_format)[step - 1])
            set_grads([p], step)  # contiguous
            if step == 2:
                p.grad = p.grad.contiguous(memory_format=torch.channels_last)
            optimizer.step()
        runs.append((p.detach(), optimizer.state[p]["moving_average"], optimizer.total_flips()[p]))
    for ours, theirs in zip(*runs, strict=True):
        assert_equal(ours, theirs)


def test_parameters_without_a_gradient():
    """They are left alone, and the last step flipped none of them; their average begins with their first gradient."""
    params = parameters()
    optimizer = optim.Bop(params, 0.25, 0.0)
    set_grads(params[:1], 0)
    optimizer.step()
    assert list(optimizer.flips()) == params[:1]
    first = optimizer.flips()[params[0]].item()
    assert first > 0
    set_grads(params, 1)
    params[0].grad = None
    optimizer.step()
    assert optimizer.flips()[params[0]].item() == 0
    assert optimizer.total_flips()[params[0]].item() == first
    assert_equal(optimizer.state[params[1]]["moving_average"], params[1].grad * 1.25)


def test_closure_and_lr():
    """The closure's loss comes back; an lr in the group, as a schedule of all optimisers sets it, means nothing."""
    p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = optim.Bop([p], 0.5, 0.0)
    optimizer.param_groups[0]["lr"] = 123.0

    def closure():
        optimizer.zero_grad()
        loss = (p - torch.tensor([-1.0, -1.0])).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert p.tolist() == [-1.0, -1.0]


def test_pickle_and_deepcopy():
    optimizer = optim.Bop(parameters(), 0.1, 0.01)
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        params = twin.param_groups[0]["params"]
        before = params[0].detach().clone()
        set_grads(params, 0)
        twin.step()
        assert not torch.equal(params[0], before)


def test_trains_the_signs_of_a_network():
    """A hidden layer's own weight: its magnitudes stay, and the loss falls."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(20, 64, bias=False), torch.nn.ReLU(), torch.nn.Linear(64, 2, bias=False))
    x = torch.randn(256, 20)
    y = (x[:, 0] > 0).long()
    params = list(net.parameters())
    magnitudes = [p.detach().abs().clone() for p in params]
    optimizer = hn.optim.Bop(params, 1e-2, 1e-4, init="zero")
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    for p, size in zip(params, magnitudes, strict=True):
        assert_equal(p.detach().abs(), size)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"adaptivity_rate": 0.0}, ValueError, r"Bop: expected adaptivity_rate in \(0, 1\), got 0.0"),
        ({"adaptivity_rate": 1.0}, ValueError, r"Bop: expected adaptivity_rate in \(0, 1\), got 1.0"),
        ({"threshold": -1.0}, ValueError, "Bop: expected threshold >= 0, got -1.0"),
        ({"threshold": torch.tensor(0.1)}, TypeError, "Bop: expected threshold to be a float"),
        ({"init": "one"}, ValueError, "expected init to be 'grad' or 'zero', got 'one'"),
    ],
)
def test_bad_hyper_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        optim.Bop(parameters(), **arguments)
    with pytest.raises(error, match=message):
        optim.Bop([{"params": parameters(), **arguments}])


def test_bad_parameters_gradients_and_rates():
    with pytest.raises(TypeError, match="parameters of dtype float32, got float64"):
        optim.Bop([torch.nn.Parameter(torch.rand(3).double())])
    p = torch.nn.Parameter(torch.rand(3, 4))
    optimizer = optim.Bop([p])
    before = p.detach().clone()
    p.grad = torch.rand(3, 4).to_sparse()
    with pytest.raises(RuntimeError, match="Bop: expected dense gradients, got a sparse one"):
        optimizer.step()
    for factor in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"expected a factor in \(0, 1\]"):
            optimizer.decay_adaptivity_rate(factor)
    p.grad = torch.rand(3, 4)
    optimizer.param_groups[0]["adaptivity_rate"] = 2.0
    with pytest.raises(ValueError, match=r"adaptivity_rate in \(0, 1\), got 2.0"):
        optimizer.step()
    with pytest.raises(ValueError, match="parameters of this optimiser"):
        optimizer.set_flags({torch.rand(3): None})
    with pytest.raises(ValueError, match=r"flags of shape \(2,\)"):
        optimizer.set_flags({p: torch.zeros(9, dtype=torch.uint8)})
    assert_equal(p, before)


def test_schedules_of_learning_rates_are_refused_in_a_sentence():
    """Also after a state was loaded; what asks whether there is one gets None."""
    weight = torch.nn.Parameter(torch.ones(4))
    bop = optim.Bop([weight])
    schedules = torch.optim.lr_scheduler
    for _ in range(2):
        for make in (lambda b: schedules.StepLR(b, 3), schedules.ReduceLROnPlateau, lambda b: schedules.LRScheduler(b)):
            with pytest.raises(TypeError, match="Bop: expected no schedule of learning rates"):
                make(bop)
        assert bop.param_groups[0].get("lr") is None
        with pytest.raises(KeyError, match="momentum"):
            bop.param_groups[0]["momentum"]
        bop.load_state_dict(bop.state_dict())
