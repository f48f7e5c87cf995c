"""`hiddennet list` and `hiddennet keys GROUP`: what there is, also what a plugin brings."""

from __future__ import annotations

import pytest

from hiddennet import data, listing, methods, models
from hiddennet.config.reference import reference
from hiddennet.registry import REGISTRIES


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()]


def test_all_there_is_has_a_line_that_says_something():
    assert names(listing.listing("models")) == models.names()
    assert names(listing.listing("data")) == data.names()
    assert names(listing.listing("methods")) == list(methods.METHODS)
    for what in ("models", "data", "methods"):
        assert all(len(line.split()) > 3 for line in listing.listing(what).splitlines())
    assert "digits-imp" in listing.listing("configs", "digits").replace("@", "-")


def test_patterns_and_libraries():
    assert names(listing.listing("models", "resnet20")) == ["resnet20", "resnet20_projection"]
    assert names(listing.listing("models", "vgg1?")) == ["vgg11", "vgg13", "vgg16", "vgg19"]
    pytest.importorskip("torchvision")
    assert "torchvision:vit_b_16" in names(listing.listing("models", "torchvision:vit_b"))
    with pytest.raises(
        ValueError, match=r"list models: expected a part of a name, got 'resnt20'; did you mean 'resnet20'"
    ):
        listing.listing("models", "resnt20")
    with pytest.raises(
        ValueError, match=r"expected timm:PATTERN or torchvision:PATTERN, got 'tim'; did you mean 'timm'"
    ):
        listing.listing("models", "tim:vit")


def test_ones_own_are_listed(monkeypatch):
    def mine(*, num_classes):
        """A net of mine. It is small."""

    registry = REGISTRIES["model"]
    monkeypatch.setattr(registry, "_things", {**registry._things, "mine": mine})
    assert listing.listing("models", "mine").endswith("A net of mine")


def test_keys_of_a_group():
    everything = reference()
    assert reference("imp").startswith("method 'imp': ") and "method.rounds" in reference("imp")
    assert reference("data").startswith("data: ") and "method." not in reference("data")
    assert reference("method").count("method '") == len(methods.METHODS)
    for group in ("data", "imp", "sgd", "rule", "config"):
        assert reference(group).strip() in everything or group == "rule"
    with pytest.raises(
        ValueError, match=r"keys: expected one of config, model, .* got 'edgepopup'; did you mean 'edge_"
    ):
        reference("edgepopup")
