"""Families of configs: what a variant is made of, how it is named and found, and what is said when it is not."""

from __future__ import annotations

import pytest

from hiddennet import cli, config
from hiddennet.config import ConfigError, families
from hiddennet.sweep import grid

SHARED = """
# A family.
extends: base.yml
data: {batch_size: 16}
variants:
  # Learned weights.
  dense: {method: {name: dense}}
  short: {extends: dense, train: {epochs: 2}}
  other: {extends: other.yml, method: {density: 0.25}}
  _half: {method: {name: random, density: 0.5}}
  half: {extends: _half, seed: 7}
sweeps:
  seeds: {config: short, grid: {seed: [1, 2]}}
  both: {extends: seeds, set: {train.epochs: 3}}
"""


@pytest.fixture
def family(tmp_path):
    base = "model: {name: digits_conv}\ndata: {name: digits, batch_size: 8}\ntrain: {epochs: 5}\n"
    (tmp_path / "base.yml").write_text(base)
    (tmp_path / "other.yml").write_text(base.replace("5", "9") + "method: {name: edge_popup, density: 0.1}\n")
    (tmp_path / "nets.yml").write_text(SHARED)
    return tmp_path / "nets.yml"


def test_a_variant_is_merged_over_what_its_family_says(family):
    dense, short, half = (config.load(f"{family}@{name}") for name in ("dense", "short", "half"))
    assert (dense.name, dense.method.name, dense.data.batch_size, dense.train.epochs) == ("nets-dense", "dense", 16, 5)
    assert (short.method.name, short.train.epochs, short.data) == ("dense", 2, dense.data)
    assert (half.method.name, half.method.density, half.seed) == ("random", 0.5, 7)


def test_another_file_takes_the_place_of_the_family_s_base(family):
    other = config.load(f"{family}@other")
    assert (other.method.name, other.method.density) == ("edge_popup", 0.25)
    assert (other.train.epochs, other.data.batch_size) == (9, 16)


def test_a_file_elsewhere_extends_a_variant(family):
    (family.parent / "mine.yml").write_text("extends: nets.yml@short\nseed: 3\n")
    mine = config.load(family.parent / "mine.yml")
    assert (mine.name, mine.seed, mine.method.name, mine.train.epochs) == ("mine", 3, "dense", 2)


def test_a_variant_has_two_names_and_overrides(family, monkeypatch):
    monkeypatch.chdir(family.parent)
    names = ("nets@short", "nets-short", "nets.yml@short", "./nets@short")
    assert len({config.find(name) for name in names}) == 1
    assert config.load("nets-short", ["train.epochs=1"]).train.epochs == 1
    assert cli.main(["config", "nets@short", "seed=4"]) == 0


def test_a_family_that_says_its_method_is_a_config_too(family):
    family.write_text(SHARED + "method: {name: edge_popup, density: 0.3}\n")
    assert config.load(family).name == "nets"
    assert config.load(f"{family}@half").method.density == 0.5


def test_sweeps_take_the_variants_of_their_file_first(family):
    (family.parent / "short.yml").write_text("not: a config\n")
    found = grid.load(f"{family}@both")
    assert found.name == "nets-both"
    assert [(p.config.name, p.config.seed, p.config.train.epochs) for p in found.points] == [
        ("nets-short", 1, 3),
        ("nets-short", 2, 3),
    ]
    assert found.points[0].arguments[0].endswith("nets.yml@short")
    assert config.load(*[found.points[0].arguments[0], found.points[0].arguments[1:]]) == found.points[0].config


REFUSED = [
    (
        "nets@shrt",
        "expected a variant, one of dense, short, other, half, seeds, both, got @shrt; did you mean 'short'?",
    ),
    ("nets@_half", "expected a variant, one of dense, .* got @_half"),
    ("nets", "expected a variant, one of dense, short, other, half, seeds, both, got none; add @ and its name"),
    ("base@x", "expected a config without variants, got @x; leave it out"),
    ("nets@seeds", "expected a config, got a sweep of several"),
]


@pytest.mark.parametrize(("name", "words"), REFUSED)
def test_what_is_said(family, monkeypatch, name, words):
    monkeypatch.chdir(family.parent)
    with pytest.raises(ConfigError, match=words):
        config.load(name)


def test_a_sweep_that_is_not_named(family):
    with pytest.raises(ConfigError, match="expected a variant, one of seeds, both, got none"):
        grid.load(family)


BROKEN = [
    ("variants: [a]", "variants: expected a map from names to maps of keys"),
    ("variants: {a: 3}", "variants.a: expected a map of keys, got 3"),
    ("variants: {a/b: {}}", "variants: expected a name without '@' and '/', got 'a/b'"),
    ("variants: {a: {}}\nsweeps: {a: {}}", "sweeps.a: expected a name that no variant has"),
    ("variants: {a: {extends: b}, b: {extends: a}}", "extends: expected no circle, got .*@a -> .*@b -> .*@a"),
    ("variants: {a: {extends: 3}}", "extends: expected the path of one file, got 3"),
    ("variants: {a: {extends: none.yml}}", "extends: expected a file at .*none.yml, got none"),
    ("variants: {a: {methd: {}}}\nmodel: {name: fc}", "methd: expected a key of a config"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN)
def test_broken_families(family, text, words):
    family.write_text(text)
    with pytest.raises(ConfigError, match=words):
        config.load(f"{family}@a")


def test_a_file_with_an_at_in_its_name_is_a_file(family):
    odd = family.with_name("a@b.yml")
    odd.write_text("extends: nets.yml@half\n")
    assert config.load(odd).name == "a@b"
    assert families.split(odd) == (odd, "")


def test_a_name_that_several_files_have():
    with pytest.raises(ConfigError, match="got that of papers/peek_a_boo/resnet20-cifar10, papers/rare_gems/resnet20-"):
        config.load("resnet20-cifar10")
    assert config.load("resnet20-cifar10@sparse").method.name == "prune_at_init"
    assert config.load("resnet20-cifar10@imp").method.name == "imp"


def test_the_list_of_configs(capsys):
    assert cli.main(["list", "configs", "digits*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits  8x8 digits, which come with scikit-learn: edge-popup, no weight is ever trained."
    assert len(lines) == 12
    assert cli.main(["list", "configs", "compare@digits"]) == 0
    assert "compare@digits  The digits network" in (said := capsys.readouterr().out) and "(30 runs)" in said
    assert cli.main(["list", "configs", "digitz"]) == 1
    assert "expected a part of a config's name, got 'digitz'; did you mean 'digits'?" in capsys.readouterr().err
