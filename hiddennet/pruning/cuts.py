"""Where a network can be scaled by powers of two without changing SynFlow's order of scores; and the scaling.

A network without shifts, of layers and operations for which f(a x) = a f(x), a > 0, gives scores |W dR/dW| that all
scale with a when the activation at a cut point (one through which every path leads) is multiplied by a: layers
before it through the gradient, layers after it through the activation. A power of two changes no bit of a mantissa.
"""

import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import HOOKS
from hiddennet.pruning.targets import LAYERS

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SHAPING = (nn.Identity, nn.Flatten, nn.Unflatten)
_HOMOGENEOUS = (
    *(*LAYERS, *_NORMS, *_SHAPING, nn.ReLU, nn.LeakyReLU, nn.PReLU),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),  # identities in evaluation
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
)
_UNARY = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, F.leaky_relu, F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, torch.max_pool1d, torch.max_pool2d),
    *(F.interpolate, F.pixel_shuffle, torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.transpose),
    *(torch.permute, torch.mean, torch.sum, torch.chunk, torch.split, operator.getitem),
}
_UNARY_METHODS = {
    *("relu", "relu_", "view", "reshape", "flatten", "squeeze", "unsqueeze", "transpose", "permute", "contiguous"),
    *("mean", "sum", "chunk", "split", "expand", "repeat"),
}
_SUMS = {operator.add, operator.iadd, torch.add}
_SUM_METHODS = {"add", "add_"}
_SHAPES = {"size", "dim", "shape", "ndim"}
_SHAPING_METHODS = {"view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous"}
_WHOLE = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.neg, int}


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent of an int tensor by its bits, exactly; float32 for |exponent| < 127, float64 for < 1023."""
    if dtype == torch.float32:
        return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


class Renormalise(nn.Module):
    """Divides by the power of two that brings the largest value into [1/2, 1), and remembers it; nothing visits the
    host."""

    def __init__(self) -> None:
        super().__init__()
        self.exponent: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        limit = 120 if x.dtype == torch.float32 else 1000
        self.exponent = torch.frexp(x.detach().amax()).exponent.clamp(-limit, limit)
        return x * power_of_two(-self.exponent, x.dtype)


class _Layers(fx.Tracer):
    """Torch's layers and hidden ones are single nodes of the graph."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*LAYERS, HiddenMixin)) or super().is_leaf_module(m, module_qualified_name)


class NotHomogeneous(Exception):
    """Why a model cannot be scaled at its cut points."""


def _shifts(module: nn.Module, name: str, values: Mapping[str, Tensor]) -> bool:
    """Whether a layer adds anything: a bias, or a mean that is taken away."""
    dot = f"{name}." if name else ""
    return any(bool((values[dot + part] != 0).any()) for part in ("bias", "running_mean") if dot + part in values)


def _check_module(node: fx.Node, module: nn.Module) -> None:
    own_forward = type(module).forward not in {kind.forward for kind in type(module).__mro__ if kind in _HOMOGENEOUS}
    if isinstance(module, LAYERS) and own_forward and "forward" not in module.__dict__:
        raise NotHomogeneous(f"{type(module).__name__} {node.target} has a forward of its own")
    if not isinstance(module, (*_HOMOGENEOUS, HiddenMixin)):
        raise NotHomogeneous(f"{type(module).__name__} {node.target} does not scale with its input")
    if isinstance(module, _NORMS) and (module.training or module.running_var is None):
        raise NotHomogeneous(f"{type(module).__name__} {node.target} takes statistics of its input")
    if module.training and "Dropout" in type(module).__name__:
        raise NotHomogeneous(f"{type(module).__name__} {node.target} drops at random")
    if getattr(module, "return_indices", False):
        raise NotHomogeneous(f"{type(module).__name__} {node.target} returns indices")


class _Kinds:
    """Which nodes hold values that scale with the input, and which only shapes and constants."""

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module]):
        self.modules = modules
        self.scaled: dict[fx.Node, bool] = {}
        for node in graph.nodes:
            if node.op != "output":
                self.scaled[node] = self._kind(node)

    def _kind(self, node: fx.Node) -> bool:
        values = [n for n in node.all_input_nodes if self.scaled[n]]
        if node.op == "placeholder":
            return True
        if node.op == "call_module":
            _check_module(node, self.modules[str(node.target)])
            return self._of_first(node, values)
        if node.op == "get_attr":
            raise NotHomogeneous(f"the parameter {node.target} is used outside a layer")
        name = node.target if node.op == "call_method" else None
        if name in _SHAPES or (node.target is getattr and node.args[1] in _SHAPES):
            return False
        if not values and (node.target in _WHOLE or node.target is operator.getitem):
            return False
        if node.target in _UNARY or name in _UNARY_METHODS:
            return self._of_first(node, values)
        if node.target in _SUMS or name in _SUM_METHODS:
            if len(node.args) == 2 and not node.kwargs and all(self.scaled.get(a, False) for a in node.args):
                return True
            raise NotHomogeneous(f"{node} adds something that does not scale with the input")
        if (
            node.target in (torch.cat, torch.concat, torch.stack)
            and node.args
            and len(values) == len(set(node.args[0]))
        ):
            return True
        if node.target is F.pad and not any(node.args[3:]) and not node.kwargs.get("value"):
            return self._of_first(node, values)
        if node.target is F.dropout and node.kwargs.get("training") is False:
            return self._of_first(node, values)
        raise NotHomogeneous(f"{node.target} is not known to scale with its input")

    def _of_first(self, node: fx.Node, values: list[fx.Node]) -> bool:
        """Only the first argument scales with the input."""
        if not node.args or values != [node.args[0]]:
            raise NotHomogeneous(f"{node} takes more than one value that scales with the input, or none")
        return True


def scaled_graph(
    model: nn.Module, values: Mapping[str, Tensor], pruned_biases: bool
) -> tuple[fx.GraphModule, list[Renormalise], list[str]]:
    """The model as a graph with a Renormalise at its cut points, at most one after each layer with weights.

    Call it inside Probe.still().

    Args:
        values: the model's parameters and buffers by name.
        pruned_biases: whether biases are ranked too: then none may be other than 0.

    Returns:
        the graph, which shares the model's modules; its Renormalise modules; names of biases that have to be 0 in it.

    Raises:
        NotHomogeneous: with the reason.
    """
    if any(h not in HOOKS for h in (*model._forward_hooks.values(), *model._forward_pre_hooks.values())):
        raise NotHomogeneous("the model has forward hooks")
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if name and (module._forward_hooks or module._forward_pre_hooks):
            raise NotHomogeneous(f"{name} has forward hooks")
    try:
        graph = _Layers().trace(model)
    except Exception as error:
        raise NotHomogeneous(f"its forward cannot be traced ({type(error).__name__})") from error
    nodes = list(graph.nodes)
    inputs = [n for n in nodes if n.op == "placeholder"]
    result = nodes[-1].args[0]
    if len(inputs) != 1 or not isinstance(result, fx.Node):
        raise NotHomogeneous("it has more than one input or output")
    kinds = _Kinds(graph, modules)
    zeroed = []
    for i, node in enumerate(nodes):
        if node.op != "call_module" or not _shifts(modules[node.target], node.target, values):
            continue
        # a bias of the last layer is added to the outputs alone: nothing but shapes comes after it
        last = all(n.op == "call_method" and n.target in _SHAPING_METHODS for n in nodes[i + 1 : -1])
        if pruned_biases or isinstance(modules[node.target], _NORMS) or not last:
            raise NotHomogeneous(f"{node.target} adds a bias or takes away a mean that is not 0")
        zeroed.append(f"{node.target}.bias")
    root = fx.GraphModule(model, graph)
    cuts = [_insert(root, node, i) for i, node in enumerate(_cut_points(nodes, kinds.scaled, modules))]
    graph.lint()
    root.recompile()
    return root, cuts, zeroed


def _cut_points(
    nodes: list[fx.Node], scaled: Mapping[fx.Node, bool], modules: Mapping[str, nn.Module]
) -> list[fx.Node]:
    """Nodes after which nothing else that scales is still needed, each after a new layer with weights."""
    order = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((order[user] for user in node.users), default=-1) for node in nodes}
    found: list[fx.Node] = []
    new_weights, needed_until = False, -1
    weights = [n for n in nodes if n.op == "call_module" and isinstance(modules[n.target], LAYERS)]
    last_layer = order[weights[-1]] if weights else -1
    for node in nodes[:last_layer]:
        new_weights |= node.op == "call_module" and isinstance(modules[node.target], LAYERS)
        if not scaled.get(node, False):
            continue
        alone = needed_until <= order[node]
        needed_until = max(needed_until, last_use[node])
        is_tensor = node.op == "call_module" or node.target not in (torch.chunk, torch.split, "chunk", "split")
        if alone and new_weights and is_tensor:
            found.append(node)
            new_weights = False
    return found


def _insert(root: fx.GraphModule, node: fx.Node, number: int) -> Renormalise:
    cut = Renormalise()
    name = f"renormalise_{number}"
    while hasattr(root, name):
        name += "_"
    root.add_submodule(name, cut)
    with root.graph.inserting_after(node):
        inserted = root.graph.call_module(name, (node,))
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)
    return cut
