"""prune_at_init: a pruner chooses the mask before anything is learned; then the revealed weights learn.

SNIP (Lee et al. 2019), GraSP (Wang et al. 2020), SynFlow (Tanaka et al. 2020), magnitude, random; as Peek-a-Boo (Chen
et al. 2022, ICLR) and Rare Gems (arXiv 2202.12002) compare them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet import data, ops, pruning
from hiddennet.analysis import layer_report, total
from hiddennet.methods.base import DrawnSection, Init, Method, Setting
from hiddennet.methods.layers import Patterns, dense_names, draw_weights, learn, matching, numbers, plain_layers
from hiddennet.methods.subnet import Subnet, read_subnet
from hiddennet.models import peek_a_boo_layers, prunable
from hiddennet.nn import Fixed, Stored, hidden_layers, hide
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.registry import register
from hiddennet.settings.recipe import TrainStage
from hiddennet.settings.section import Count, Density, Positive

Pruner = Literal["synflow", "snip", "grasp", "magnitude", "random"]
_DATA_FREE = ("synflow", "magnitude", "random")


class PruneSection(DrawnSection):
    """method: a pruner reveals some of the random weights before training; those learn."""

    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    pruner: Pruner | None = Field("synflow", description="whose scores the mask is chosen by; null: nothing is pruned")
    density: Density = Field(0.3, description="fraction of all weights that may be pruned that is revealed")
    iterations: Positive | None = Field(
        None, description="times of scoring and pruning on the way to the density; null: 100 for synflow, else 1"
    )
    prune_schedule: Literal["exponential", "linear"] = Field(
        "exponential", description="how the density falls over the iterations"
    )
    scope: Literal["global", "layer"] = Field("global", description="rank all layers together, or each by itself")
    classifier_density: Density | None = Field(
        None, description="density of the last layer where scope is layer; null: as density"
    )
    prune_epoch: Count = Field(0, description="epoch, from 0, before which the last pruning falls; 0: before training")
    shots: Positive = Field(1, description="prunings, evenly spaced from training's start to prune_epoch")
    prune_images: Positive = Field(100, description="training images that snip and grasp look at")
    prune_batch_size: Positive = Field(256, description="of those images at once, at most")
    invert: bool = Field(False, description="reveal the lowest scores instead: a sanity check")
    shuffle: bool = Field(False, description="shuffle each layer's mask after pruning: a sanity check")
    layers: Literal["all", "paper"] = Field(
        "all",
        description="what is pruned: every layer that is not dense, or what Peek-a-Boo's code prunes of the network",
    )
    exclude: Patterns
    unpruned: list[str] = Field(
        default_factory=list, description="names or patterns of hidden layers that keep all of their weights"
    )
    stage: Literal["prune", "train", "both"] = Field(
        "both", description="prune: end after pruning; train: go on from `subnet`, where another run pruned"
    )
    subnet: str | None = Field(
        None, description="for stage train: the pruned network, an artifact or the folder of a run"
    )

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if (self.stage == "train") != (self.subnet is not None):
            yield f"method.subnet: expected it exactly where stage is train, got {self.subnet!r} with {self.stage}"
        if self.shots > max(1, self.prune_epoch):
            yield (
                f"method.shots: expected at most prune_epoch ({self.prune_epoch}), so that there is an epoch between "
                f"two, or 1, got {self.shots}"
            )
        if self.prune_epoch and (self.stage != "both" or self.prune_epoch >= setting.epochs):
            yield (
                f"method.prune_epoch: expected 0, or an epoch of the training (train.epochs is {setting.epochs}) "
                f"with stage both, got {self.prune_epoch} with stage {self.stage}"
            )
        if self.classifier_density is not None and self.scope != "layer":
            yield "method.classifier_density: expected scope layer with it, got scope global"
        if setting.data in data.TEXT:
            yield f"method.name: expected a data set of images with {self.name}, got {setting.data!r}"


def sample(data: data.Data, count: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """The first `count` training images of epoch 0 over all ranks, as training sees them, in batches of at most
    `batch_size`."""
    whole = data.train.whole()
    whole.set_epoch(0)
    images, labels, found = [], [], 0
    for some, targets in whole:
        images.append(some[: count - found])
        labels.append(targets[: count - found])
        found += len(labels[-1])
        if found >= count:
            break
    return list(zip(torch.cat(images).split(batch_size), torch.cat(labels).split(batch_size), strict=True))


@register("method", "prune_at_init")
class PruneAtInit(Method):
    """Fixed masks, chosen by a pruner at the start of training or in shots up to prune_epoch; their weights learn."""

    Section = PruneSection

    @property
    def stages(self) -> list[TrainStage]:
        if self.section.stage == "prune":
            return [self.stage("prune", 0)]
        return super().stages

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        paper = peek_a_boo_layers(model)
        dense = dense_names(model, self.setting, section.exclude)
        if section.layers == "paper":
            dense += [name for name in plain_layers(model) if name not in {*paper.pruned, *paper.learned, *dense}]
        hidden = [name for name in plain_layers(model) if name not in dense]
        self.unpruned = matching(section.unpruned, hidden, "method.unpruned")
        if section.layers == "paper":
            self.unpruned += [name for name in hidden if name not in {*paper.pruned, *self.unpruned}]
        if len(self.unpruned) == len(hidden):
            raise ValueError(f"method: expected a layer to prune, got none of {len(hidden)}; see exclude and unpruned")
        draw_weights(model, section, self.seed)
        subnet = read_subnet(section.subnet, model, self.setting.open_run) if section.subnet else None
        if subnet is not None:
            subnet.copy_into(model)

        def rule(name: str, module: nn.Module) -> Fixed:
            given = subnet.masks.get(name) if subnet is not None else None
            return Fixed(torch.ones_like(module.weight, dtype=torch.bool) if given is None else given)

        self.hide(model, dense, rule, subnet)
        return model

    def hide(self, model: nn.Module, dense: list[str], rule: Callable, subnet: Subnet | None) -> None:
        """Make the plain model's layers hidden ones, in place; its weights are drawn, or those of `subnet`."""
        number = numbers(model)
        hide(model, source=lambda name, _: Stored(trainable=True, layer=number[name]), rule=rule, exclude=dense)
        learn(model)

    def begin(self, model: nn.Module) -> list[str]:
        section = self.section
        if section.pruner is None or section.stage == "train" or section.prune_epoch:
            return []
        return self.prune(model, section.density)

    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        section = self.section
        if section.pruner is None or not section.prune_epoch:
            return []
        every = section.prune_epoch // section.shots
        shot, rest = divmod(epoch, every)
        if rest or not 1 <= shot <= section.shots:
            return []
        return self.prune(model, 1.0 - (1.0 - section.density) * shot / section.shots)

    def is_result(self, epoch: int) -> bool:
        section = self.section
        return epoch >= section.prune_epoch // section.shots * section.shots

    def prune(self, model: nn.Module, density: float) -> list[str]:
        """Choose the masks anew at this density, in place; return what there is to say."""
        found = self.choose(model, density) if self.ranks.first else None
        found = self.ranks.share(found, next(model.parameters()).device)
        layers = hidden_layers(model)
        for name, mask in found.items():
            set_mask(layers[name.removesuffix(".weight")], mask)
        left = sum(int(mask.count_nonzero()) for mask in found.values())
        size = sum(mask.numel() for mask in found.values())
        said = [f"{self.section.pruner} keeps {left} of {size} weights, density {left / size:.4f}"]
        empty = [name.removesuffix(".weight") for name, mask in found.items() if not mask.any()]
        said += [f"warning: no weight is left in layer {name}; its output is constant" for name in empty]
        with contextlib.suppress(ValueError):  # a model whose paths are not known
            if not total(layer_report(model, self._input_shape), hidden_only=True).alive:
                said.append(
                    "warning: no weight that is kept lies on a path from the input to the output, which is constant: "
                    "there is nothing to train; raise method.density, or choose another pruner or scope: layer"
                )
        return said

    @property
    def _input_shape(self) -> tuple[int, int, int]:
        return self.data.in_channels, self.data.image_size, self.data.image_size

    def choose(self, model: nn.Module, density: float) -> dict[str, Tensor]:
        """The pruner's masks by name of the weight, bool."""
        section, seen = self.section, self.data
        free = section.pruner in _DATA_FREE
        return pruning.prune(
            model,
            section.pruner,
            density,
            iterations=section.iterations or (100 if section.pruner == "synflow" else 1),
            schedule=section.prune_schedule,
            scope=section.scope,
            batches=None if free else sample(seen, section.prune_images, section.prune_batch_size),
            input_shape=self._input_shape,
            exclude=[name for name in prunable(model) if name not in hidden_layers(model) or name in self.unpruned],
            classifier_density=section.classifier_density,
            num_classes=seen.num_classes if section.classifier_density is not None else None,
            invert=section.invert,
            shuffle=section.shuffle,
            seed=self.seed,
            start={
                f"{name}.weight": ops.unpack_mask(layer.mask_bits, layer.weight_shape)
                for name, layer in hidden_layers(model).items()
                if name not in self.unpruned
            },
        )


@torch.no_grad()
def set_mask(layer: HiddenMixin, mask: Tensor) -> None:
    """Give a layer with a Fixed rule another mask, in place."""
    layer.mask_bits.copy_(ops.pack_mask(mask.to(layer.mask_bits.device)))
