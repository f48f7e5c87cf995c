"""Files written by version 0.1.0 (commit 405f95d) load and compute as they did: artifacts of format 1 and state dicts.

Three small networks with every kind of source and rule there was; beside each file its state dict and what it computed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.artifact import read_header
from tests.checks import assert_equal

pytestmark = pytest.mark.isa

HERE = Path(__file__).parent / "files"


@pytest.fixture(scope="module")
def states() -> dict:
    return torch.load(HERE / "states.pt", weights_only=True)


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )


def generated() -> nn.Module:
    rules = {"0": hn.TopK(0.3, scope="global", rounding="ceil"), "3": hn.TopK(0.3), "6": hn.Sampled(seed=3)}

    def source(name: str, _: nn.Module) -> hn.Generated:
        init = "kaiming_normal" if name == "3" else "signed_constant"
        return hn.Generated(init, seed=7, scale_fan=name != "6", gain=1.5)

    return hn.hide(plain(), source, lambda name, _: rules[name])


def redrawn() -> nn.Module:
    sources = {
        "0": hn.Redrawn("kaiming_uniform", seed=2),
        "3": hn.Redrawn("signed_constant", seed=2),
        "6": hn.Stored(trainable=True, gradient="through"),
    }
    ranked = hn.TopK(0.4, of="weights", rounding="decimal")
    rule = lambda name, _: ranked if name == "6" else hn.KthValue(0.4)  # noqa: E731
    return hn.hide(plain(), lambda name, _: sources[name], rule)


def signs() -> nn.Module:
    sources = {
        "0": hn.Flipped("kaiming_normal", seed=4),
        "3": hn.Activated("kaiming_normal", seed=4, activation="ternary"),
        "6": hn.Generated("signed_constant", seed=4),
    }
    first = hn.Fixed(torch.zeros(8, 3, 3, 3, dtype=torch.bool))
    rules = {"0": first, "3": hn.Fixed(torch.zeros(8, 8, 3, 3, dtype=torch.bool)), "6": hn.Rounded()}
    return hn.hide(plain(), lambda name, _: sources[name], lambda name, _: rules[name])


@pytest.mark.parametrize("name", ["generated", "redrawn", "signs"])
def test_artifacts_load(states, name):
    kept = states[name]
    model = hn.load(HERE / f"{name}.safetensors", plain())
    torch.testing.assert_close(model(kept["x"]), kept["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [generated, redrawn, signs])
def test_state_dicts_load_and_have_the_same_keys(states, make, tmp_path):
    kept = states[make.__name__]
    model = make()
    model.load_state_dict(kept["state"])
    torch.testing.assert_close(model.eval()(kept["x"]), kept["logits"], rtol=1e-5, atol=1e-6)
    now = model.state_dict()
    assert now.keys() == kept["state"].keys()
    for key, value in kept["state"].items():
        if torch.is_tensor(value):
            assert_equal(now[key], value, key)
        else:  # a dict then, its bytes now
            assert json.loads(bytes(now[key].tolist())) == value, key
    hn.export(model, tmp_path / "again.safetensors")
    files = (HERE / f"{make.__name__}.safetensors", tmp_path / "again.safetensors")
    old, new = (read_header(path)["layers"] for path in files)
    for entry in new:
        entry.pop("code", None)  # of format 2
    assert old == new


@pytest.mark.parametrize("activation", ["pruning", "ternary"])
def test_a_source_that_makes_zeros_is_written_with_its_mask(tmp_path, activation):
    torch.manual_seed(0)
    model = hn.hide(nn.Sequential(nn.Linear(20, 30)), hn.Activated(seed=1, activation=activation), hn.All())
    with torch.no_grad():
        model[0].latent.uniform_(-0.3, 0.3)
    hn.export(model.eval(), tmp_path / "a.safetensors")
    x = torch.randn(4, 20)
    again = hn.load(tmp_path / "a.safetensors", nn.Sequential(nn.Linear(20, 30)))
    torch.testing.assert_close(again(x), model(x))
