"""From a config to its data, its method and its model. The one place that puts them together."""

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hiddennet import data, models
from hiddennet.config import Config
from hiddennet.config.identity import is_place
from hiddennet.data import Data
from hiddennet.methods import Method
from hiddennet.train import machine
from hiddennet.train.folder import RunError, RunFolder
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


def contents(config: Config) -> dict[str, Any] | None:
    """What tells the config's data from others; None where they are not there."""
    with contextlib.suppress(FileNotFoundError):
        return data.contents(**dict(config.data), device="cpu", seed=config.seed)
    return None


def check_contents(config: Config, before: dict[str, Any] | None, now: dict[str, Any] | None) -> None:
    """Raise RunError where the config's data are not those that its run was begun with.

    before: what the run has kept of their contents; now: theirs; None: not known.
    """
    differs = None if before is None or now is None else data.difference(before, now)
    if differs is not None:
        raise RunError(
            f"data: expected what {RunFolder.of(config).path} was begun with ({differs[0]}), got other data below "
            f"{config.data.root} ({differs[1]}); give the run of these a name of its own (name=...), or start again "
            "with --fresh"
        )


def check_batches(config: Config, images: Data, model: nn.Module, world: int) -> list[str]:
    """Sentences on parts of a batch that hold one image, before batch norm. model: on the CPU, as it is built.

    Raises ValueError where such a part cannot be trained on.
    """
    if config.data.name in data.TEXT or not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return []
    order, parts = images.train.order, config.train.accumulate
    found = [order.last_batch, *([config.data.batch_size] if order.num_batches > 1 else [])]
    if min(len(part) for size in found for part in torch.arange(size // world).chunk(parts)) > 1:
        return []
    last = "" if order.last_batch == config.data.batch_size else f", in a last batch of {order.last_batch}"
    said = f"more than one image at a time for batch norm, got one{last}; "
    said += f"set data.drop_last=true, another data.batch_size than {config.data.batch_size}, or less train.accumulate"
    tried = copy.deepcopy(model).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            tried(torch.zeros(1, images.in_channels, images.image_size, images.image_size))
        except ValueError as error:
            raise ValueError(f"data.batch_size: expected {said} ({str(error).splitlines()[0]})") from None
    return [f"batch norm normalises an image by itself there: expected {said}"]


def data_options(config: Config) -> dict[str, Any]:
    """What makes the config's images again for evaluation, of any batch size: arguments of hiddennet.data.build."""
    section, aside = config.data, ("name", "batch_size", "augment", "drop_last")
    kept = {k: v for k, v in section if k not in aside and not is_place(type(section).model_fields[k])}
    if not kept["arguments"]:
        del kept["arguments"]
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
