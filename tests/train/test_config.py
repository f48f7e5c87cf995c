"""Configs: refused mistakes and their words, composition, overrides, the way to YAML and back."""

from __future__ import annotations

import math

import pytest

from hiddennet import config
from hiddennet.config import ConfigError
from hiddennet.config.load import variants
from hiddennet.config.reference import reference
from hiddennet.config.schema import Config
from hiddennet.data.order import Order, validation_count
from hiddennet.settings import yaml

MISTAKES = [
    ("method.density=1.4", "method.density: expected a number, above 0 and at most 1, got 1.4"),
    ("method.density=0", "method.density: expected a number, above 0 and at most 1, got 0"),
    ("method.densty=0.3", "got densty: 0.3; did you mean 'density'?"),
    ("method.prune_rate=0.3", "here it is called method.density, the fraction kept"),
    ("method.evaluation=draw", "it is a key of method 'sampled'"),
    ("method.name=edge_popp", "method.name: expected one of dense, dnw, edge_popup"),
    ("method.name=edge_popp", "got 'edge_popp'; did you mean 'edge_popup'?"),
    ("method.init=signed_konstant", "got 'signed_konstant'; did you mean 'signed_constant'?"),
    ("method.score_init=ones", "expected kaiming_uniform or a number, got 'ones'"),
    ("method.dense_epochs=2", "expected fewer than train.epochs (2), got 2"),
    ("method=edge_popup", "method: expected a map of keys, got 'edge_popup'"),
    ("model.name=conv44", "got 'conv44'; did you mean 'conv4'?"),
    ("model.width=-1", "model.width: expected a number, above 0, got -1"),
    ("data.name=cifar", "data.name: expected one of big_cifar10, cifar10"),
    ("data.batch_size=32.5", "data.batch_size: expected a whole number, at least 1, got 32.5"),
    ("data.validation=1.0", "data.validation: expected a number, at least 0 and below 1, got 1.0"),
    ("data.augment=yes", "data.augment: expected true or false, got 'yes'"),
    ("optimizer.lr=.nan", "optimizer.lr: expected a number, above 0, got nan"),
    ("optimizer.lr=fast", "optimizer.lr: expected a number, above 0, got 'fast'"),
    ("optimizer.name=sdg", "optimizer.name: expected one of sgd, adam, adamw, got 'sdg'"),
    ("optimizer.betas=[0.9, 0.99]", "it is a key of optimizer 'adam', optimizer 'adamw'"),
    ("schedule.gamma=0.5", "it is a key of schedule 'multistep'"),
    ("schedule.name=multistep", "schedule: expected either milestones or interval"),
    ("schedule.warmup_epochs=3", "expected at most train.epochs (2), got 3"),
    ("train.epochs=true", "train.epochs: expected a whole number, at least 0, got True"),
    ("train.amp=fp16", "train.amp: expected one of auto, float32, bf16, got 'fp16'; did you mean 'bf16'?"),
    ("train.amp=null", "train.amp: expected one of auto, float32, bf16, got None"),
    (
        "train.amp_on_cpu=true",
        "got amp_on_cpu: True; here it is called train.amp: bf16, on any device, or train.amp: f",
    ),
    ("train.device=tpu", "train.device: expected one of auto, cpu, cuda, cuda:N, got 'tpu'"),
    ("train.accumulate=64", "expected at most data.batch_size (32), got 64"),
    ("data.validation=0", "train.selection: expected test where data.validation is 0"),
    ("lr=0.1", "got lr: 0.1; did you mean optimizer.lr?"),
    ("arch=Conv4", "here it is called model.name"),
    ("seed=-1", "seed: expected a whole number, at least 0"),
    ("name=a/b", "name: expected a file name without '/', got 'a/b'"),
]


def test_choosing_on_the_test_images_leaves_all_others_to_train_on():
    """As the papers did: 391 steps of CIFAR-10's 50 000 images, and not 352 of 45 000."""
    papers = config.load("cifar10-conv4", ["train.selection=test"])
    assert papers.data.validation == 0.0
    held = validation_count(papers.data.validation, 50_000)
    assert Order(50_000 - held, papers.data.batch_size, True, 0).num_batches == 391
    assert config.load("cifar10-conv4", ["train.selection=test", "data.validation=0.1"]).data.validation == 0.1
    assert config.load("cifar10-conv4").data.validation == 0.1


@pytest.mark.parametrize("override, words", MISTAKES)
def test_a_mistake_is_named(make, override, words):
    with pytest.raises(ConfigError) as refused:
        make(override)
    assert words in str(refused.value)
    assert len(refused.value.mistakes) == 1


def test_mistakes_are_reported_together(make):
    with pytest.raises(ConfigError) as refused:
        make("method.density=2", "method.colour=red", "train.epochs=-1", "modle.name=fc", "lr=1")
    text = str(refused.value)
    assert len(refused.value.mistakes) == 5
    for path in ("method.density", "method.colour", "train.epochs", "modle", "lr"):
        assert f"\n  {path}:" in text


def test_mistakes_between_keys_are_reported_together(make):
    overrides = ("optimizer.nesterov=true", "optimizer.momentum=0", "train.accumulate=33")
    with pytest.raises(ConfigError) as refused:
        make(*overrides, "method.scale_fan=true", "method.init=kaiming_uniform")
    paths = [mistake.split(":")[0] for mistake in refused.value.mistakes]
    assert paths == ["train.accumulate", "optimizer.nesterov", "method.scale_fan"]


def test_required_keys():
    with pytest.raises(ConfigError) as refused:
        config.parse({"name": "x"})
    assert [m.split(":")[0] for m in refused.value.mistakes] == ["model", "data", "method"]
    document = {"name": "x", "model": {}, "data": {"name": "digits"}, "method": {"name": "dense"}}
    with pytest.raises(ConfigError, match=r"model\.name: expected a value, got none; it is the net"):
        config.parse(document)


@pytest.mark.parametrize("text", ["optimizer.lr", "=3", "a..b=1", "optimizer.lr=[1"])
def test_override_grammar(write, text):
    with pytest.raises(ConfigError, match="command line"):
        config.load(write(), [text])


def test_overrides_are_yaml_and_the_last_wins(write):
    overrides = ["optimizer.lr=1e-2", "seed=1", "seed=7", "method.exclude=[linear.0]"]
    found = config.load(write(), [*overrides, "model.first_layer=dense", "data.limit=null"])
    assert (found.optimizer.lr, found.seed, found.method.exclude) == (0.01, 7, ["linear.0"])
    assert found.model.first_layer == "dense"
    assert found.data.limit is None


def test_extends_composes(write):
    base = {"model": {"name": "fc"}, "data": {"name": "mnist", "batch_size": 8}, "seed": 1}
    write(base, "base/root.yml")
    write({"extends": "root.yml", "data": {"batch_size": 16}, "seed": 2}, "base/middle.yml")
    leaf = {"extends": "base/middle.yml", "method": {"name": "dense"}, "seed": 3}
    found = config.load(write(leaf, "leaf.yml"))
    assert (found.name, found.seed) == ("leaf", 3)
    assert (found.data.name, found.data.batch_size, found.model.name) == ("mnist", 16, "fc")


def test_extends_in_a_circle_is_refused(write):
    write({"extends": "b.yml"}, "a.yml")
    path = write({"extends": "a.yml"}, "b.yml")
    with pytest.raises(ConfigError, match=r"extends: expected no circle, got .*b.yml -> .*a.yml"):
        config.load(path)


def test_extends_something_missing_is_refused(write):
    with pytest.raises(ConfigError, match=r"extends: expected a file at .*none.yml, got none"):
        config.load(write({"extends": "none.yml"}))


def test_another_method_leaves_the_old_ones_keys_behind(make):
    found = make("method.name=dense", "optimizer.name=adam")
    assert found.method.name == "dense"
    assert (found.optimizer.name, found.optimizer.lr, found.optimizer.weight_decay) == (
        "adam",
        0.1,
        0,
    )


@pytest.mark.parametrize("overrides", [("method.name=dense", "method.density=0.3")])
@pytest.mark.parametrize("turn", [1, -1])
def test_but_keys_given_with_the_new_name_are_checked(make, overrides, turn):
    with pytest.raises(ConfigError, match="it is a key of .*method 'random'"):
        make(*overrides[::turn])


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: 1\na: 2\n", "the key 'a' is given twice, again in line 2"),
        ("- 1\n- 2\n", "expected a map of keys, got [1, 2]"),
        ("a: [1\n", "expected YAML, got a mistake in it"),
        ("extends: [a.yml]\n", "extends: expected the path of one file"),
    ],
)
def test_broken_files(write, text, words):
    with pytest.raises(ConfigError) as refused:
        config.load(write(text))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4),
        ("2E3", 2000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("010", 10),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("true", True),
        ("null", None),
        ("-3", -3),
    ],
)
def test_yaml_values(text, value):
    assert yaml.parse(text) == value
    assert type(yaml.parse(text)) is type(value)
    assert yaml.parse(yaml.write({"k": value})) == {"k": value}


def test_yaml_not_a_number_survives():
    assert math.isnan(yaml.parse(yaml.write([float("nan")]))[0])


def test_a_missing_config_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'edge_popup/cifar10-conv4-signed-constant'"):
        config.load("edge_popup/cifar10-conv4-signed-constnt")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("method.score_init=0.5", "train.channels_last=true", "seed=9223372036854775807"),
        ("method.name=sampled", "optimizer.name=adamw", "optimizer.betas=[0.8, 0.9]"),
        ("schedule.name=multistep", "schedule.milestones=[1]", "method.name=magnitude_topk"),
        ("method.name=fine_tune", "method.subnet='true'", "name='1e5'", "runs='null'"),
    ],
)
def test_a_dumped_config_reads_back_the_same(make, overrides):
    first = make(*overrides)
    text = config.dump(first)
    again = config.parse(yaml.parse(text))
    assert again == first
    assert config.dump(again) == text
    assert config.digest(again) == config.digest(first)


def test_the_digest_names_what_is_computed(make):
    one = config.digest(make())
    for override in (
        "seed=1",
        "optimizer.lr=0.2",
        "train.epochs=3",
        "data.limit=100",
        "train.amp=bf16",
    ):
        assert config.digest(make(override)) != one, override
    for override in ("runs=elsewhere", "train.device=auto", "data.root=x", "name=other"):
        assert config.digest(make(override)) == one, override
    assert config.digest(make("method.density=0.50")) == one
    assert len(one) == 12


def test_a_config_does_not_change(make):
    found = make()
    with pytest.raises(ValueError, match="frozen"):
        found.train.epochs = 3


def test_the_reference_has_every_key():
    text = reference()
    for name, section in Config.sections.items():
        for title, variant in variants(name, section):
            for key, field in variant.model_fields.items():
                assert f"{name}.{key} (" in text
                assert field.description or key == "name", f"{title}.{key}"
