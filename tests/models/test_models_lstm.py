"""The word-level LSTM: torch's LSTM as the reference, its state, its tied weight, hidden and plain."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from hiddennet import models


def small(**arguments):
    torch.manual_seed(0)
    return models.build("lstm_lm", **{"num_classes": 11, "width": 0.005, "dropout": 0, **arguments})  # 7 units


def words(steps=5, columns=3, seed=0):
    return torch.randint(0, 11, (steps, columns), generator=torch.Generator().manual_seed(seed))


def torchs(model, bias):
    """torch.nn.LSTM with the model's weights."""
    reference = nn.LSTM(model.units, model.units, len(model.layers), bias=bias)
    with torch.no_grad():
        for number, layer in enumerate(model.layers):
            getattr(reference, f"weight_ih_l{number}").copy_(layer.input.weight)
            getattr(reference, f"weight_hh_l{number}").copy_(layer.recurrent.weight)
            if bias:
                getattr(reference, f"bias_ih_l{number}").copy_(layer.input.bias)
                getattr(reference, f"bias_hh_l{number}").zero_()
    return reference


def test_published_size():
    with torch.device("meta"):
        model = models.build("lstm_lm", num_classes=33_278, bias=True)
    weights = sum(layer.weight.numel() for layer in models.prunable(model).values())
    assert weights == 33_278 * 1500 + 2 * 2 * 4 * 1500 * 1500
    # 85.97 million, with two biases of 4 x 1500 a layer where here is one
    assert sum(p.numel() for p in model.parameters()) == 85_974_278 - 2 * 6000
    assert model.dropout.p == 0.65 and len(model.layers) == 2
    assert list(models.prunable(model)) == [
        *(f"layers.{i}.{part}" for i in (0, 1) for part in ("input", "recurrent")), "decoder"
    ]  # fmt: skip
    assert model.get_submodule(model.first_layer) is model.layers[0].input
    assert model.get_submodule(model.last_layer) is model.decoder


@pytest.mark.parametrize("bias", [False, True])
def test_torchs_lstm_over_two_batches(bias):
    model = small(bias=bias, layers=3)
    if bias:
        for layer in models.prunable(model).values():
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -1, 1)
    reference, state = torchs(model, bias), None
    for seed in (1, 2):
        tokens = words(seed=seed)
        hidden, state = reference(F.embedding(tokens, model.decoder.weight), state)
        want = F.linear(hidden.flatten(0, 1), model.decoder.weight, model.decoder.bias)
        torch.testing.assert_close(model(tokens), want, rtol=1e-5, atol=1e-6)


def test_the_state_goes_on_and_is_reset():
    model = small().train()
    tokens = words(6)
    whole = model(tokens)
    assert not torch.allclose(model(tokens), whole)
    model.reset_state()
    parts = torch.cat([model(tokens[:2]), model(tokens[2:])])
    torch.testing.assert_close(parts, whole)
    assert model.carried_state()[0][0].shape == (3, 7)


def test_gradients_do_not_go_back_beyond_the_batch():
    model = small().train()
    model(words(seed=1)).sum().backward()
    model.zero_grad()
    state = copy.deepcopy(model.carried_state())
    assert not any(h.requires_grad or c.requires_grad for h, c in state)
    model(words(seed=2)).square().sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.carry_state(state)
    model(words(seed=2)).square().sum().backward()
    assert all(torch.equal(p.grad, grad) and grad.any() for p, grad in zip(model.parameters(), found, strict=True))


def test_evaluation_leaves_the_state_of_training_alone():
    model = small().train()
    model(words())
    carried = copy.deepcopy(model.carried_state())
    with torch.no_grad():
        model.eval()
        model(words(columns=2))
        model.reset_state()
        first = model(words(columns=4))
        assert not torch.allclose(model(words(columns=4)), first)
        model.reset_state()
        torch.testing.assert_close(model(words(columns=4)), first)
    for (h, c), (h0, c0) in zip(model.carried_state(), carried, strict=True):
        assert torch.equal(h, h0) and torch.equal(c, c0)
    model.train().reset_state()
    assert model.carried_state() is None


def test_another_number_of_columns_is_refused():
    model = small()
    model(words(columns=3))
    with pytest.raises(ValueError, match="expected 3 columns as in the batch before, got 2; call reset_state"):
        model(words(columns=2))


def test_dropout_in_training_only():
    model = small(dropout=0.5).train()
    first = model(words())
    model.reset_state()
    assert not torch.allclose(model(words()), first)
    with torch.no_grad():
        model.eval()
        found = model(words())
        model.reset_state()
        assert torch.equal(model(words()), found)


@pytest.mark.parametrize("rule", [hn.TopK(0.5), hn.Sampled(seed=3), hn.Threshold(0.0)])
def test_hidden_it_computes_what_the_plain_one_does_of_its_effective_weights(rule):
    hidden = hn.hide(small(), rule=rule).eval()
    plain = small().eval()
    with torch.no_grad():
        for name, layer in models.prunable(hidden).items():
            plain.get_submodule(name).weight.copy_(layer.effective_weight())
        for seed in (1, 2):
            torch.testing.assert_close(hidden(words(seed=seed)), plain(words(seed=seed)))


def test_scores_of_every_layer_learn():
    model = hn.hide(small(layers=1)).train()
    F.cross_entropy(model(words()), words(seed=9).flatten()).backward()
    assert all(layer.scores.grad.any() for layer in models.prunable(model).values())


def test_a_sampled_network_draws_once_a_pass():
    model = hn.hide(small(), rule=hn.Sampled(seed=3)).train()
    for passes in (1, 2):
        model(words())
        assert [int(layer.draw) for layer in models.prunable(model).values()] == [1 + passes] * 5


def test_copies_and_pickles():
    model = small().eval()
    with torch.no_grad():
        model(words())
        twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        want = model(words(seed=4))
        for twin in twins:
            assert torch.equal(twin(words(seed=4)), want)
            assert twin.architecture == model.architecture


def test_an_artifact(tmp_path):
    model = hn.hide(small(bias=True)).eval()
    hn.export(model, tmp_path / "net")
    with torch.no_grad():
        torch.testing.assert_close(hn.load(tmp_path / "net")(words()), model(words()))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lstm_lm", {"layers": 0}, "layers: expected a whole number from 1 to 1000, got 0"),
        ("lstm_lm", {"dropout": 1.0}, "dropout: expected a number in .0, 1., got 1.0"),
        ("conv4", {"dropout": 0.5}, "dropout: expected None for conv4, got 0.5; it is for lstm_lm"),
        ("fc", {"layers": 2}, "layers: expected None for fc, got 2; it is for lstm_lm"),
        ("lstm_lm", {"stem_scaled": False}, "stem_scaled: expected True for lstm_lm"),
    ],
)
def test_impossible_requests_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, num_classes=10, **arguments)
