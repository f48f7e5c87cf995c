"""Gem-Miner on the golden network: eight epochs of search and two of fine-tuning give the original's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import hiddennet as hn
from hiddennet.methods import regularizers
from hiddennet.methods.global_edge_popup import pruned_fractions
from hiddennet.nn.rules import kept_count
from hiddennet.optim import optimizers
from hiddennet.settings.recipe import Clock
from tests.methods.rare_gems import CLOSE, Tiny, flat, golden, method_of, set_scores

pytestmark = pytest.mark.isa

SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}


def search(tmp_path, **method):
    return method_of(
        tmp_path,
        {
            "method": {
                "name": "gem_miner",
                "density": 0.2,
                "period": 3,
                "weights": str(tmp_path / "tiny.pt"),
                "penalize_struck_out": True,
                **method,
            },
            "optimizer": {**SGD, "lr": 1.0},
            "schedule": {"name": "cosine"},
            "train": {"epochs": 8, "device": "cpu"},
        },
    )


def epochs_of(model, method, stage: int, first: int, count: int, values):
    """Train `count` epochs of a stage on the golden batches; yields after each epoch."""
    images, labels = torch.from_numpy(values["D_x"]), torch.from_numpy(values["D_y"])
    entry = method.stages[stage]
    optimizer = method.optimizer(model, entry.optimizer)
    for epoch in range(first, first + count):
        method.on_epoch_start(model, epoch)
        lr = entry.optimizer.lr * entry.schedule.scale(Clock(epoch - first, entry.epochs, entry.optimizer.lr))
        for group in optimizer.param_groups:
            group["lr"] = lr
        model.train()
        for batch in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizers.step(optimizer)
        yield epoch, lr


def searched(tmp_path, values, **method):
    model, method = search(tmp_path, regularizer="l2", regularizer_weight=1e-3, **method)
    set_scores(list(hn.hidden_layers(model).values()))
    return model, method


def test_the_search_is_the_originals(tmp_path):
    values = golden()
    model, method = searched(tmp_path, values)
    layers = hn.hidden_layers(model)
    assert method.strikes == (2, pytest.approx(float(values["D_gm_sgd_prune_rate"])))
    flags = np.unpackbits(values["D_gm_sgd_flags"], axis=1)[:, :1344]
    for epoch, lr in epochs_of(model, method, 0, 0, 8, values):
        assert lr == pytest.approx(values["D_gm_sgd_lr"][epoch])
        np.testing.assert_allclose(flat(m.scores for m in layers.values()), values["D_gm_sgd_scores"][epoch], **CLOSE)
        numbers = method.on_epoch_end(model, epoch)
        assert numbers["regularizer"] == pytest.approx(values["D_gm_sgd_regloss"][epoch], rel=0.05)
        # the original's row of an epoch counts after striking out, which here is the next epoch's first deed
        now = torch.cat([hn.ops.unpack_mask(m.flags, m.weight_shape).flatten() for m in layers.values()])
        assert np.array_equal(now.numpy(), flags[epoch].astype(bool)) == (epoch not in (3, 6))
        found = numbers.get("density", method.density(model))
        assert 100 * found == pytest.approx(values["D_gm_sgd_sparsity"][epoch], abs=1e-5)
        assert numbers["flag_density"] == pytest.approx(flags[epoch].mean())
        if epoch in (4, 7):
            model.eval()
            with torch.no_grad():
                images, labels = torch.from_numpy(values["D_x"]), torch.from_numpy(values["D_y"])
                losses = [float(F.cross_entropy(model(x), y)) for x, y in zip(images, labels, strict=True)]
            np.testing.assert_allclose(losses, values["D_gm_sgd_evalloss"][epoch], rtol=1e-4)
    assert [method.is_result(epoch) for epoch in range(8)] == [False] * 7 + [True]


@pytest.mark.parametrize("unflag", [True, False])
def test_fine_tuning_is_the_originals(tmp_path, unflag):
    values = golden()
    recipe = {
        "epochs": 2,
        "unflag": unflag,
        "optimizer": {**SGD, "lr": 0.05, "weight_decay": 1e-4},
        "schedule": {"name": "constant"},
    }
    model, method = searched(tmp_path, values, fine_tune=recipe)
    for _ in epochs_of(model, method, 0, 0, 8, values):
        pass
    method.enter_stage(model, 1)
    for _ in epochs_of(model, method, 1, 8, 2, values):
        pass
    layers = hn.hidden_layers(model)
    prefix = f"D_ft_unflag{int(unflag)}"
    mask = flat(layer.mask() for layer in layers.values())
    kept = np.unpackbits(values["D_gm_sgd_flags"], axis=1)[-1, :1344].astype(bool)
    want = kept & values[f"{prefix}_scores"].astype(bool)
    assert np.array_equal(mask, want)
    assert 100 * mask.mean() == pytest.approx(float(values[f"{prefix}_sparsity"]))
    got = flat(layer.stored for layer in layers.values())
    np.testing.assert_allclose(got[mask], values[f"{prefix}_weight"][mask], **CLOSE)


def test_struck_out_scores_rest_unless_the_original_is_asked_for(tmp_path):
    values = golden()
    model, method = searched(tmp_path, values, penalize_struck_out=False)
    layers = hn.hidden_layers(model)
    resting = None
    for epoch, _ in epochs_of(model, method, 0, 0, 8, values):
        scores = flat(m.scores for m in layers.values())
        flags = flat(hn.ops.unpack_mask(m.flags, m.weight_shape) for m in layers.values())
        np.testing.assert_allclose(scores[flags], values["D_gm_sgd_scores"][epoch][flags], **CLOSE)
        if epoch == 4:
            resting = ~flags, scores[~flags]
    assert np.array_equal(scores[resting[0]], resting[1])


def test_dropping_the_smaller_half_of_the_weights(tmp_path):
    values = golden()
    model, method = search(tmp_path, drop_bottom_half=True, period=5)
    layers = hn.hidden_layers(model)
    start = 0
    with torch.no_grad():
        for layer in layers.values():
            n = layer.weight_shape.numel()
            layer.stored.copy_(
                torch.from_numpy(values["D_dropbottom_weight"][start : start + n]).view(layer.weight_shape)
            )
            start += n
    method.on_epoch_start(model, 0)
    assert not np.array_equal(flat(m.scores for m in layers.values()), values["D_dropbottom_scores"])
    method.on_epoch_start(model, 1)
    assert np.array_equal(flat(m.scores for m in layers.values()), values["D_dropbottom_scores"].astype(np.float32))


@pytest.mark.parametrize("name", ["L1", "L2", "L1_L2", "bin_entropy"])
def test_regularizers_are_the_originals(name):
    values = golden()
    model = hn.hide(Tiny(), rule=hn.Rounded())
    set_scores(list(hn.hidden_layers(model).values()))
    scores = [layer.scores for layer in hn.hidden_layers(model).values()]
    value = regularizers.penalty(name.lower(), 1e-3, scores)
    assert float(value) == pytest.approx(float(values[f"G_{name}_value"]), rel=1e-5)
    scores[0].grad = torch.zeros_like(scores[0])
    regularizers.add_gradient(name.lower(), 1e-3, scores, None)
    np.testing.assert_allclose(scores[0].grad.flatten().numpy(), values[f"G_{name}_grad0"], **CLOSE)


def test_regularizers_of_variance_by_hand():
    p, w = torch.tensor([0.2, 0.7]), torch.tensor([2.0, -1.0])
    got = regularizers.penalty("var_red_1", 0.1, [p], alpha=2, alpha_prime=3)
    assert float(got) == pytest.approx(0.1 * (0.04 * 0.8**3 + 0.49 * 0.3**3))
    assert float(regularizers.penalty("var_red_2", 0.1, [p], [w])) == pytest.approx(0.1 * (4 * 0.16 + 0.21))
    with pytest.raises(ValueError, match="expected the layers' weights"):
        regularizers.penalty("var_red_2", 0.1, [p])
    with pytest.raises(ValueError, match="expected one of l1"):
        regularizers.penalty("l3", 0.1, [p])


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.9941])
def test_global_edge_popup_keeps_what_the_original_keeps(fraction):
    values = golden()
    rule = hn.TopK(1 - fraction, scope="global", rounding="ceil")
    model = hn.hide(Tiny(), rule=rule)
    scores, start = values["F_gep_tiny_scores"], 0
    with torch.no_grad():
        for layer in hn.hidden_layers(model).values():
            n = layer.weight_shape.numel()
            layer.scores.copy_(torch.from_numpy(scores[start : start + n]).view(layer.weight_shape))
            start += n
    kept = [int(mask.sum()) for mask in hn.masks(model).values()]
    assert kept == values[f"F_gep_tiny_{fraction}_kept"].tolist()


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.0144, 0.0059])
def test_edge_popup_keeps_what_the_original_keeps(fraction):
    values = golden()
    kept = [kept_count(int(n), fraction) for n in values["F_r20_layer_sizes"]]
    assert kept == values[f"F_ep_r20_{fraction}_kept"].tolist()


def test_the_iterative_form_prunes_the_originals_fractions():
    values = golden()["F_gep_iter_rate_per_epoch_T5_T8"]
    for period, want in zip((5, 8), values, strict=True):
        np.testing.assert_allclose(pruned_fractions(0.0059, period, 150), want, rtol=1e-9)
