"""From a config to its data, its method and its model. The one place that puts them together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import data, models
from hiddennet.config import Config
from hiddennet.config.identity import is_place
from hiddennet.data import Data
from hiddennet.methods import Method
from hiddennet.train import machine
from hiddennet.train.opened import create
from hiddennet.train.ranks import Ranks


def build_data(config: Config, device: torch.device, ranks: Ranks) -> Data:
    """Return the config's data set with its batches on `device`, this rank's share of them.

    Raises ValueError or FileNotFoundError, saying what to put where.
    """
    section = config.data
    if section.batch_size % ranks.world:
        raise ValueError(
            f"data.batch_size: expected a multiple of the {ranks.world} processes, got {section.batch_size}"
        )
    keys = {**dict(section), "batch_size": section.batch_size // ranks.world}
    layout = machine.use_channels_last(config.train.channels_last)
    share = {"rank": ranks.rank, "world_size": ranks.world}
    return data.build(**keys, device=device, seed=config.seed, channels_last=layout, **share)


def data_options(config: Config) -> dict[str, Any]:
    """What makes the config's images again for evaluation, of any batch size: arguments of hiddennet.data.build."""
    section, aside = config.data, ("name", "batch_size", "augment")
    kept = {k: v for k, v in section if k not in aside and not is_place(type(section).model_fields[k])}
    return {"seed": config.seed, **kept}


def build_plain(config: Config, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Return the config's network before any method has touched it, seeded, on the CPU."""
    section = config.model
    if section.num_classes is not None and section.num_classes < num_classes:
        raise ValueError(f"model.num_classes: expected at least the data's {num_classes}, got {section.num_classes}")
    machine.seed_all(config.seed)
    keys = {key: value for key, value in section if key in models.Options.__dataclass_fields__}
    keys |= {"num_classes": section.num_classes or num_classes, "in_channels": in_channels, "image_size": image_size}
    return models.build(**keys | {"graph": None if section.graph is None else section.graph.given()})


def build_model(config: Config, num_classes: int, in_channels: int, image_size: int) -> tuple[nn.Module, Method]:
    """Return the config's model, made its method's, on the CPU, and the method."""
    method, plain = create(config), build_plain(config, num_classes, in_channels, image_size)
    if config.data.name not in data.TEXT:
        _check_takes(plain, config.model.name, num_classes, (in_channels, image_size, image_size))
    return method.build(plain), method


def _check_takes(model: nn.Module, name: str, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Refuse a network, perhaps a user's own, that does not make a logit a class of the data's images."""
    got, training = "", model.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            logits = model.eval()(torch.zeros(2, *shape))
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2 or logits.shape[1] < num_classes:
            got = f"logits of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    except models.dnw.NotConverged:  # of weights as drawn; training may mend it
        pass
    except Exception as error:
        got = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    finally:
        model.train(training)
    if got:
        raise ValueError(
            f"model {name!r}: expected at least {num_classes} logits of each image of shape {shape}, as the data has "
            f"them, got {got}"
        )
