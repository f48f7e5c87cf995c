"""Ordinary networks: a hidden network as torch's own layers with its effective weights, and nothing of this package.

layers.py turns hidden layers back and folds batch norms, graphs.py wirings, trace.py the networks of hiddennet.models;
opened.py opens what is named by a path.
"""

import copy
import os

import torch
from torch import nn

from hiddennet.artifact.network import unwrapped
from hiddennet.compaction.base import CompactNetwork
from hiddennet.ordinary.layers import expose_layers, fold_batch_norms
from hiddennet.ordinary.opened import Opened, open_network
from hiddennet.ordinary.trace import without_ours

__all__ = ["Opened", "open_network", "plain"]


@torch.no_grad()
def plain(model: nn.Module | str | os.PathLike, *, fold: bool = False) -> nn.Module:
    """Return the network as ordinary layers of torch that hold the effective weights, in evaluation mode.

    What is hidden becomes what it was before hide(), with the weights that evaluation computes with: sampled and
    rounded layers give those of their evaluation. Modules that stand in several places stay one, tied weights one
    Parameter where their masks are one, too (else a warning names them). The hooks of hide() are gone. Wirings become
    convolutions and linear layers; they, and the networks of hiddennet.models around them, become torch.fx.GraphModules
    of torch's layers under the same names, so that the result can be pickled and read where hiddennet is not installed.

    Args:
        model: a model, hidden or not, also wrapped (compiled, DataParallel, AveragedModel): it is not changed; or the
            path of an artifact, of a run (RUN, RUN@STAGE), of a checkpoint in a run's folder.
        fold: fold batch norms into the convolutions and linear layers before them. Pairs are found by torch.fx; in a
            model that it cannot trace, among neighbours in an nn.Sequential. A warning names those that stay. A batch
            norm after a linear layer is taken to be over its features: inputs of two dimensions.

    Raises:
        TypeError: no model and no path. ValueError: no ordinary layers compute the same (ContinuousGraph, whose steps
            depend on what comes in; compact networks; wirings that a module of one's own reads). ArtifactError,
            CheckpointError, FileNotFoundError: as of opening the path.
    """
    if isinstance(model, (str, os.PathLike)):
        given = open_network(model, "plain").model
    elif isinstance(model, nn.Module):
        given = copy.deepcopy(unwrapped(model))
    else:
        raise TypeError(f"plain: expected a model or a path, got {type(model).__name__}")
    for name, module in given.named_modules():
        if isinstance(module, CompactNetwork):
            raise ValueError(
                f"plain: expected a network of layers, got a compact one ({type(module).__name__}{_at(name)}), whose "
                "edges lie in lists; give the network it was made from"
            )
    given.eval()
    expose_layers(given)
    made = without_ours(given).eval()
    for parameter in made.parameters():
        parameter.grad = None
    if fold:
        fold_batch_norms(made)
    return made


def _at(name: str) -> str:
    return f" at {name}" if name else ""
