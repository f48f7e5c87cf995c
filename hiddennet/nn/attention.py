"""nn.MultiheadAttention with its input projection as a layer, so that it can be hidden as its output projection is."""

from collections.abc import Collection

from torch import Tensor, nn


class OpenMultiheadAttention(nn.MultiheadAttention):
    """torch's, whose `in_proj_weight` is the weight of a linear layer `in_proj`; its bias stays `in_proj_bias`."""

    @property
    def in_proj_weight(self) -> Tensor | None:
        if "in_proj" not in self._modules:
            raise AttributeError("in_proj_weight")
        return self.in_proj.weight


def open_attention(model: nn.Module, only: Collection[str] | None = None) -> None:
    """Give every MultiheadAttention of the model whose queries, keys and values share one weight that layer, in place.

    Outputs are the same; the state dict has `in_proj.weight` in place of `in_proj_weight`.

    only: names of such layers, where not all are wanted.
    """
    for name, module in list(model.named_modules()):
        if type(module) is not nn.MultiheadAttention or module._parameters.get("in_proj_weight") is None:
            continue
        if only is not None and f"{name}.in_proj".lstrip(".") not in only:
            continue
        weight = module._parameters.pop("in_proj_weight")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = weight
        module.in_proj = layer.train(module.training)
        module.__class__ = OpenMultiheadAttention


def close_attention(model: nn.Module) -> None:
    """The way back, where the input projection is plain."""
    for module in model.modules():
        if type(module) is OpenMultiheadAttention and type(module.in_proj) is nn.Linear:
            weight = module.in_proj.weight
            del module.in_proj
            module.__class__ = nn.MultiheadAttention
            module.in_proj_weight = weight
