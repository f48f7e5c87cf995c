"""A word-level language model through the engine and the driver: loss, state, perplexity, clipping."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from torch.nn import functional as F

from hiddennet import config
from hiddennet.config import ConfigError
from hiddennet.config.load import merge, overrides_document
from hiddennet.train.build import build_data, build_model
from hiddennet.train.engine import Engine, begin_pass
from hiddennet.train.evaluate import evaluate, summary
from hiddennet.train.experiment import run
from hiddennet.train.folder import RunError
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter

CPU = torch.device("cpu")
LINES = ["one two three four five six", "two four six one three five", "six five four three two one"]


@pytest.fixture
def make(tmp_path):
    """The config of a tiny language model on a text whose next word is mostly clear, with overrides."""
    for file, times in (("train.txt", 40), ("valid.txt", 6), ("test.txt", 6)):
        (tmp_path / file).write_text("\n".join(LINES * times) + "\n")
    document = {
        "name": "text",
        "runs": str(tmp_path / "runs"),
        "model": {"name": "lstm_lm", "width": 0.02, "dropout": 0.1},
        "data": {"name": "text_folder", "root": str(tmp_path), "batch_size": 4, "bptt": 7},
        "method": {"name": "dense", "init": "kaiming_normal"},
        "optimizer": {"lr": 2.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.25},
        "train": {"epochs": 4, "device": "cpu"},
    }
    return lambda *overrides: config.parse(merge(document, overrides_document(overrides)))


def engine_and_data(config):
    data = build_data(config, CPU, Ranks())
    model, method = build_model(config, data.num_classes, data.in_channels, data.image_size)
    return Engine(model.train(), config, CPU, Ranks(), method), data


def rows_of(record):
    with open(f"{record['run']}/metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_loss_is_the_mean_over_all_words(make):
    engine, data = engine_and_data(make("optimizer.lr=1e-9", "model.dropout=0"))
    tokens, targets = next(iter(data.train))
    assert tokens.shape == (7, 4) and targets.shape == (28,)
    meter = Meter(CPU)
    engine.step(tokens, targets, meter, 4)
    got = [p.grad.clone() for p in engine.learning_parameters()]
    engine.model.zero_grad()
    engine.begin_epoch()
    loss = F.cross_entropy(engine.model(tokens), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(engine.learning_parameters(), 0.25)
    for gradient, parameter in zip(got, engine.learning_parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-7)
    assert meter.read()[0].loss == pytest.approx(loss.item(), rel=1e-5)
    assert meter.read()[0].images == 28


def test_evaluation_begins_anew_and_leaves_training_where_it_was(make):
    engine, data = engine_and_data(make())
    batches = list(data.train)
    engine.step(*batches[0], Meter(CPU), 4)
    carried = [tuple(t.clone() for t in layer) for layer in engine.carried()[0]]
    first = engine.evaluate(data.validation)
    assert engine.evaluate(data.validation) == first
    assert engine.model.training
    for layer, want in zip(engine.carried()[0], carried, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer, want, strict=True))
    columns = first.columns("validation")
    assert columns["validation_perplexity"] == pytest.approx(math.exp(columns["validation_loss"]))
    assert first.images == sum(len(targets) for _, targets in data.validation)
    engine.begin_epoch()
    assert engine.carried() == [None]


def test_a_carried_state_makes_a_stopped_epoch_go_on(make):
    whole, data = engine_and_data(make("model.dropout=0"))
    parts, _ = engine_and_data(make("model.dropout=0"))
    batches = list(data.train)[:4]
    for tokens, targets in batches:
        whole.step(tokens, targets, Meter(CPU), 4)
    for tokens, targets in batches[:2]:
        parts.step(tokens, targets, Meter(CPU), 4)
    resumed, _ = engine_and_data(make("model.dropout=0"))
    resumed.model.load_state_dict(parts.model.state_dict())
    resumed.carry(parts.carried())
    for tokens, targets in batches[2:]:
        resumed.step(tokens, targets, Meter(CPU), 4)
    for a, b in zip(resumed.learning_parameters(), whole.learning_parameters(), strict=True):
        assert torch.equal(a, b)


def test_models_without_a_state_carry_none():
    model = torch.nn.Linear(2, 2)
    begin_pass(model)
    engine = Engine.__new__(Engine)
    engine.model = model
    assert engine.carried() is None
    engine.carry(None)


@pytest.mark.parametrize(
    "method",
    [
        (),
        (
            "method.name=edge_popup",
            "method.density=0.5",
            "optimizer.lr=20",
            "model.width=0.05",
            "optimizer.clip_norm=1",
        ),
    ],
)
def test_a_run_learns_the_text(make, method):
    record = run(make(*method), bar=False)
    rows = rows_of(record)
    assert len(rows) == 4
    assert rows[-1]["validation_perplexity"] == pytest.approx(math.exp(rows[-1]["validation_loss"]))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.1
    assert rows[-1]["validation_perplexity"] < 0.8 * 7  # words of the vocabulary, <eos> with them
    found = evaluate(record["artifact"], root=str(make().data.root), batch_size=4, device="cpu")
    assert found["scores"].loss == pytest.approx(record["test_loss"], rel=1e-5)
    said = summary(found)
    assert "perplexity" in said and f"{math.exp(record['test_loss']):.2f}" in said
    assert "words of the test split" in said


@pytest.mark.parametrize("method", ["sampled", "magnitude_topk", "random", "iterand", "imp"])
def test_every_method_hides_in_it(make, method):
    more = ["method.rounds=1"] if method == "imp" else []
    record = run(make(f"method.name={method}", "train.epochs=1", "data.limit=200", *more), bar=False)
    assert math.isfinite(record["test_loss"])
    assert record["method"] == method and 0 < record["density"] < 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.name=conv2",), "model.name: expected lstm_lm with data.name=text_folder, got 'conv2'"),
        (("data.name=digits",), "model.name: expected a model of images with data.name=digits, got 'lstm_lm'"),
        (("train.accumulate=2",), "train.accumulate: expected 1 with a text, got 2"),
        (("optimizer.clip_norm=0",), "optimizer.clip_norm"),
        (("schedule.name=plateau", "schedule.factor=1"), "schedule.factor"),
        (
            ("schedule.name=plateau", "data.validation=0", "train.selection=test"),
            "schedule.name: expected data.validation above 0 with plateau",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make, overrides, message):
    with pytest.raises(ConfigError, match=message):
        make(*overrides)


def test_another_text_is_refused(make, tmp_path):
    """Words have numbers by their order of appearance: of another text they mean something else."""
    record = run(make("train.epochs=1"))
    for file in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / "other").mkdir(exist_ok=True)
        text = (tmp_path / file).read_text()
        (tmp_path / "other" / file).write_text(text.replace("one", "won"))
    other = str(tmp_path / "other")
    for where in (record["run"], record["artifact"]):
        with pytest.raises(ValueError, match="eval: expected the words that the network has learned"):
            evaluate(where, root=other, device="cpu", batch_size=4)
    with pytest.raises(RunError, match="data: expected what .* was begun with"):
        run(make("train.epochs=1", f"data.root={other}"))
