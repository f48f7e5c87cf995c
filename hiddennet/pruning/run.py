"""prune: the loop of all pruners: score, select, again. Tanaka et al. 2020, "Pruning neural networks without any data".

A mask is 1 where the score is above the k-th smallest of all, k = int((1 - density) n): all ties at it go, and entries
pruned before are ranked like the others. The model is only read; hide trains what was left.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet import nn as hidden
from hiddennet.nn.other_layers import hideable
from hiddennet.pruning.loop import Loop, Settings
from hiddennet.pruning.scores import Loss
from hiddennet.pruning.selection import densities
from hiddennet.pruning.synflow_graph import whole_schedule


@dataclass(frozen=True)
class Step:
    """One iteration: the density it aimed at, the scores by which it selected, the masks it made; by parameter name."""

    iteration: int
    density: float
    scores: dict[str, Tensor]
    masks: dict[str, Tensor]


def prune(
    model: nn.Module,
    method: str,
    density: float,
    *,
    iterations: int = 1,
    schedule: str = "exponential",
    scope: str = "global",
    batches: Iterable[tuple[Tensor, Tensor]] | None = None,
    loss: Loss | None = None,
    input_shape: Sequence[int] | None = None,
    exclude: Iterable[str] | str = (),
    classifier_density: float | None = None,
    num_classes: int | None = None,
    invert: bool = False,
    shuffle: bool = False,
    seed: int = 0,
    start: Mapping[str, Tensor] | None = None,
    biases: bool = False,
    train_mode: bool = False,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """Return which weights of an untrained model to keep: a bool mask by the name of each parameter.

    Pruned are the weights of all convolutions and linear layers, plain or hidden (then what the source makes, by the
    name "<layer>.weight"). The model comes back as it was, to the bit, whatever happens.

    >>> masks = prune(model, "synflow", 0.3, iterations=100, input_shape=(3, 32, 32))
    >>> masks = prune(model, "snip", 0.1, batches=[(images, labels)], exclude="fc")

    Args:
        model: any nn.Module; it is run in evaluation mode.
        method: "magnitude" |w|; "random"; "snip" |w dL/dw| (Lee et al. 2019); "grasp" w (H g) (Wang et al. 2020);
            "synflow" |w dR/dw| without data (Tanaka et al. 2020).
        density: the fraction that is kept, in (0, 1]. Scores equal to the threshold all go, so less may be.
        iterations: how often it is scored; 100 for synflow, 1 for the others as their papers do.
        schedule: of the iterations' densities, "exponential" or "linear"; see densities().
        scope: "global" ranks all weights together, "layer" each parameter by itself.
        batches: (input, target) pairs for snip and grasp, whose gradients are summed over them.
        loss: of (output, target); cross entropy by default.
        input_shape: of one input, for synflow; None takes it from the batches.
        exclude: names or glob patterns of parameters, layers, or modules that hold them, which are left dense.
        classifier_density: with scope "layer", that of matrices with num_classes rows, and of the last layer.
        num_classes: rows of the classifier; None takes those of the last layer.
        invert: rank by 1 / score (a sanity check). shuffle: in the end, permute each mask at random (another).
        seed: of "random" and of the shuffle; 63 bits.
        start: masks to go on from: those of an earlier shot.
        biases: prune the layers' biases too.
        train_mode: run the model in training mode.
        dtype: float32 or float64. None: the order of float64; float32 may end far from it, as synflow
            magnifies what differs.

    Returns:
        name -> bool of the parameter's shape, contiguous, on its device; in module order.

    Raises:
        TypeError, ValueError: anything outside what is said above; scores that are not finite.
    """
    settings = Settings(
        method, density, iterations, schedule, scope, classifier_density, num_classes, invert, shuffle, seed,
        train_mode, dtype,
    )  # fmt: skip
    loop = Loop(model, settings, batches, loss, input_shape, exclude, biases, start)
    if not (loop.device.type == "cuda" and whole_schedule(loop)):
        for iteration in range(iterations):
            loop.step(iteration)
    return loop.result()


def steps(
    model: nn.Module,
    method: str,
    density: float,
    *,
    batches: Iterable[tuple[Tensor, Tensor]] | None = None,
    loss: Loss | None = None,
    input_shape: Sequence[int] | None = None,
    exclude: Iterable[str] | str = (),
    start: Mapping[str, Tensor] | None = None,
    biases: bool = False,
    **how,
) -> Iterator[Step]:
    """prune(), one iteration at a time: yield each one's density, scores and masks. Arguments and errors as there.

    The last step's masks are prune()'s, but for `shuffle`. Between steps the model is as it was.
    """
    settings = Settings(method, density, **how)
    loop = Loop(model, settings, batches, loss, input_shape, exclude, biases, start)
    aims = densities(density, settings.iterations, settings.schedule)

    def run() -> Iterator[Step]:
        for iteration, aim in enumerate(aims):
            scores = loop.step(iteration)
            yield Step(iteration, aim, loop.shown(scores), loop.named(loop.masks()))

    return run()


def hide(model: nn.Module, masks: Mapping[str, Tensor], *, trainable: bool = True) -> nn.Module:
    """Put hidden layers of fixed masks in the place of those that prune() masked, in place; return the model.

    The weights stay as they are; any optimiser then trains the kept ones, and the others stay out for good.

    >>> masks = prune(model, "synflow", 0.3, iterations=100, input_shape=(3, 32, 32))
    >>> optimizer = torch.optim.SGD(hide(model, masks).parameters(), lr=0.1, momentum=0.9)

    Args:
        model: the pruned model. masks: of its Conv2d and Linear weights, as prune() returns them.
        trainable: False freezes the weights.

    Raises:
        ValueError: a mask of something else: a bias, a layer of another kind or one that is hidden already.
    """
    layers = {}
    for name, mask in masks.items():
        layer_name, _, kind = name.rpartition(".")
        module = dict(model.named_modules()).get(layer_name)
        if kind != "weight" or module is None or not hideable(module):
            got = "none" if module is None else f"{kind} of {type(module).__name__}"
            raise ValueError(
                f"pruning.hide: expected {name} to be the weight of a plain layer that hide() takes, got {got}; "
                "exclude the layer from the pruning"
            )
        layers[layer_name] = mask
    return hidden.hide(
        model,
        source=hidden.Stored(trainable=trainable),
        rule=lambda name, _: hidden.Fixed(layers[name]),
        include=list(layers),
    )
