"""Steps of the engine: parts of a batch, label smoothing, precision, what is refused on the way."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from hiddennet import methods
from hiddennet.optim import whole_gradients
from hiddennet.train import build as train_build
from hiddennet.train import checkpoint, evaluate, machine
from hiddennet.train.build import build_data, build_model
from hiddennet.train.engine import Engine
from hiddennet.train.experiment import run
from hiddennet.train.folder import RunError, RunFolder
from hiddennet.train.machine import choose_device, use_channels_last
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter
from tests.golden import Golden

CPU = torch.device("cpu")


def engine_and_batch(config) -> tuple[Engine, torch.Tensor, torch.Tensor]:
    data = build_data(config, CPU, Ranks())
    model, method = build_model(config, data.num_classes, data.in_channels, data.image_size)
    data.train.set_epoch(0)
    images, labels = next(iter(data.train))
    return Engine(model.train(), config, CPU, Ranks(), method), images, labels


@pytest.mark.parametrize("parts", [2, 5])
def test_accumulated_parts_equal_the_whole_batch(make, parts):
    whole, images, labels = engine_and_batch(make())
    split, _, _ = engine_and_batch(make(f"train.accumulate={parts}"))
    meters = Meter(CPU), Meter(CPU)
    for _ in range(3):
        whole.step(images, labels, meters[0], len(images))
        split.step(images, labels, meters[1], len(images))
    for a, b in zip(whole.learning_parameters(), split.learning_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    left, right = (meter.read()[0] for meter in meters)
    assert left.images == right.images == 3 * len(images)
    assert left.loss == pytest.approx(right.loss, rel=1e-5)


def test_a_short_last_batch_is_a_mean_over_its_own_images(make):
    engine, images, labels = engine_and_batch(make())
    twin, _, _ = engine_and_batch(make())
    with whole_gradients():
        engine.step(images[:3], labels[:3], Meter(CPU), 3)
    nn.functional.cross_entropy(twin.model(images[:3]), labels[:3]).backward()
    for got, want in zip(engine.learning_parameters(), twin.learning_parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_label_smoothing_is_the_originals(make):
    values = Golden("hidden_networks")
    logits = torch.from_numpy(values["ls_logits"])
    labels = torch.from_numpy(values["ls_targets"])
    for smoothing, want in zip(values["ls_smoothing"], values["ls_loss"], strict=True):
        config = make(f"train.label_smoothing={smoothing}", "method.name=dense")
        engine = Engine(nn.Linear(1, 1), config, CPU, Ranks(), methods.create(config.setting()))
        got = float(engine._loss_sum(logits, labels)) / len(labels)
        assert got == pytest.approx(float(want), abs=1e-5)


def test_bfloat16_trains(make):
    engine, images, labels = engine_and_batch(make("train.amp=bf16"))
    seen = []
    engine.model.linear[-1].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    losses = []
    for _ in range(20):
        meter = Meter(CPU)
        engine.step(images, labels, meter, len(images))
        losses.append(meter.read()[0].loss)
    assert set(seen) == {torch.bfloat16}
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.dtype == torch.float32 for p in engine.learning_parameters())


def test_channels_last_gives_the_same_network(make):
    overrides = ("model.name=digits_conv", "model.width=0.1")
    plain, images, labels = engine_and_batch(make(*overrides))
    turned, _, _ = engine_and_batch(make(*overrides, "train.channels_last=true"))
    assert turned.model.convs[2].scores.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn_like(images)  # no equal values, between which a pooling's choice is open
    plain.step(images, labels, Meter(CPU), len(images))  # one: later, rounding may flip a mask
    turned.step(images, labels, Meter(CPU), len(images))
    for a, b in zip(plain.learning_parameters(), turned.learning_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_channels_last_auto():
    assert use_channels_last("auto") and use_channels_last(True)
    assert not use_channels_last(False)


def test_a_gpu_that_is_not_there_is_refused():
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(ValueError, match=r"train.device: expected a GPU .*use train.device=cpu"):
        choose_device(f"cuda:{count}")
    assert choose_device("cpu") == CPU


def test_a_loss_that_is_not_finite_stops_the_run(make):
    config = make("optimizer.lr=1e30", "method.name=dense", "train.log_every=1")
    with pytest.raises(RunError, match=r"expected finite loss, got nan or inf by step \d+ .*lower"):
        run(config)


def test_scores_that_are_not_finite_stop_the_run(make, monkeypatch):
    """Weights are generated, so broken scores do not show in the loss: they are looked at."""
    from hiddennet.methods import METHODS

    def spoil(self, model, step):
        if step == 3:
            model.linear[0].scores.data[0, 0] = float("inf")

    monkeypatch.setattr(METHODS["edge_popup"], "after_update", spoil)
    with pytest.raises(RunError, match=r"expected finite scores and weights, got nan or inf by st"):
        run(make())


def test_an_evaluation_changes_nothing(make):
    config = make("model.name=cifar_resnet18", "model.width=0.05", "data.limit=60")
    engine, _, _ = engine_and_batch(config)
    data = build_data(config, CPU, Ranks())
    before = {k: v.clone() for k, v in engine.model.state_dict().items() if torch.is_tensor(v)}
    first, second = engine.evaluate(data.test), engine.evaluate(data.test)
    assert first == second
    assert first.images == data.test.num_images
    assert engine.model.training
    for key, value in before.items():
        assert torch.equal(engine.model.state_dict()[key], value), key
    assert engine.evaluate(data.test, stop=lambda: True) is None


def test_deterministic_mode_is_set_and_unset(make):
    run(make("train.epochs=0", "train.deterministic=true"))
    assert torch.are_deterministic_algorithms_enabled()
    run(make("train.epochs=0", "seed=1"))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("parts", [1, 4])
def test_hooks_stand_where_they_say(make, monkeypatch, parts):
    """Gradients in before_update are the whole batch's, once a step; the optimiser takes what is left of them."""
    seen = []

    def note(name, change=None):
        def hook(self, model, step):
            scores = model.linear[0].scores
            seen.append((name, step, scores.grad is not None, scores.detach().clone()))
            if change is not None:
                scores.grad.zero_()

        monkeypatch.setattr(methods.METHODS["edge_popup"], name, hook)

    note("before_forward")
    note("before_update", "spoil")
    note("after_update")
    run(make(f"train.accumulate={parts}", "train.epochs=1", "optimizer.momentum=0", "optimizer.weight_decay=0"))
    steps = len(seen) // 3
    assert [name for name, *_ in seen] == ["before_forward", "before_update", "after_update"] * steps
    assert [step for _, step, *_ in seen] == [at for n in range(steps) for at in (n, n, n + 1)]
    assert all(has for name, _, has, _ in seen if name == "before_update")
    assert all(torch.equal(scores, seen[0][3]) for *_, scores in seen)


def test_each_group_keeps_its_own_rate_under_a_schedule(make, monkeypatch):
    """A paper's two rates: both are scaled, none is overwritten; also where a run goes on from its checkpoint."""

    def optimizer(self, model, section):
        first, *rest = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.SGD([{"params": [first], "lr": 10 * section.lr}, {"params": rest}], lr=section.lr)

    used, step = [], Engine.step

    def record(self, *arguments):
        used.append([group["lr"] for group in self.optimizer.param_groups])
        step(self, *arguments)

    monkeypatch.setattr(methods.METHODS["edge_popup"], "optimizer", optimizer)
    monkeypatch.setattr(Engine, "step", record)
    config = make("schedule.name=cosine", "train.epochs=2", "optimizer.lr=0.5")
    run(config)
    half = len(used) // 2
    assert used[0] == [5.0, 0.5] and used[-1] == pytest.approx([2.5, 0.25])
    folder, rows = RunFolder.of(config), used[half:]
    rates = [float(row["lr"]) for row in csv.DictReader(folder.metrics.open())]
    assert rates == pytest.approx([5.0, 2.5])
    used.clear()
    state = checkpoint.load(folder.last)
    before = state["progress"]["history"][:1]
    state["progress"] |= {"epoch": 1, "step": half, "history": before, "best": before[0]}
    checkpoint.save(folder.last, state)
    folder.record.unlink()
    run(config)
    assert used == rows


def test_deterministic_algorithms_are_asked_for_where_that_changes_something(monkeypatch):
    """torch imports its compiler in that call, for seconds."""
    asked, own = [], torch.use_deterministic_algorithms
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: (asked.append(mode), own(mode)))
    try:
        for mode in (False, True, True, False, False):
            machine.set_deterministic(mode)
            assert torch.are_deterministic_algorithms_enabled() == mode
    finally:
        own(False)
    assert asked == [True, False]


NORMED = ("model.name=cifar_resnet18", "model.width=0.05", "data.limit=33", "data.validation=0", "train.selection=test")


def test_a_last_batch_of_one_image_is_refused_said_or_left_out(make, capfd):
    """Batch norm has no deviation there where the images are one pixel by then; of larger ones it has their own."""
    small = ("data.batch_size=16", "data.image_size=8", "train.epochs=1")
    with pytest.raises(ValueError, match="last batch of 1; set data.drop_last=true, another data.batch_size than 16"):
        run(make(*NORMED, *small))
    with pytest.raises(ValueError, match="one image at a time for batch norm, got one; .* or less train.accumulate"):
        run(make(*NORMED, *small, "data.drop_last=true", "train.accumulate=16"))
    assert "note: batch norm" not in capfd.readouterr().out
    dropped = make(*NORMED, *small, "data.drop_last=true")
    run(dropped)
    progress = checkpoint.load(RunFolder.of(dropped).last)["progress"]
    assert progress["step"] == 2
    run(make(*NORMED, "data.batch_size=16", "data.image_size=32", "train.epochs=1"))
    assert "note: batch norm normalises an image by itself there" in capfd.readouterr().out
    run(make("data.limit=33", "data.validation=0", "train.selection=test", *small[::2]))  # a network without it


def test_left_out_are_others_in_each_epoch(make):
    config = make("data.drop_last=true", "data.limit=100", "data.validation=0", "train.selection=test")
    loader = build_data(config, CPU, Ranks()).train
    seen = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        assert [len(labels) for _, labels in loader] == [32, 32, 32] and loader.order.last_batch == 32
        seen.append(set(loader.order.epoch(epoch)[:96].tolist()))
    assert len(seen[0] | seen[1]) > 96
    assert len(build_data(config, CPU, Ranks()).test.order.epoch(0)) == build_data(config, CPU, Ranks()).test.num_images
    with pytest.raises(ValueError, match="drop_last: expected at least one whole batch of 128 images, got 100"):
        build_data(
            make(
                "data.drop_last=true",
                "data.limit=100",
                "data.validation=0",
                "train.selection=test",
                "data.batch_size=128",
            ),
            CPU,
            Ranks(),
        )


def test_layers_without_a_gradient_are_named_in_the_first_steps(make, capfd, monkeypatch):
    """A branch that ends in a batch norm of scale 0 gives its scores nothing to learn from, unless the scale learns."""

    def zero(model: nn.Module) -> nn.Module:
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d) and name.endswith("bn2"):
                nn.init.zeros_(module.weight)
        return model

    plain = train_build.build_plain
    monkeypatch.setattr(train_build, "build_plain", lambda *given: zero(plain(*given)))
    net = ("model.name=cifar_resnet18", "model.width=0.05", "model.batch_norm=affine", "train.epochs=1")
    run(make(*net, "method={name: hc}"))
    said = capfd.readouterr().out
    assert "hidden layers get no gradient (layer" in said and "zero_init_last=False" in said
    for method in ("edge_popup, density: 0.5", "dense"):
        run(make(*net, f"method={{name: {method}}}"))
        assert "get no gradient" not in capfd.readouterr().out
    monkeypatch.undo()
    run(make(*net, "method={name: hc}", "seed=1"))
    assert "get no gradient" not in capfd.readouterr().out


@pytest.mark.parametrize("more", [{"pruner": "synflow", "invert": True}, {"pruner": "snip", "density": 0.0002}])
def test_a_pruner_that_leaves_nothing_alive_says_so(make, capfd, more):
    keys = ", ".join(f"{key}: {str(value).lower()}" for key, value in {"density": 0.002, **more}.items())
    run(make(f"method={{name: prune_at_init, {keys}}}", "train.epochs=0"))
    assert "warning: no weight that is kept lies on a path from the input to the output" in capfd.readouterr().out


def test_a_run_that_broke_in_its_first_epoch_has_no_network(make):
    config = make("optimizer.lr=1e30")
    with pytest.raises(RunError, match="expected finite"):
        run(config)
    for use in (evaluate.export, lambda where: evaluate.evaluate(where, device="cpu")):
        with pytest.raises(RunError, match="expected a run that has come to the end of an epoch"):
            use(str(RunFolder.of(config).path))
    assert not RunFolder.of(config).artifact.exists()
