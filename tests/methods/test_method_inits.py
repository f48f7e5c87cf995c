"""A config may name every initialisation of the table and a plugin's, and scale the fans of those that allow it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config, ops
from hiddennet.config.reference import reference
from hiddennet.ops.inits import fan_scaled
from hiddennet.registry import register


def document(init: str, **method) -> dict:
    method = {"name": "edge_popup", "density": 0.5, "init": init, **method}
    return {"name": "t", "model": {"name": "fc"}, "data": {"name": "digits"}, "method": method}


@pytest.mark.parametrize("init", ops.INITS)
def test_a_config_names_it_and_the_reference_lists_it(init):
    assert config.parse(document(init)).method.init == init
    line = next(line for line in reference().splitlines() if line.startswith("  method.init ("))
    assert init in line.removeprefix("  method.init (").split("; default")[0].split(" | ")


@pytest.mark.parametrize("init", ops.INITS)
def test_scaled_fans(init):
    if init in fan_scaled():
        full, half = (ops.init_scale((8, 4), init, density=d) for d in (1.0, 0.5))
        assert half == (full.kind, pytest.approx(full.scale * 2**0.5))
        assert config.parse(document(init, scale_fan=True)).method.scale_fan
    else:
        with pytest.raises(ValueError, match="no scale_fan"):
            ops.init_scale((8, 4), init, density=0.5)
        with pytest.raises(config.ConfigError, match=r"method\.scale_fan: expected an init of signed_constant, "):
            config.parse(document(init, scale_fan=True))


def test_what_scale_fan_serves():
    assert {"signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_laplace"} <= set(fan_scaled())
    assert not {"kaiming_uniform", "xavier_normal", "xavier_constant", "standard", "uniform"} & set(fan_scaled())


@pytest.fixture
def narrow():
    """An initialisation of a user's own: +-U of a width that goes down with the root of both fans."""

    @register("init", "narrow")
    def narrow(fan: ops.Fan) -> ops.InitScale:
        """U(+-g / (fan_in fan_out)^(1/4))"""
        return ops.InitScale("uniform", fan.gain / (fan.fan_in * fan.fan_out) ** 0.25)

    yield narrow
    del ops.INITS._things["narrow"]


def test_a_users_own_is_used_configured_exported_and_loaded(narrow, tmp_path):
    layer = hn.HiddenLinear(16, 81, bias=False, source=hn.Generated("narrow", seed=1), rule=hn.TopK(0.5))
    assert layer.scaled == ("uniform", pytest.approx(math.sqrt(2) / 6))
    assert config.parse(document("narrow")).method.init == "narrow"
    assert "| narrow;" in reference()
    with pytest.raises(config.ConfigError, match="expected an init of signed_constant"):
        config.parse(document("narrow", scale_fan=True))
    model = hn.hide(nn.Sequential(nn.Linear(16, 81), nn.ReLU(), nn.Linear(81, 4)), hn.Generated("narrow", seed=3))
    x = torch.randn(5, 16)
    hn.export(model, tmp_path / "a.safetensors")
    loaded = hn.load(tmp_path / "a.safetensors", nn.Sequential(nn.Linear(16, 81), nn.ReLU(), nn.Linear(81, 4)))
    assert torch.equal(loaded.eval()(x), model.eval()(x))


def test_a_users_own_must_say_what_it_is(narrow):
    ops.INITS._things["narrow"] = lambda fan: ops.InitScale("gamma", 1.0)
    with pytest.raises(ValueError, match="expected init 'narrow' to return InitScale"):
        ops.generate_weight((3, 3), "narrow", seed=0)


def test_a_name_of_ours_is_not_for_a_user():
    with pytest.raises(ValueError, match="expected a init name that is free, got 'kaiming_normal'"):
        register("init", "kaiming_normal")(lambda fan: ops.InitScale("normal", 1.0))
