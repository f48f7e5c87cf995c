"""Models of a user's own: what they are given, what they may leave out, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hiddennet import artifact, models
from hiddennet.config.schema import ModelSection
from hiddennet.models.registry import MODELS, OPTIONAL, Options


@pytest.fixture
def own(monkeypatch):
    """Register a callable as `mine` for one test, and build it."""

    def build(make, **options):
        monkeypatch.setattr(MODELS, "_things", {**MODELS._things, "mine": make})
        return models.build("mine", **{"num_classes": 3, **options})

    return build


class Mine(nn.Module):
    in_channels, image_size = 1, 4

    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.told = num_classes, in_channels, image_size
        self.head = nn.Linear(in_channels * image_size**2, num_classes, bias=False)

    def forward(self, images):
        return self.head(images.flatten(1))


def test_a_class_is_given_what_it_names(own):
    assert own(Mine).told == (3, 1, 4)
    assert own(Mine, in_channels=2, image_size=5).told == (3, 2, 5)
    assert own(lambda num_classes: nn.Linear(2, num_classes)).out_features == 3
    made = own(lambda *, num_classes, width, batch_norm, bias: nn.Linear(int(8 * width), num_classes, bias), width=0.5)
    assert made.weight.shape == (3, 4) and made.bias is None


def test_it_is_made_again_from_its_architecture_and_loaded_by_name(own, tmp_path):
    model = own(Mine, image_size=5)
    assert model.architecture["name"] == "mine" and models.build(**model.architecture).told == (3, 1, 5)
    artifact.export(model, tmp_path / "mine.safetensors")
    loaded = artifact.load(tmp_path / "mine.safetensors")
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_what_it_does_not_take_is_refused(own):
    with pytest.raises(ValueError, match=r"width: expected 1.0 for mine, got 0.5; it is for cifar_resnet"):
        own(Mine, width=0.5)
    with pytest.raises(ValueError, match=r"graph: expected None for mine, got \{'nodes': 3\}; it is for dnw_"):
        own(Mine, graph={"nodes": 3})
    with pytest.raises(ValueError, match="model 'mine': expected it to return an nn.Module, got int"):
        own(lambda num_classes: 3)
    with pytest.raises(TypeError, match="colour"):
        own(Mine, colour="red")


def test_the_sections_keys_are_the_options():
    """A key of the config reaches every model by its name."""
    beside = {"first_layer", "last_layer"}
    told_by_data = {"in_channels", "image_size"}
    assert set(ModelSection.model_fields) - beside == set(Options.__dataclass_fields__) - told_by_data
    assert set(OPTIONAL) <= set(Options.__dataclass_fields__)
