"""Small graph networks, and their checkpoints in the layout of Discovering Neural Wirings' code."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch

from hiddennet.models import dnw
from hiddennet.nn.wiring import wirings

SMALL = {"num_classes": 3, "stem_channels": 2, "outputs": 3, "compat": True}
STAGES = ((4, 6, 1, 1), (6, 8, 2, 2), (8, 10, 2, 3))


def to_original(model) -> dict[str, torch.Tensor]:
    """The model's state dict with the original's names and shapes, but for its `zeros` buffer and the number of our
    draws."""
    found = {}
    for name, value in model.state_dict().items():
        if name.endswith(".draw"):  # which the original draws from torch's generator
            continue
        if name.rpartition(".")[0] in wirings(model):
            value = value[:, :, None, None]
            value = value.to(torch.float32) if value.dtype == torch.bool else value
        found[dnw.original_name(model, name)] = value
    return found


def small(name, **options):
    torch.manual_seed(5)
    made = {
        "dnw_static": lambda: dnw.StaticGraph(dnw.StaticConfig(blocks=(4, 6, 6), **SMALL, **options)),
        "dnw_discrete": lambda: dnw.DiscreteGraph(dnw.DiscreteConfig(nodes=10, inputs=4, **SMALL, **options)),
        "dnw_continuous": lambda: dnw.ContinuousGraph(dnw.ContinuousConfig(nodes=10, inputs=4, **SMALL, **options)),
        "dnw_mobilenet": lambda: dnw.MobileNetGraph(
            dnw.MobileNetConfig(stages=STAGES, num_classes=5, image_size=16, compat=True, **options)
        ),
    }[name]()
    with torch.no_grad():
        for value in made.state_dict().values():  # of norms, and biases
            if value.is_floating_point() and value.dim() == 1:
                value.uniform_(0.5, 1.5)
    return made.eval()


def theirs(model, *, parallel=True):
    state = OrderedDict(to_original(model))
    if isinstance(model, dnw.SmallGraph):
        state["zeros"] = torch.zeros(1, model.nodes - model.inputs, 4, 4)
    return OrderedDict((f"module.{key}" if parallel else key, value) for key, value in state.items())


def save(path, state, train=None, *, zipped=True, layout="whole"):
    """A checkpoint in the original's layout: `whole` as its epochs, `best` as best.pt, `bare`."""
    checkpoint = {
        "whole": {
            "model": state,
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": np.float64(0.1)}]},
            "last_epoch": 159,
            "best_val": np.float64(0.809),
            "meters": {"train": {"CELoss": train.ScalarMeter([np.float32(1.5)])}} if train else {},
            "iter": 15680,
        },
        "best": {"model": state},
        "bare": state,
    }[layout]
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    return path


def images(model):
    torch.manual_seed(6)
    return torch.randn(2, 3, 16, 16)


def same_logits(found, model, batch=None):
    batch = images(model) if batch is None else batch
    with torch.no_grad():
        torch.testing.assert_close(found(batch), model(batch), rtol=0, atol=0)
