"""agreement: the weights are kept that are large and whose gradients agree. A method outside the package.

A weight that is pushed to and fro matters little to the loss, however large it is. So each weight is ranked by |w|
times |the moving average of its gradient's sign|: 1 where all gradients of late point one way, near 0 where they cancel
out. The mask is chosen anew before each epoch but the first, which sees the whole network. Hidden weights rest: they
get no gradient, their average fades, and they come back where those that are kept agree even less.

    hiddennet run agreement.yml            in this folder, or from anywhere by its path
    hiddennet keys --plugins agreement.py  its keys, among all others
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import hiddennet as hn
from hiddennet.methods.base import DrawnSection, Init, Method
from hiddennet.methods.layers import Patterns, dense_names, draw_weights, learn, numbers
from hiddennet.methods.prune_at_init import set_mask
from hiddennet.settings.section import Density, Number


class AgreementSection(DrawnSection):
    """method: the weights are kept that are large and whose gradients agree."""

    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    density: Density = Field(0.2, description="fraction of each layer's weights that is kept")
    memory: Number = Field(0.99, ge=0.0, lt=1.0, description="decay of the average of gradient signs, a step")
    exclude: Patterns


@hn.register("method", "agreement")
class Agreement(Method):
    """k = max(1, round(density n)) weights of a layer's n, the highest |w| |average of sign(dL/dw)|."""

    Section = AgreementSection

    def build(self, model: nn.Module) -> nn.Module:
        section, number = self.section, numbers(model)
        dense = dense_names(model, self.setting, section.exclude)
        draw_weights(model, section, self.seed)
        hn.hide(
            model,
            source=lambda name, _: hn.Stored(trainable=True, layer=number[name]),
            rule=lambda _, layer: hn.Fixed(torch.ones_like(layer.stored, dtype=torch.bool)),
            exclude=lambda name, _: name in dense,
        )
        learn(model)
        self.average = {name: torch.zeros_like(layer.stored) for name, layer in hn.hidden_layers(model).items()}
        return model

    def begin(self, model: nn.Module) -> list[str]:
        where = next(model.parameters()).device
        self.average = {name: average.to(where) for name, average in self.average.items()}
        return []

    @torch.no_grad()
    def before_update(self, model: nn.Module, step: int) -> None:
        for name, layer in hn.hidden_layers(model).items():
            self.average[name].lerp_(layer.stored.grad.sign(), 1 - self.section.memory)

    @torch.no_grad()
    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        if epoch:
            for name, layer in hn.hidden_layers(model).items():
                ranked = (layer.stored * self.average[name]).abs().contiguous()
                set_mask(layer, hn.ops.topk_mask(ranked, max(1, round(self.section.density * ranked.numel()))))
        return []

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """How much the gradients agree: the mean of |average|, over all hidden weights."""
        averages: list[Tensor] = list(self.average.values())
        total = sum(float(average.abs().sum()) for average in averages)
        return {"agreement": total / sum(average.numel() for average in averages)}

    def is_result(self, epoch: int) -> bool:
        return epoch > 0 or self.epochs == 1

    def state(self) -> dict[str, Any]:
        return {"average": self.average}

    def restore(self, state: dict[str, Any]) -> None:
        self.average = dict(state["average"])
