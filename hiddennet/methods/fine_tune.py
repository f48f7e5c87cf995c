"""fine_tune: train the weights of a found sub-network; its masks stay. Ramanujan et al. 2020.

With `sanity`, the sub-network is altered first: the checks of Rare Gems (arXiv 2202.12002, section 5) of any method.
"""

from pydantic import Field
from torch import nn

from hiddennet.methods.base import Method, MethodSection
from hiddennet.methods.layers import learn, numbers
from hiddennet.methods.search import MEANING, Check, alter
from hiddennet.methods.subnet import read_subnet
from hiddennet.nn import Fixed, Stored, hide
from hiddennet.registry import register


class FineTuneSection(MethodSection):
    """method: the weights of a sub-network found before are learned."""

    subnet: str = Field(
        description="the sub-network: an artifact file, or the folder of a run; RUN@STAGE is the network at the end of "
        "a stage, such as RUN@search"
    )
    sanity: Check | None = Field(None, description=f"alter the sub-network first; {MEANING}")
    train_batch_norm: bool = Field(True, description="batch norm's scale and shift learn, where the model has them")


@register("method", "fine_tune")
class FineTune(Method):
    """Weights start as the sub-network has them; hidden ones stay hidden and get no gradient."""

    Section = FineTuneSection

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        subnet = read_subnet(section.subnet, model, self.setting.open_run, scores=section.sanity == "invert")
        subnet.copy_into(model)
        masks = subnet.masks
        if section.sanity is not None:
            weights = {name: model.get_submodule(name).weight.detach().clone() for name in masks}
            masks, weights = alter(section.sanity, masks, weights, subnet.scores, self.seed)
            for name, weight in weights.items():
                model.get_submodule(name).weight.data.copy_(weight)
        number = numbers(model)
        hide(
            model,
            source=lambda name, _: Stored(trainable=True, layer=number[name]),
            rule=lambda name, _: Fixed(masks[name]),
            include=lambda name, _: name in masks,
        )
        learn(model, batch_norm=section.train_batch_norm)
        return model
