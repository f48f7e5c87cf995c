"""fine_tune: train the weights of a found sub-network; its masks stay. Ramanujan et al. 2020."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.base import Method, MethodSection
from hiddennet.methods.layers import learn
from hiddennet.methods.weights import read_subnet
from hiddennet.nn import Fixed, Stored, hide


class FineTuneSection(MethodSection):
    """method: the weights of a sub-network found before are learned."""

    title: ClassVar[str] = "method 'fine_tune'"
    name: Literal["fine_tune"]
    subnet: str = Field(description="the sub-network: an artifact file, or the folder of a run")
    train_batch_norm: bool = Field(True, description="batch norm's scale and shift learn, where the model has them")


class FineTune(Method):
    """Weights start as the sub-network has them; hidden ones stay hidden and get no gradient."""

    name = "fine_tune"
    Section = FineTuneSection

    def build(self, model: nn.Module) -> nn.Module:
        subnet = read_subnet(self.section.subnet, model)
        subnet.copy_into(model)
        hide(
            model,
            source=Stored(trainable=True),
            rule=lambda name, _: Fixed(subnet.masks[name]),
            include=lambda name, _: name in subnet.masks,
        )
        learn(model, batch_norm=self.section.train_batch_norm)
        return model
