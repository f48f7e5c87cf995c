"""Which runs are one: what changes results, and is not as by default, names a run's folder. Nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from hiddennet import config
from hiddennet.config import digest
from hiddennet.config.identity import identity, is_place, places
from hiddennet.config.load import variants
from hiddennet.config.schema import Config, TrainSection
from hiddennet.data.request import Request
from hiddennet.registry import REGISTRIES
from hiddennet.settings import yaml
from hiddennet.settings.section import place
from hiddennet.train.folder import RunFolder

PLACES = {
    "name=other": "name",
    "runs=elsewhere": "runs",
    "plugins=[json]": "plugins",
    "data.root=~/sets": "data.root",
    "data.workers=0": "data.workers",
    "data.download=true": "data.download",
    "train.device=auto": "train.device",
    "train.graph=off": "train.graph",
    "train.log_every=7": "train.log_every",
    "train.save_every=1": "train.save_every",
    "train.save_epochs=[1]": "train.save_epochs",
    "train.loggers=[]": "train.loggers",
}


def test_where_and_how_fast_are_no_identity(make):
    for override in PLACES:
        assert make(override) != make() and digest(make(override)) == digest(make()), override
    assert places() == set(PLACES.values())


def keys_that_matter() -> list[str]:
    """All keys of the sections at the top that are not places."""
    found = []
    for name, kinds in Config.sections.items():
        found += [
            f"{name}.{key}" for _, s in variants(name, kinds) for key, f in s.model_fields.items() if not is_place(f)
        ]
    return found


@pytest.mark.parametrize(
    "override",
    [
        *("seed=1", "model.width=0.2", "model.bias=true", "model.first_layer=dense", "model.num_classes=12"),
        *("data.batch_size=16", "data.limit=100", "data.validation=0.2", "data.split_seed=0", "data.augment=false"),
        *("method.density=0.3", "method.exclude=[linear.0]", "method.scope=global", "method.name=random"),
        *("method.fine_tune={}", "method.fine_tune.epochs=1", "optimizer.lr=0.2", "optimizer.name=adam"),
        *("schedule.warmup_epochs=1", "schedule.name=cosine", "train.epochs=3", "train.accumulate=2", "train.amp=bf16"),
    ],
)
def test_what_changes_results_does(make, override):
    assert digest(make(override)) != digest(make())
    top = override.partition("=")[0]
    assert top == "seed" or ".".join(top.split(".")[:2]) in keys_that_matter()


def test_nested_sections_count_by_their_keys(make):
    fine_tuned = [digest(make(f"method.fine_tune={{{inner}}}")) for inner in ("", "epochs: 1", "optimizer: {lr: 0.5}")]
    assert len({*fine_tuned, digest(make())}) == 4
    said = digest(make("method.fine_tune={optimizer: {name: sgd, lr: 0.01}, schedule: {name: cosine}}"))
    assert said == fine_tuned[0]  # as by default


def test_a_key_that_a_release_adds_orphans_no_run(make, monkeypatch):
    class Later(TrainSection):
        """train: as a later release has it."""

        patience: int = Field(5, description="new")
        speed: int = place(1, description="new, too")

    before, document = digest(make()), config.dump(make())
    monkeypatch.setitem(Config.sections, "train", Later)

    def later(*overrides: str) -> Config:
        found = make(*overrides)
        return found.model_copy(update={"train": Later(**found.train.model_dump())})

    assert digest(later()) == before
    assert digest(config.parse(yaml.parse(document))) == before
    changed = later().model_copy(update={"train": Later(epochs=2, device="cpu", log_every=2, patience=6)})
    assert digest(changed) != before
    same = changed.train.model_copy(update={"patience": 5, "speed": 9})
    assert digest(changed.model_copy(update={"train": same})) == before


def test_a_method_that_gets_a_key_keeps_its_runs(make, monkeypatch):
    method = REGISTRIES["method"]["edge_popup"]

    class Later(method.Section):
        """method: as a later release has it."""

        steepness: float = Field(1.0, description="new")

    before = digest(make())
    monkeypatch.setattr(method, "Section", Later)
    assert type(make().method) is Later and digest(make()) == before
    assert digest(make("method.steepness=2.0")) != before


@pytest.mark.parametrize("key", ["optimizer.lr", "model.width"])
def test_a_number_is_a_number(make, key):
    assert digest(make(f"{key}=2")) == digest(make(f"{key}=2.0"))
    assert make(f"{key}=2") == make(f"{key}=2.0")


def test_names_are_always_said(make):
    found = identity(make())
    assert found["method"] == {"name": "edge_popup"}  # density 0.5 is the default
    assert (found["model"], found["optimizer"]) == ({"name": "digits_mlp", "width": 0.1}, {"name": "sgd"})
    assert found["schedule"] == {"name": "constant"} and "train" not in identity(make("train.epochs=100"))


def test_home_is_found(make, monkeypatch, tmp_path):
    """~ in runs and data.root is the user's home, wherever that is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder.of(make("runs=~/mine")).path.parent == tmp_path / "mine" / "small"
    assert Request("digits", 1, "cpu", 0, root="~/sets").root == Path(tmp_path) / "sets"
