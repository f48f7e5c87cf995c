"""Each method on 20 steps: what must not change, what must be exact, what must fall."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.config import ConfigError
from hiddennet.methods import METHODS
from hiddennet.methods.layers import plain_layers
from hiddennet.nn.rules import kept_count

FROZEN = [
    ("edge_popup", {}),
    ("edge_popup", {"scope": "global", "by": "value"}),
    ("edge_popup", {"init": "kaiming_normal", "scale_fan": True, "density": 0.3}),
    ("edge_popup", {"score_init": 0.5}),
    ("sampled", {"lr": 50.0}),
    ("sampled", {"score_init": 0.0, "evaluation": "draw", "lr": 50.0}),
]


def masks(model) -> dict[str, torch.Tensor]:
    return {name: mask.clone() for name, mask in hn.masks(model).items()}


@pytest.mark.parametrize("name, options", FROZEN)
def test_scores_learn_and_no_weight_changes(trained, name, options):
    run = trained(name, **options)
    layers = hn.hidden_layers(run.model)
    before = {key: layer.source_weight().clone() for key, layer in layers.items()}
    old = masks(run.model)
    assert [n for n, p in run.model.named_parameters() if p.requires_grad] == [f"{key}.scores" for key in layers]
    losses = run.steps()
    assert losses[-1] < losses[0]
    hn.select(run.model)
    for key, layer in layers.items():
        assert torch.equal(layer.source_weight(), before[key]), key
        effective = layer.effective_weight().detach()
        if name == "edge_popup":
            assert torch.equal(effective, torch.where(layer.mask(), before[key], 0.0)), key
    assert any(not torch.equal(old[key], mask) for key, mask in masks(run.model).items())


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_edge_popup_keeps_exactly_k(trained, density):
    run = trained("edge_popup", density=density)
    run.steps(3)
    for key, mask in masks(run.model).items():
        assert int(mask.sum()) == kept_count(mask.numel(), density), key


def test_global_edge_popup_keeps_exactly_k_of_all(trained):
    run = trained("edge_popup", density=0.3, scope="global")
    run.steps(3)
    found = masks(run.model).values()
    total = sum(mask.numel() for mask in found)
    assert sum(int(mask.sum()) for mask in found) == kept_count(total, 0.3)
    assert len({round(float(mask.float().mean()), 3) for mask in found}) > 1


def test_random_trains_revealed_weights_only(trained):
    run = trained("random", density=0.3)
    layers, old, before = hn.hidden_layers(run.model), masks(run.model), run.state()
    for mask in old.values():
        assert int(mask.sum()) == kept_count(mask.numel(), 0.3)
    losses = run.steps()
    assert losses[-1] < 0.7 * losses[0]
    for key, layer in layers.items():
        assert torch.equal(layer.mask(), old[key])
        moved = layer.stored.detach() != before[f"{key}.weight"]
        assert moved[old[key]].any(), key
        assert torch.equal(layer.effective_weight() != 0, old[key]), key


def test_random_masks_follow_their_seed_alone(make):
    def found(**options) -> list[torch.Tensor]:
        from hiddennet.train.build import build_model

        return list(hn.masks(build_model(make("random", **options), 10, 1, 8)[0]).values())

    first, same, other = found(), found(init="standard"), found(mask_seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    weights = found(init="kaiming_uniform")  # drawn from the same stream, by another seed
    assert all(torch.equal(a, b) for a, b in zip(first, weights, strict=True))


def test_random_and_frozen_learns_nothing(trained):
    run = trained("random", train_weights=False)
    assert run.engine.optimizer is None
    losses = run.steps(3)
    assert losses == [losses[0]] * 3
    assert all(layer.stored is None for layer in hn.hidden_layers(run.model).values())


def test_dense_learns_everything(trained):
    run = trained("dense", model={"batch_norm": "affine"})
    before = run.state()
    losses = run.steps()
    assert losses[-1] < 0.5 * losses[0]
    assert not hn.hidden_layers(run.model)
    assert run.method.density(run.model) == 1.0
    for name, parameter in run.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_magnitude_topk_learns_hidden_weights_too(trained):
    run = trained("magnitude_topk", density=0.3)
    layers = hn.hidden_layers(run.model)
    before, old = run.state(), masks(run.model)
    losses = run.steps()
    assert losses[-1] < 0.7 * losses[0]
    for key, layer in layers.items():
        weight = layer.stored.detach()
        want = hn.ops.topk_mask(weight, kept_count(weight.numel(), 0.3), by="magnitude")
        assert torch.equal(layer.mask(), want), key
        hidden = ~old[key] & ~want
        assert (weight != before[f"{key}.weight"])[hidden].any(), key
        assert torch.equal(layer.effective_weight().detach(), torch.where(want, weight, 0.0)), key


def test_magnitude_topk_gradient_is_straight_through(trained):
    """dL/dw is the gradient of the effective weight, at hidden weights too. DNW eq. 4."""
    run = trained("magnitude_topk", density=0.3)
    layer = hn.hidden_layers(run.model)["conv1"]
    weight = torch.where(layer.mask(), layer.stored.detach(), 0.0).requires_grad_()
    x = torch.randn(2, 1, 8, 8)
    upstream = torch.randn(2, weight.shape[0], 8, 8)
    (layer(x) * upstream).sum().backward()
    (torch.nn.functional.conv2d(x, weight, padding=1) * upstream).sum().backward()
    torch.testing.assert_close(layer.stored.grad, weight.grad)


def test_targeted_dropout_learns_and_reveals_the_largest(trained):
    run = trained("magnitude_topk", density=0.3, drop=0.8)
    layers = hn.hidden_layers(run.model)
    losses = run.steps(30)
    assert losses[-1] < 0.7 * losses[0]
    assert run.method.density(run.model) == hn.density(run.model) == pytest.approx(0.3, abs=1e-3)
    for key, layer in layers.items():
        weight = layer.stored.detach()
        want = hn.ops.topk_mask(weight, kept_count(weight.numel(), 0.3), by="magnitude")
        assert torch.equal(masks(run.model)[key], want), key
    learning = (layers["layer1.0.conv1"].stored.grad != 0).float().mean()  # the largest, and a draw of the others
    assert float(learning) == pytest.approx(0.3 + 0.7 * 0.2, abs=0.05)
    run.model.eval()
    for key, layer in layers.items():
        assert torch.equal(layer.effective_weight() != 0, masks(run.model)[key]), key


@pytest.mark.parametrize("drop", [-0.1, 1.5])
def test_targeted_dropout_needs_a_probability(make, drop):
    with pytest.raises(ConfigError, match=r"method.drop: expected"):
        make("magnitude_topk", drop=drop)


@pytest.mark.parametrize("name", ["dense", "edge_popup", "random", "sampled", "magnitude_topk"])
def test_all_methods_draw_the_same_weights_from_a_seed(make, name):
    from hiddennet.train.build import build_model

    def weights(method: str, **options) -> dict[str, torch.Tensor]:
        model, _ = build_model(make(method, init="kaiming_normal", **options), 10, 1, 8)
        found = {n: m.weight.detach() for n, m in plain_layers(model).items()}
        hidden = {n: m.source_weight().detach() for n, m in hn.hidden_layers(model).items()}
        return found | hidden

    want, got = weights("dense"), weights(name)
    assert want.keys() == got.keys()
    for key in want:
        assert torch.equal(want[key], got[key]), key


@pytest.mark.parametrize("name", ["edge_popup", "sampled", "random", "magnitude_topk"])
def test_first_and_last_layer_may_stay_dense_and_learn(trained, name):
    options = {"model": {"first_layer": "dense", "last_layer": "dense"}, "exclude": ["layer1.*"]}
    run = trained(name, **options)
    dense = {n for n in plain_layers(run.model)}
    assert {"conv1", "fc"} <= dense
    assert all(n in ("conv1", "fc") or n.startswith("layer1.") for n in dense)
    before = run.state()
    run.steps(3)
    for key in dense:
        assert not torch.equal(run.model.get_submodule(key).weight, before[f"{key}.weight"]), key


@pytest.mark.parametrize("name", ["edge_popup", "sampled"])
def test_what_is_not_hidden_may_be_frozen(trained, name):
    run = trained(
        name,
        model={"first_layer": "dense", "batch_norm": "affine"},
        freeze_dense=True,
        train_batch_norm=False,
    )
    names = {n for n, p in run.model.named_parameters() if p.requires_grad}
    assert names == {f"{n}.scores" for n in hn.hidden_layers(run.model)}


@pytest.mark.parametrize("name", ["edge_popup", "sampled"])
def test_batch_norms_scale_and_shift_learn(trained, name):
    run = trained(name, model={"batch_norm": "affine"})
    before = run.state()
    run.steps(3)
    assert not torch.equal(run.model.bn1.weight, before["bn1.weight"])
    assert not torch.equal(run.model.layer2[0].shortcut[1].bias, before["layer2.0.shortcut.1.bias"])


def test_sampled_logs_what_it_expects_to_keep(trained):
    run = trained("sampled", score_init=0.0)
    found = run.method.on_epoch_end(run.model, 0)
    assert found.pop("layer_density") == 0.5
    assert found == {f"density/{name}": 0.5 for name in hn.hidden_layers(run.model)}


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("dense", "fine_tune", "dnw")])
def test_exclude_must_meet_a_layer_and_leave_one(trained, name):
    period = {"period": 1} if name == "gem_miner" else {}
    with pytest.raises(ValueError, match=r"method.exclude: expected names .* got 'layer9.*'"):
        trained(name, exclude=["layer9.*"], **period)
    with pytest.raises(ValueError, match="method: expected a layer to hide"):
        trained(name, exclude=["*"], **period)
