"""From a config to its data, its method and its model. The one place that puts them together."""

from __future__ import annotations

import torch
from torch import nn

from hiddennet import data, models
from hiddennet.config import Config
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
    return data.build(
        section.name,
        root=section.root,
        batch_size=section.batch_size // ranks.world,
        device=device,
        seed=config.seed,
        validation=section.validation,
        split=section.split,
        split_seed=section.split_seed,
        augment=section.augment,
        augmentation=section.augmentation,
        normalization=section.normalization,
        workers=section.workers,
        image_size=section.image_size,
        limit=section.limit,
        bptt=section.bptt,
        download=section.download,
        rank=ranks.rank,
        world_size=ranks.world,
        channels_last=machine.use_channels_last(config.train.channels_last),
    )


def build_plain(config: Config, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Return the config's network before any method has touched it, seeded, on the CPU."""
    section = config.model
    if section.num_classes is not None and section.num_classes < num_classes:
        raise ValueError(f"model.num_classes: expected at least the data's {num_classes}, got {section.num_classes}")
    machine.seed_all(config.seed)
    return models.build(
        section.name,
        num_classes=section.num_classes or num_classes,
        in_channels=in_channels,
        image_size=image_size,
        width=section.width,
        batch_norm=section.batch_norm,
        bias=section.bias,
        conv_bias=section.conv_bias,
        stem_scaled=section.stem_scaled,
        layers=section.layers,
        dropout=section.dropout,
        graph=None if section.graph is None else section.graph.given(),
    )


def build_model(config: Config, num_classes: int, in_channels: int, image_size: int) -> tuple[nn.Module, Method]:
    """Return the config's model, made its method's, on the CPU, and the method."""
    method = create(config)
    return method.build(build_plain(config, num_classes, in_channels, image_size)), method
