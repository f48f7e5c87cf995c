"""ScoreSGD and ScoreAdam: torch's optimisers, regulariser and clamp in one step; real Optimizers in every respect."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import hiddennet as hn
from hiddennet import ops, optim
from tests.checks import assert_equal, assert_no_worse_than

SHAPES = ((40, 7), (12, 5, 3, 3), (9,))
MAKERS = {
    "sgd": (optim.ScoreSGD, torch.optim.SGD, {"lr": 0.3}),
    "momentum": (optim.ScoreSGD, torch.optim.SGD, {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (optim.ScoreSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "adam": (optim.ScoreAdam, torch.optim.Adam, {"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.02}),
}
REGULARISER = {"l1": 0.01, "l2": 0.03}


def parameters(device="cpu", dtype=torch.float32) -> list[torch.nn.Parameter]:
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.rand(shape).to(device, dtype)) for shape in SHAPES]


def set_grads(params, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)


def torch_steps(make, options, params, steps: int) -> None:
    """Torch's optimiser, the regulariser's gradient added to each gradient, then clamp_."""
    optimizer = make(params, **options, foreach=False)
    for step in range(steps):
        set_grads(params, step)
        with torch.no_grad():
            for p in params:
                p.grad += REGULARISER["l1"] * p.sign() + 2 * REGULARISER["l2"] * p
        optimizer.step()
        with torch.no_grad():
            for p in params:
                p.clamp_(0.0, 1.0)


@pytest.mark.isa
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_sgd_is_torchs_to_the_bit(name):
    """Of torch's loop; its fused step rounds the last elements of a tensor otherwise."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("torch multiplies and adds with two roundings without AVX2")
    ours, theirs, options = MAKERS[name]
    options = {**options, "weight_decay": 0.013}
    mine, other = parameters(), parameters()
    one, two = ours(mine, **options, clamp=None), theirs(other, **options, foreach=False)
    for step in range(20):
        for params, optimizer in ((mine, one), (other, two)):
            set_grads(params, step)
            optimizer.step()
    for got, want in zip(mine, other, strict=True):
        assert_equal(got, want)


@pytest.mark.parametrize("name", MAKERS)
def test_as_good_as_torchs_optimizer(device, name):
    ours, theirs, options = MAKERS[name]
    params = parameters(device)
    optimizer = ours(params, **options, **REGULARISER)
    for step in range(6):
        set_grads(params, step)
        assert optimizer.step() is None
    single, double = parameters(), parameters(dtype=torch.float64)
    torch_steps(theirs, options, single, 6)
    torch_steps(theirs, options, double, 6)
    for got, same_dtype, want in zip(params, single, double, strict=True):
        assert_no_worse_than(got, same_dtype, want)
        assert bool(((got >= 0.0) & (got <= 1.0)).all())


@pytest.mark.parametrize("name", MAKERS)
def test_channels_last_parameters(device, name):
    """Gradients in either layout, flags in OIHW order: the same values as in contiguous memory."""
    make, _, options = MAKERS[name]
    runs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        p = torch.nn.Parameter(parameters(device)[1].detach().clone(memory_format=layout))
        optimizer = make([p], **options, **REGULARISER)
        mask = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)).to(device) < 0.5
        optimizer.set_flags({p: ops.pack_mask(mask)})
        for step in range(3):
            set_grads([p], step)  # contiguous
            if step == 1:
                p.grad = p.grad.contiguous(memory_format=torch.channels_last)
            optimizer.step()
        assert p.is_contiguous(memory_format=layout)
        runs.append(p.detach())
    assert_equal(runs[1], runs[0])


@pytest.mark.parametrize("name", MAKERS)
def test_flags_freeze_elements(name):
    make, _, options = MAKERS[name]
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = make(params, **options)
    bits = torch.zeros((params[0].numel() + 7) // 8, dtype=torch.uint8)
    optimizer.set_flags({params[0]: bits})
    for step in range(2):
        set_grads(params, step)
        optimizer.step()
    assert_equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])
    for value in optimizer.state[params[0]].values():
        assert not isinstance(value, torch.Tensor) or not bool(value.any())
    bits.fill_(255)  # the same plane, changed in place
    set_grads(params, 2)
    optimizer.step()
    assert not torch.equal(params[0], before[0])
    optimizer.set_flags({params[0]: torch.zeros_like(bits)})
    optimizer.set_flags({params[0]: None})
    now = params[0].detach().clone()
    optimizer.step()
    assert not torch.equal(params[0], now)


@pytest.mark.parametrize("name", MAKERS)
def test_state_dict_round_trip(name):
    make, _, options = MAKERS[name]
    params = parameters()
    optimizer = make(params, **options, **REGULARISER)
    for step in range(2):
        set_grads(params, step)
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = make(others, lr=123.0)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == options["lr"]
    assert resumed.param_groups[0]["l2"] == REGULARISER["l2"]
    for step in range(2, 4):
        for opt, group in ((optimizer, params), (resumed, others)):
            set_grads(group, step)
            opt.step()
    for a, b in zip(params, others, strict=True):
        assert_equal(b, a)


def test_flags_are_not_in_the_state_dict():
    params = parameters()
    optimizer = optim.ScoreSGD(params, 0.1)
    plain = optimizer.state_dict()
    optimizer.set_flags({params[0]: torch.zeros(35, dtype=torch.uint8)})
    assert optimizer.state_dict() == plain


def test_pickle_and_deepcopy():
    optimizer = optim.ScoreSGD(parameters(), 0.1, momentum=0.9)
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        params = twin.param_groups[0]["params"]
        before = params[0].detach().clone()
        set_grads(params, 0)
        twin.step()
        assert not torch.equal(params[0], before)


def test_groups_schedules_and_closures():
    params = parameters()
    before = [p.detach().clone() for p in params]
    groups = [{"params": params[:1], "lr": 0.0}, {"params": params[1:], "clamp": None, "l1": 0.5}]
    optimizer = optim.ScoreSGD(groups, 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    assert [g["l1"] for g in optimizer.param_groups] == [0.0, 0.5]

    def closure():
        optimizer.zero_grad()
        loss = sum(p.sum() for p in params)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(sum(p.sum().item() for p in before), rel=1e-6)
    assert_equal(params[0], before[0])
    torch.testing.assert_close(params[1].detach(), before[1] - 0.1 * (1 + 0.5 * before[1].sign()))
    schedule.step()
    now = params[1].detach().clone()
    optimizer.step(closure)
    torch.testing.assert_close(params[1].detach(), now - 0.05 * (1 + 0.5 * now.sign()))


def test_parameters_without_gradient_are_left_alone():
    params = parameters()
    before = [p.detach().clone() for p in params]
    for make in (optim.ScoreSGD, optim.ScoreAdam):
        optimizer = make(params, 0.1)
        optimizer.step()
        set_grads(params[:1], 0)
        optimizer.step()
        optimizer.zero_grad()
        assert len(optimizer.state) <= 1
    assert not torch.equal(params[0], before[0])
    assert_equal(params[1], before[1])
    assert_equal(params[2], before[2])


def test_versions_count_up():
    """A hidden layer knows by its scores' version that its selection is out of date."""
    p = torch.nn.Parameter(torch.rand(5))
    p.grad = torch.ones_like(p)
    for optimizer in (hn.optim.ScoreSGD([p], 0.1), hn.optim.ScoreAdam([p], 0.1)):
        version = p._version
        optimizer.step()
        assert p._version > version


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "lr >= 0"),
        ({"momentum": -1.0}, "momentum >= 0"),
        ({"nesterov": True}, "momentum above 0 with nesterov"),
        ({"clamp": (1.0, 1.0)}, "low < high"),
        ({"l2": -1.0}, "l2 >= 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match="ScoreSGD: expected .*" + message):
        optim.ScoreSGD(parameters(), **{"lr": 0.1, **options})
    with pytest.raises(ValueError, match=message):
        optim.ScoreSGD([{"params": parameters(), **options}], 0.1)


def test_bad_input():
    with pytest.raises(ValueError, match="betas in"):
        optim.ScoreAdam(parameters(), betas=(0.9, 1.0))
    params = parameters()
    optimizer = optim.ScoreSGD(params, 0.1)
    with pytest.raises(ValueError, match="parameters of this optimiser"):
        optimizer.set_flags({torch.nn.Parameter(torch.rand(8)): torch.zeros(1, dtype=torch.uint8)})
    with pytest.raises(ValueError, match=r"flags of shape \(35,\)"):
        optimizer.set_flags({params[0]: torch.zeros(34, dtype=torch.uint8)})
    params[0].grad = torch.sparse_coo_tensor([[0], [0]], [1.0], (40, 7), check_invariants=True)
    with pytest.raises(RuntimeError, match="expected dense gradients"):
        optimizer.step()
    half = [torch.nn.Parameter(torch.rand(3, dtype=torch.float64))]
    with pytest.raises(TypeError, match="parameters of dtype float32"):
        optim.ScoreSGD(half, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": "0.1"}, "lr to be a float, got '0.1'"),
        ({"lr": None}, "lr to be a float, got None"),
        ({"momentum": "a"}, "momentum to be a float, got 'a'"),
        ({"clamp": (None, 1)}, r"clamp to be None or \(low, high\) with low < high, got \(None, 1\)"),
    ],
)
def test_what_is_no_number_is_refused(options, message):
    with pytest.raises((TypeError, ValueError), match="^ScoreSGD: expected " + message):
        optim.ScoreSGD(parameters(), **options)
    with pytest.raises(ValueError, match=r"^ScoreAdam: expected two betas in \[0, 1\), got"):
        optim.ScoreAdam(parameters(), betas=(0.9, None))


@pytest.mark.parametrize("change", [lambda t: t.t(), lambda t: t[:, :1].expand(6, 5), lambda t: t[:, ::2]])
def test_parameters_of_other_layouts_are_refused_when_added(change):
    optimizer = optim.ScoreSGD(parameters(), 0.1)
    odd = torch.nn.Parameter(change(torch.rand(6, 5)))
    with pytest.raises(ValueError, match="^ScoreSGD: expected parameters contiguous or channels_last, got strides"):
        optimizer.add_param_group({"params": [odd]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (optim.ScoreSGD, torch.optim.SGD, {"maximize": True}),
        (optim.ScoreSGD, torch.optim.SGD, {"dampening": 0.5}),
        (optim.ScoreAdam, torch.optim.Adam, {"amsgrad": True}),
        (optim.ScoreAdam, torch.optim.Adam, {"decoupled_weight_decay": True}),
    ],
)
def test_states_of_what_is_not_here_are_refused(ours, theirs, options):
    (name,) = options
    optimizer = ours(parameters(), 0.3)
    with pytest.raises(ValueError, match=f"^{ours.__name__}: expected a state without {name}, .* got (True|0.5)"):
        optimizer.load_state_dict(theirs(parameters(), 0.1, **options).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3
