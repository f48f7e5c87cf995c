"""IteRand's redraws on whole models: what changes, what must not, what a state dict needs to make it again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn

# one of each kind of number, but for the constant, which no redraw changes
INITS = {hn.ops.init_scale((2, 2), init).kind: init for init in hn.ops.INITS}
del INITS["constant"]
INITS = tuple(INITS.values())


def network(init: str, layout=torch.contiguous_format, decayed: bool = False, density: float = 0.4) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 9, 3), nn.ReLU(), nn.Conv2d(9, 8, 3), nn.Flatten(), nn.Linear(32, 10))
    hn.hide(model, hn.Redrawn(init, seed=11, decayed=decayed), hn.KthValue(density))
    return model.to(memory_format=layout)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.source_weight().contiguous().clone() for name, layer in hn.hidden_layers(model).items()}


@pytest.mark.parametrize("init", INITS)
def test_revealed_weights_stay_and_the_others_are_drawn_anew(init):
    model = network(init)
    before, masks = weights(model), {name: m.clone() for name, m in hn.masks(model).items()}
    hn.redraw(model, 1)
    fresh = {
        name: hn.ops.generate_weight(tuple(w.shape), init, seed=11, layer=i, redraw=1)
        for i, (name, w) in enumerate(before.items())
    }
    for name, after in weights(model).items():
        assert torch.equal(after, torch.where(masks[name], before[name], fresh[name])), name


@pytest.mark.parametrize("init", INITS)
def test_memory_formats_agree_and_a_rate_replaces_its_share(init):
    plain, last = network(init), network(init, torch.channels_last)
    start = weights(plain)
    for number in (1, 2, 3):
        for model in (plain, last):
            hn.redraw(model, number, rate=0.3)
    first, second = weights(plain), weights(last)
    assert all(torch.equal(first[name], second[name]) for name in first)
    pruned = torch.cat([~mask.flatten() for mask in hn.masks(plain).values()])
    changed = torch.cat([(first[n] != start[n]).flatten() for n in first])
    moved = 1 - 0.7**3
    expected = (
        moved / 2 if hn.ops.init_scale((2, 2), init).kind == "signs" else moved
    )  # half of the new signs are the old ones
    assert not changed[~pruned].any()
    assert float(changed[pruned].float().mean()) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("decayed", [False, True])
def test_a_state_dict_makes_the_weights_again(init, decayed):
    model = network(init, decayed=decayed)
    options = {"decay": 0.9, "mix": 0.2} if decayed else {"rate": 0.5}
    for number in (1, 2, 3):
        hn.redraw(model, number, **options)
    state = model.state_dict()
    kept = {key for key, t in state.items() if torch.is_tensor(t) and t.is_floating_point()}
    dense = {key for key in kept if not key.endswith(("scores", "bias"))}
    assert dense == ({"0.drawn", "2.drawn", "4.drawn"} if decayed else set())
    other = network(init, decayed=decayed)
    other.load_state_dict(state)
    left, right = weights(model), weights(other)
    assert all(torch.equal(left[name], right[name]) for name in left)
    for m in (model, other):  # and goes on alike
        hn.redraw(m, 4, **options)
    left, right = weights(model), weights(other)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_decay_and_mix_are_a_mixture_of_what_was_and_a_new_draw():
    model = network("kaiming_uniform", decayed=True)
    before, masks = weights(model), hn.masks(model)
    hn.redraw(model, 7, decay=0.5, mix=0.25)
    for i, (name, after) in enumerate(weights(model).items()):
        fresh = hn.ops.generate_weight(tuple(after.shape), "kaiming_uniform", seed=11, layer=i, redraw=7)
        want = torch.where(masks[name], before[name], 0.5 * before[name] + 0.25 * fresh)
        torch.testing.assert_close(after, want, rtol=1e-6, atol=1e-7)


def test_a_share_protects_the_pruned_weights_of_higher_scores():
    model = network("kaiming_uniform")
    before = weights(model)
    hn.redraw(model, 1, share=0.25)
    for name, after in weights(model).items():
        layer = hn.hidden_layers(model)[name]
        n = layer.weight_shape.numel()
        kth = 1 + round(0.6 * 0.25 * (n - 1))
        low = layer.scores.detach() < layer.scores.detach().flatten().kthvalue(kth).values
        assert torch.equal(after != before[name], low), name


@pytest.mark.parametrize("init", ["signed_constant", "kaiming_uniform"])
def test_an_artifact_has_the_redrawn_weights(tmp_path, init):
    model = network(init)
    for number in (1, 2):
        hn.redraw(model, number, rate=0.5)
    hn.export(model, tmp_path / "a.safetensors")
    plain = nn.Sequential(nn.Conv2d(4, 9, 3), nn.ReLU(), nn.Conv2d(9, 8, 3), nn.Flatten(), nn.Linear(32, 10))
    again = hn.load(tmp_path / "a.safetensors", plain)
    x = torch.randn(3, 4, 6, 6)
    for name, layer in hn.hidden_layers(model).items():
        assert torch.equal(hn.hidden_layers(again)[name].effective_weight(), layer.effective_weight())
    assert torch.equal(again(x), model.eval()(x))


def test_what_cannot_be_redrawn_is_refused():
    plain = hn.hide(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(ValueError, match="expected a model with layers of source Redrawn"):
        hn.redraw(plain, 1)
    with pytest.raises(ValueError, match=r"expected a share in \(0, 1\]"):
        hn.redraw(network("kaiming_uniform"), 1, share=0.0)
    with pytest.raises(ValueError, match="expected decay and mix exactly where"):
        hn.redraw(network("kaiming_uniform"), 1, decay=0.5, mix=0.5)
    all_of_it = hn.hide(nn.Sequential(nn.Linear(4, 4)), hn.Redrawn(), hn.All())
    with pytest.raises(ValueError, match="expected rules that rank scores"):
        hn.redraw(all_of_it, 1)
