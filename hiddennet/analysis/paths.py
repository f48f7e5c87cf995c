"""Which weights lie on a path from the input to the output. Generic: any model of convolutions and linear layers.

The network runs once on ones, with its masks for weights and every layer's output brought back to
"reached or not"; its backward does the same from the output. A weight is alive where both meet.
What adds up keeps this true, since nothing is negative; what does not (normalisation, activations,
pooling by the maximum) is replaced by something that is reached where its input is.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hiddennet.nn.hidden import HiddenMixin

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

_IDENTITIES = {
    *(F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.local_response_norm, F.normalize),
    *(F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.prelu),
    *(F.hardtanh, F.hardsigmoid, F.hardswish, F.sigmoid, F.tanh, F.softmax, F.log_softmax, F.softsign, F.tanhshrink),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.softmax, torch.log_softmax, torch.abs, torch.clamp),
    *(Tensor.relu, Tensor.relu_, Tensor.sigmoid, Tensor.tanh, Tensor.softmax, Tensor.log_softmax, Tensor.clamp),
}
_MEAN_FOR_MAX = {
    F.max_pool1d: F.avg_pool1d,
    F.max_pool2d: F.avg_pool2d,
    F.max_pool3d: F.avg_pool3d,
    torch.max_pool1d: F.avg_pool1d,
    torch.max_pool2d: F.avg_pool2d,
    torch.max_pool3d: F.avg_pool3d,
    F.adaptive_max_pool1d: F.adaptive_avg_pool1d,
    F.adaptive_max_pool2d: F.adaptive_avg_pool2d,
    F.adaptive_max_pool3d: F.adaptive_avg_pool3d,
}


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """The layers that are counted, hidden or not, by name, in module order."""
    found = model.named_modules()
    return {name: module for name, module in found if type(module) in _PLAIN or isinstance(module, HiddenMixin)}


def shape_of(layer: nn.Module) -> tuple[int, ...]:
    """The shape of the weight of a layer, plain or hidden, or of a wiring: output first."""
    return tuple(layer.weight_shape if isinstance(layer, HiddenMixin) else layer.weight.shape)


class _Reached(torch.autograd.Function):
    """1 where x > 0, forward, and where the gradient is, backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient > 0).to(gradient.dtype)


class _Reaching(TorchFunctionMode):
    """Within it, functions that do not keep "reached or not" are replaced by some that do."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function in _IDENTITIES:
            return args[0] if args else kwargs["input"]
        if function in _MEAN_FOR_MAX:
            return _pool(_MEAN_FOR_MAX[function], *args, **kwargs)
        return function(*args, **kwargs)


def _pool(
    mean: Callable,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """A mean in place of a maximum: its gradient goes to all that were reached, not to one of them."""
    if mean in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
        return _Reached.apply(mean(input, kernel_size))
    steps = dilation if isinstance(dilation, tuple | list) else (dilation,)
    if any(step != 1 for step in steps) or return_indices:
        raise ValueError("analysis: expected pooling without dilation or indices, got one with them")
    return _Reached.apply(mean(input, kernel_size, stride, padding, ceil_mode))


class _Stand:
    """A layer's forward in the copy: the mask for weight, no bias, the output's positions counted."""

    def __init__(self, layer: Layer, mask: Tensor):
        self.layer, self.positions = layer, 0
        self.mask = mask.to(torch.float64).requires_grad_()

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            out = F.linear(x, self.mask)
        else:
            out = self.layer._conv_forward(x, self.mask, None)
        self.positions += out.numel() // self.mask.shape[0]
        return _Reached.apply(out)


def trace(model: nn.Module, masks: dict[str, Tensor], input_shape: tuple[int, ...]) -> dict[str, tuple[int, Tensor]]:
    """Return each layer's number of output positions (0 where it is not used) and its alive weights.

    Args:
        model: left as it is.
        masks: of `layers_of(model)`, bool of the weights' shapes.
        input_shape: of one input, without the batch.

    Returns:
        name -> (positions, bool of the weight's shape). Biases and shifts make no path.
    """
    probe = copy.deepcopy(model).cpu().double().eval()
    for module in probe.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for parameter in probe.parameters():  # of other modules: everything passes
        parameter.data.fill_(1.0)
        parameter.requires_grad_(False)
    stands = {name: _Stand(layer, masks[name].cpu()) for name, layer in layers_of(probe).items()}
    for stand in stands.values():
        stand.layer.forward = stand
    with torch.enable_grad(), _Reaching():
        out = probe(torch.ones(1, *input_shape, dtype=torch.float64))
        out.backward(torch.ones_like(out))
    found = {}
    for name, stand in stands.items():
        gradient = stand.mask.grad
        alive = torch.zeros_like(stand.mask, dtype=torch.bool) if gradient is None else gradient > 0
        found[name] = stand.positions, alive & (stand.mask > 0)
    return found
