"""Steps as a graph: on a CPU the same code with nothing captured, which has the bits of the steps it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hiddennet import config as configs
from hiddennet.config.load import merge, overrides_document
from hiddennet.nn import rules
from hiddennet.settings import yaml
from hiddennet.train.build import build_data, build_model
from hiddennet.train.engine import Engine
from hiddennet.train.graph import WARM_UP, GraphStep
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter

CPU = torch.device("cpu")
STEPS = WARM_UP + 6
KINDS = {
    "edge_popup": (),
    "edge_popup, all layers": ("method.scope=global", "optimizer.nesterov=true"),
    "mixup in parts": ("train.mixup=0.4", "train.accumulate=2", "train.label_smoothing=0.1"),
    "bfloat16": ("train.amp=bf16",),
    "weight decay by groups": ("optimizer.batch_norm_decay=false", "model.batch_norm=affine"),
    "iterand": ("method={name: iterand, period: 2}",),
    "iterand with uniforms": ("method={name: iterand, period: 2, init: kaiming_uniform}",),
    "gem_miner": ("method={name: gem_miner, period: 1}", "train.epochs=3"),
    "sampled": ("method={name: sampled}",),
    "random": ("method={name: random, density: 0.3}",),
    "dense": ("method={name: dense}",),
    "peek_a_boo": ("method={name: peek_a_boo}",),
    "peek_a_boo with PSG": ("method={name: peek_a_boo, psg: {}}",),
    "dnw": ("method={name: dnw}", "model={name: dnw_static}", "data.image_size=16"),
    "rigl": ("method={name: rigl, density: 0.3, period: 3}",),
    "gradual": ("method={name: gradual_magnitude, density: 0.3}",),
}


def engine_of(make, overrides) -> tuple[Engine, list]:
    document = yaml.parse(configs.dump(make()))
    for override in overrides:
        key, whole, section = override.partition("={")
        if whole:
            document[key] = yaml.parse("{" + section)
        else:
            document = merge(document, overrides_document([override]))
    config = configs.parse(document)
    data = build_data(config, CPU, Ranks())
    model, method = build_model(config, data.num_classes, data.in_channels, data.image_size)
    method.steps_per_epoch = len(data.train)
    engine = Engine(model.train(), config, CPU, Ranks(), method)
    data.train.set_epoch(0)
    return engine, list(data.train)


def train(make, overrides, graph: bool) -> tuple[Engine, Meter, list[int]]:
    engine, batches = engine_of(make, overrides)
    made = []

    def again(step):
        made.append(1)
        return step

    engine.graph = GraphStep(engine, again) if graph else None
    meter, replays = Meter(CPU), []
    for number in range(STEPS):
        images, labels = batches[number % len(batches)]
        engine.scale_learning_rates(1.0 / (1 + number))  # each step has its rate
        engine.method.before_forward(engine.model, number)
        if number == WARM_UP + 2:
            engine.method.on_epoch_start(engine.model, 2)  # Gem-Miner strikes
        engine.step(images, labels, meter, len(images), number)
        engine.method.after_update(engine.model, number + 1)
        replays.append(len(made))
    return engine, meter, replays


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_steps_have_the_bits_of_steps(make, kind):
    (eager, counted, _), (engine, meter, made) = (train(make, KINDS[kind], graph) for graph in (False, True))
    assert engine.graph.reason is None
    assert made[WARM_UP - 1] == 0 and made[-1] == 1  # captured once
    for (name, p), q in zip(engine.model.state_dict().items(), eager.model.state_dict().values(), strict=True):
        assert torch.equal(p, q), name
    assert meter.read()[0] == counted.read()[0]
    for p, q in zip(engine.learning_parameters(), eager.learning_parameters(), strict=True):
        for key, value in eager.optimizer.state[q].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(engine.optimizer.state[p][key])), key


def test_replays_select_by_what_the_step_before_counted(make, monkeypatch):
    counted, own = [], rules.topk_select_
    monkeypatch.setattr(rules, "topk_select_", lambda *given: counted.append(given[-1] is not None) or own(*given))
    train(make, (), True)
    assert counted == [False] + [True] * (STEPS - 1)


def test_an_evaluation_sees_what_replays_changed(make):
    engine, _, _ = train(make, (), True)
    layer = next(m for m in engine.model.modules() if getattr(m, "scores", None) is not None)
    engine.model.eval()
    mask, weight = layer.mask(), layer.effective_weight()
    layer.forget()
    assert torch.equal(mask, layer.mask()) and torch.equal(weight, layer.effective_weight())


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("optimizer.name=adam",), "ScoreAdam counts its steps on the host"),
        (("optimizer.clip_norm=1.0",), "optimizer.clip_norm is set"),
        (("method={name: hc, noise: 0.1}",), "method.noise is drawn by a step's number"),
        (
            ("method={name: hc, regularizer: var_red_1, regularizer_weight: 0.1}",),
            "a hook of the optimiser runs on the host",
        ),
    ],
)
def test_what_cannot_be_a_graph_says_why(make, overrides, reason):
    engine, meter, made = train(make, overrides, True)
    assert reason in engine.graph.reason
    assert made[-1] == 0 and meter.images > 0


def test_a_method_with_a_hook_of_its_own_is_left_alone(make):
    engine, _ = engine_of(make, ())

    class Mine(type(engine.method)):
        def before_update(self, model: nn.Module, step: int) -> None:
            """Of a plugin."""

    engine.method.__class__ = Mine
    assert "Mine.before_update runs on the host" in GraphStep(engine).reason


def test_a_batch_of_another_size_is_taken_as_it_is(make):
    engine, batches = engine_of(make, ())
    made = []
    engine.graph = GraphStep(engine, lambda step: made.append(1) or step)
    meter = Meter(CPU)
    for images, labels in (batches * 3)[: WARM_UP + 2]:
        engine.step(images, labels, meter, len(images))
    count = meter.images
    engine.step(images[:3], labels[:3], meter, 3)
    engine.step(images, labels, meter, len(images))
    assert made == [1] and meter.images == count + 3 + len(images)


def test_a_capture_that_fails_is_said_and_steps_go_on(make):
    (engine, batches), (eager, _) = engine_of(make, ()), engine_of(make, ())

    def refuses(step):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    engine.graph = GraphStep(engine, refuses)
    for number, (images, labels) in enumerate((batches * 3)[: WARM_UP + 3]):
        for one in (engine, eager):
            if one is engine and number == WARM_UP:
                with pytest.warns(
                    UserWarning, match="capture failed: operation not permitted when stream is capturing"
                ):
                    one.step(images, labels, Meter(CPU), len(images))
            else:
                one.step(images, labels, Meter(CPU), len(images))
    assert "capture failed" in engine.graph.reason
    for p, q in zip(engine.learning_parameters(), eager.learning_parameters(), strict=True):
        assert torch.equal(p, q)


def test_off_and_cpu_have_none(make):
    assert engine_of(make, ())[0].graph is None
    assert make("train.graph=off").train.graph == "off"
    with pytest.raises(ValueError, match="graph"):
        make("train.graph=maybe")
