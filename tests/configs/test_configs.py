"""The shipped configs resolve, repeat nothing, and say what the original's configs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiddennet import config
from hiddennet.config import catalog, families
from hiddennet.config.load import merge
from hiddennet.settings import yaml
from tests.configs.shipped import CONFIGS, ENTRIES, PAPERS, facts, run_name, table

COUNTERPARTS = {row.original: row for row in table("Counterparts")}
FACTS = facts()


def every(file: Path) -> list[str]:
    """All variants and sweeps of a file, its pieces too."""
    document = yaml.parse(file.read_text(encoding="utf-8"))
    return [*document.get("variants", {}), *document.get("sweeps", {})]


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


MODELS = {
    "FC": "fc",
    "cResNet18": "cifar_resnet18",
    "WideResNet50_2": "wide_resnet50_2",
    "WideResNet101_2": "wide_resnet101_2",
}
FILES = sorted(CONFIGS.rglob("*.yml"))
PLACES = [families.join(file, name) for file in FILES for name in ("", *every(file))]


def leaves(document: dict, path: str = "") -> dict[str, object]:
    """Values of a document by dotted key."""
    found = {}
    for key, value in document.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{path}{key}.")
        else:
            found[path + key] = value
    return found


@pytest.mark.parametrize("one", [one for one in ENTRIES if one.runs is None], ids=lambda one: one.name)
def test_resolves_by_its_names(one):
    resolved = config.load(one.name)
    assert resolved.name == run_name(one)
    assert config.load(run_name(one)) == resolved
    assert config.parse(yaml.parse(config.dump(resolved))) == resolved


def test_names_of_runs_are_unique():
    """Runs live in a folder of that name, so names of different folders must differ too; sweeps likewise."""
    names = [run_name(one) for one in ENTRIES]
    assert len(names) == len(set(names))
    for one in ENTRIES:
        assert config.find(one.name) == config.find(run_name(one)) == one.place


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_opens_with_what_it_is(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and lines[0].endswith(".")
    assert all(len(line) <= 100 for line in lines)


def test_every_config_and_sweep_says_what_it_is():
    for one in ENTRIES:
        assert one.about[0].endswith("."), one.name


def test_the_readme_is_written_from_the_configs():
    written = (CONFIGS / "README.md").read_text(encoding="utf-8")
    assert written == catalog.page(), "run `python -m hiddennet.config.catalog > configs/README.md`"


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_repeats_nothing_of_what_it_extends(place):
    base, layers = families.layers(place)
    below = config.read(base) if base else {}
    for layer in layers:
        said, under = leaves(layer), leaves(below)
        changed = {key.split(".")[0] for key in said if key.endswith(".name")}
        for key, value in said.items():
            if key.split(".")[0] not in changed:
                assert key not in under or under[key] != value, f"{key} is {value} already in what is extended"
        below = merge(below, layer)


def test_every_config_is_in_the_table_of_its_paper():
    named = {row.ours for title in ("Counterparts", "lottery") for row in table(title)}
    for one in ENTRIES:
        if "/" in one.name:
            short = one.name.rpartition("/")[2] if one.name.startswith("papers/") else one.name
            assert one.name in named or f"`{short}`" in PAPERS, one.name


def test_all_112_have_a_counterpart():
    assert len(COUNTERPARTS) == len(table("Counterparts")) == 112
    assert COUNTERPARTS.keys() == FACTS.keys()
    for row in [*COUNTERPARTS.values(), *table("lottery")]:
        assert config.find(row.ours).is_relative_to(CONFIGS), row


@pytest.mark.parametrize("original", FACTS)
def test_says_what_the_original_says(original):
    row, fact = COUNTERPARTS[original], FACTS[original]
    ours = config.load(row.ours)
    wide = fact["arch"] in ("Conv4Wide", "Conv6Wide")
    arch = fact["arch"].removesuffix("Wide")
    assert ours.model.name == MODELS.get(arch, arch.lower())
    assert row.add == ("model.width=W" if wide else "")
    assert ours.model.width == 1.0
    assert ours.model.first_layer is None and ours.model.last_layer is None
    if fact["batch_norm"] != "unused":
        learned = fact["batch_norm"] == "learned"
        assert ours.model.batch_norm == ("affine" if learned else "non_affine")

    assert ours.data.name == fact["data"]
    assert ours.data.batch_size == int(fact["batch_size"])
    assert ours.data.augment and ours.data.limit is None and ours.data.image_size is None

    method = ours.method
    assert method.name == fact["layers"]
    assert method.init == fact["init"]
    assert getattr(method, "scale_fan", False) == (fact["scale_fan"] == "yes")
    assert (method.mode, method.nonlinearity) == ("fan_in", "relu")
    assert (method.name in ("edge_popup", "sampled")) == (fact["weights_frozen"] == "yes")
    if method.name in ("edge_popup", "random", "magnitude_topk"):
        assert method.density == (0.3 if fact["data"] == "imagenet" else 0.5)
    if method.name == "edge_popup":
        assert (method.by, method.scope) == ("magnitude", "layer")
        assert method.weights is None and method.dense_epochs == 0
    if method.name in ("edge_popup", "sampled"):
        assert method.score_init == "kaiming_uniform"

    optimizer, schedule = ours.optimizer, ours.schedule
    assert optimizer.name == fact["optimizer"]
    assert optimizer.lr == float(fact["lr"])
    assert optimizer.weight_decay == float(fact["weight_decay"] or 0)
    assert optimizer.batch_norm_decay
    if optimizer.name == "sgd":
        assert optimizer.momentum == float(fact["momentum"]) and not optimizer.nesterov
    assert schedule.name == fact["schedule"]
    assert schedule.warmup_epochs == int(fact["warmup_epochs"])
    assert ours.train.epochs == int(fact["epochs"])
    assert ours.train.label_smoothing == float(fact["label_smoothing"])

    notes = {
        "A": fact["runs_in_original"] == "no",
        "B": fact["scale_fan"] == "yes",
        "C": fact["optimizer"] == "adam",
        "D": "uku" in original and fact["layers"] == "sampled",
        "E": wide,
    }
    assert row.notes == tuple(letter for letter, holds in notes.items() if holds)


def test_facts_are_those_of_112_configs():
    """18 name layers that the original does not have: 17 random graphs and 1 neural wiring."""
    missing = [fact["layers"] for fact in FACTS.values() if fact["runs_in_original"] == "no"]
    assert len(FACTS) == 112
    assert (missing.count("random"), missing.count("magnitude_topk")) == (17, 1)


@pytest.mark.parametrize("row", table("lottery"), ids=lambda row: Path(row.ours).name)
def test_fixed_subnets_of_the_lottery_branch(row):
    ours = config.load(row.ours)
    assert ours.data.name == "imagenet"
    if ours.method.name == "sampled":
        assert (ours.model.name, ours.method.init) == ("resnet50", "signed_constant")
        return
    high = "highlr" in row.original
    assert ours.model.name == ("wide_resnet50_2" if "wide" in row.original else "resnet50")
    assert ours.model.batch_norm == "affine"
    init = "kaiming-normal" if "ukn" in row.original else "signed-constant"
    assert ours.method.name == "fine_tune" and f"{init}.safetensors" in ours.method.subnet
    assert ours.optimizer.lr == (0.256 if high else 0.01)
    assert ours.schedule.warmup_epochs == (5 if high else 0)
    assert ours.optimizer.weight_decay == 2.0**-15 and ours.optimizer.momentum == 0.875
    assert ours.data.batch_size == 256 and ours.train.label_smoothing == 0.1


def test_the_three_to_start_with_differ_in_the_method_alone():
    for base in ("digits", "cifar10-conv4"):
        methods = [config.load(base + end) for end in ("", "-random", "-dense")]
        assert [c.method.name for c in methods] == ["edge_popup", "random", "dense"]
        assert len({(c.model, c.train.epochs, c.data.batch_size) for c in methods}) == 1
    mnist = config.load("mnist-fc")
    assert (mnist.model.name, mnist.method.density, mnist.train.epochs) == ("fc", 0.5, 5)
