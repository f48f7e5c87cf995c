"""Twelve steps of PSG, Bop and SGD on one network: against plain float64, and against what the original computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hiddennet as hn
from hiddennet import optim
from hiddennet.ops import PSGConfig
from tests.golden import Golden
from tests.reference import psg as oracle

pytestmark = pytest.mark.isa

RATE, THRESHOLD, DECAY_AFTER, DECAY, LR, MOMENTUM, WEIGHT_DECAY = 1e-2, 1e-4, 6, 0.15, 0.1, 0.9, 5e-4
STEPS = 12


class Net(nn.Module):
    """Two convolutions with batch norm, a mean over the map, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.c2, self.b2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))))
        return self.fc(x.mean((2, 3)))


Trace = dict[str, list]


def ours(state: dict[str, Tensor], masks: dict[str, Tensor], x: Tensor, labels: Tensor) -> tuple[Trace, nn.Module]:
    """The trace of public functions in float32: losses, flips and signs by layer."""
    model = Net()
    model.load_state_dict(state, strict=False)
    hn.hide(
        model,
        source=hn.Stored(trainable=True),
        rule=lambda name, _: hn.Fixed(masks[name]),
        include=["c1", "c2"],
    )
    hn.psg(model, PSGConfig(8, 16, 1e-7), signed=["c1"], include=["c1", "c2"])
    signs = [model.c1.stored, model.c2.stored]
    bop = optim.Bop(signs, RATE, THRESHOLD)
    own = {id(p) for p in signs}
    rest = [p for p in model.parameters() if id(p) not in own]
    sgd = torch.optim.SGD(rest, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    both, trace = optim.Several(bop, sgd), {"loss": [], "flips": [], "c1": [], "c2": []}
    for step in range(STEPS):
        both.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        both.step()
        if step + 1 == DECAY_AFTER:
            bop.decay_adaptivity_rate(DECAY)
        trace["loss"].append(loss.item())
        trace["flips"].append([int(bop.flips()[p]) for p in signs])
        for name, p in zip(("c1", "c2"), signs, strict=True):
            trace[name].append(p.detach().sign())
    return trace, model


def plain(state: dict[str, Tensor], masks: dict[str, Tensor], x: Tensor, labels: Tensor) -> tuple[Trace, nn.Module]:
    """The same written out in float64."""
    model = Net().double()
    model.load_state_dict({key: value.double() for key, value in state.items()}, strict=False)
    options = oracle.PSGOptions()
    kept = {name: mask.double() for name, mask in masks.items()}

    def forward() -> Tensor:
        first = oracle.psg_conv2d(x.double(), model.c1.weight * kept["c1"], replace(options, input_signed=True), 1, 1)
        h = F.relu(model.b1(first))
        h = F.relu(model.b2(oracle.psg_conv2d(h, model.c2.weight * kept["c2"], options, 2, 1)))
        return model.fc(h.mean((2, 3)))

    rest = [*model.b1.parameters(), *model.b2.parameters(), *model.fc.parameters()]
    sgd = torch.optim.SGD(rest, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    averages: dict[str, Tensor] = {}
    trace, rate = {"loss": [], "flips": [], "c1": [], "c2": []}, RATE
    for step in range(STEPS):
        model.zero_grad()
        loss = F.cross_entropy(forward(), labels)
        loss.backward()
        trace["flips"].append([])
        with torch.no_grad():
            for name in ("c1", "c2"):
                weight = getattr(model, name).weight
                grad = weight.grad
                m = (1 - rate) * averages[name] + rate * grad if name in averages else grad + rate * grad
                averages[name] = m
                flip = (m.abs() >= THRESHOLD) & (m.sign() == weight.sign())
                weight[flip] *= -1
                trace["flips"][-1].append(int(flip.sum()))
                trace[name].append(weight.detach().sign().float())
        sgd.step()
        if step + 1 == DECAY_AFTER:
            rate *= DECAY
        trace["loss"].append(loss.item())
    return trace, model


def check(found: Trace, want: Trace) -> None:
    assert found["flips"] == want["flips"]
    for name in ("c1", "c2"):
        assert all(torch.equal(a, b) for a, b in zip(found[name], want[name], strict=True)), name
    assert found["loss"] == pytest.approx(want["loss"], rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_plain_float64(seed):
    generator = torch.Generator().manual_seed(seed)
    net = Net()
    state = {
        f"{name}.weight": torch.randn(getattr(net, name).weight.shape, generator=generator) * 0.3
        for name in ("c1", "c2", "fc")
    }
    state["fc.bias"] = torch.zeros(5)
    masks = {n: torch.rand(state[f"{n}.weight"].shape, generator=generator) < 0.4 for n in ("c1", "c2")}
    x, labels = torch.randn(8, 3, 6, 6, generator=generator), torch.arange(8) % 5
    found, model = ours(state, masks, x, labels)
    want, exact = plain(state, masks, x, labels)
    check(found, want)
    assert sum(map(sum, want["flips"])) > 10
    assert torch.allclose(model.fc.weight.double(), exact.fc.weight, rtol=1e-4, atol=1e-6)


def test_as_the_original():
    values = Golden("peekaboo")

    def arrays(name: str) -> Tensor:
        return torch.from_numpy(values[name]).float()

    names = {"c1.weight": "w_c1", "c2.weight": "w_c2", "fc.weight": "w_fc", "fc.bias": "w_fcb"}
    state = {key: arrays(f"prune/{name}") for key, name in names.items()}
    masks = {name: arrays(f"prune/SynFlow_it5_g0.3/mask_{name}")[-1].bool() for name in ("c1", "c2")}
    labels = torch.from_numpy(values["prune/t"]).long()
    found, model = ours(state, masks, arrays("prune/x"), labels)
    want = {
        "loss": values["train/loss"].tolist(),
        "flips": values["train/flips"].tolist(),
        "c1": list(arrays("train/sign_c1")),
        "c2": list(arrays("train/sign_c2")),
    }
    check(found, want)
    finals = {
        "fc_w_final": model.fc.weight,
        "fc_b_final": model.fc.bias,
        "b1_w_final": model.b1.weight,
        "b2_running_var_final": model.b2.running_var,
    }
    for name, value in finals.items():
        assert torch.allclose(value.detach(), arrays(f"train/{name}"), rtol=1e-4, atol=1e-6), name
