"""dense: the ordinary network, all weights learned. What the hidden networks are compared with."""

from pydantic import Field
from torch import nn

from hiddennet.methods.base import DrawnSection, Init, Method
from hiddennet.methods.layers import draw_weights
from hiddennet.methods.weights import load_weights
from hiddennet.registry import register


class DenseSection(DrawnSection):
    """method: all weights are learned."""

    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    weights: str | None = Field(None, description="start from these weights: a checkpoint, a run, or torchvision:NAME")


@register("method", "dense")
class Dense(Method):
    """Weights from the seed, or trained ones, all of them learned."""

    Section = DenseSection
    takes_graphs = True

    def build(self, model: nn.Module) -> nn.Module:
        draw_weights(model, self.section, self.seed)
        where = self.section.weights
        self.notes = load_weights(model, where, self.setting.open_run) if where else []
        return model
