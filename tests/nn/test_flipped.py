"""Flipped: random weights whose signs are learned; one bit a weight in state dicts and artifacts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn


def network(init: str = "kaiming_normal", seed: int = 3) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4, bias=False))

    def mask(name: str, module: nn.Module) -> hn.Fixed:
        return hn.Fixed(torch.arange(module.weight.numel()).view_as(module.weight) % 3 != 0)

    return hn.hide(model, source=hn.Flipped(init, seed), rule=mask)


def flip_some(model: nn.Module) -> None:
    with torch.no_grad():
        for layer in hn.hidden_layers(model).values():
            layer.stored[1::2] *= -1


@pytest.mark.parametrize("init", ["kaiming_normal", "signed_constant", "standard"])
def test_they_start_as_the_generated_ones(init):
    flipped = network(init)
    plain = hn.hide(
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4, bias=False)),
        source=hn.Generated(init, 3),
        rule=hn.All(),
    )
    for a, b in zip(hn.hidden_layers(flipped).values(), hn.hidden_layers(plain).values(), strict=True):
        assert torch.equal(a.source_weight(), b.source_weight())
        assert a.stored.requires_grad


def test_only_revealed_weights_get_gradients():
    model = network()
    model(torch.randn(2, 3, 4, 4)).square().sum().backward()
    for layer in hn.hidden_layers(model).values():
        assert not layer.stored.grad[~layer.mask()].any() and layer.stored.grad[layer.mask()].any()


@pytest.mark.parametrize("init", ["kaiming_normal", "signed_constant"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_state_dict_holds_one_bit_a_weight(init, channels_last):
    model = network(init)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    flip_some(model)
    state = model.state_dict()
    assert state["0.signs"].dtype == torch.uint8 and state["0.signs"].numel() == (135 + 7) // 8
    assert "0.weight" not in state and "3.weight" not in state
    other = network(init)
    kept = dict(state)
    other.load_state_dict(state)
    assert state.keys() == kept.keys()
    for a, b in zip(hn.hidden_layers(model).values(), hn.hidden_layers(other).values(), strict=True):
        assert torch.equal(a.stored, b.stored)


def test_a_missing_plane_is_said():
    state = network().state_dict()
    del state["0.signs"]
    with pytest.raises(RuntimeError, match=r"0\.weight"):
        network().load_state_dict(state)


def test_another_magnitude_is_refused():
    model = network()
    with torch.no_grad():
        model[0].stored.mul_(1.01)
    with pytest.raises(RuntimeError, match="expected Flipped weights to keep the magnitudes that their seed gives"):
        model.state_dict()


@pytest.mark.parametrize("init", ["kaiming_normal", "standard", "signed_constant"])
def test_an_artifact_holds_a_seed_and_two_bits_a_weight(tmp_path, init):
    model = network(init).eval()
    flip_some(model)
    path = tmp_path / "net.safetensors"
    hn.export(model, path)
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4, bias=False))
    found = hn.load(path, plain)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(found(x), model(x))
    from safetensors.torch import load_file

    tensors = load_file(path)
    weights = sum(layer.weight.numel() for layer in hn.hidden_layers(model).values())
    kept = sum(int(mask.sum()) for mask in hn.masks(model).values())
    assert tensors["mask_bits"].numel() <= weights // 8 + 2
    assert tensors["sign_bits"].numel() <= kept // 8 + 2
    assert "values" not in tensors
