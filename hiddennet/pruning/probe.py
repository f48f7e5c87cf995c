"""Probe: a model as a function of its weights, for scoring. The model itself is never changed, whatever happens."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import HOOKS
from hiddennet.nn.summary import masks
from hiddennet.pruning.targets import Target


class Probe:
    """Runs a model, or a graph of its modules, on given weights; all else is a copy in one floating type.

    Hidden layers compute with the weight they are given: their rules, scores and selections play no part. This
    package's other layers, whose backward is not the derivative of their forward, compute as torch's do.

    Args:
        model: left as it is.
        targets: the parameters that each call gives.
        dtype: of the computation: float32 or float64.
        absolute: all other parameters and buffers by their magnitudes (SynFlow).
        train_mode: the model in training mode; the statistics it gathers are the copy's.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[Target],
        dtype: torch.dtype,
        *,
        absolute: bool = False,
        train_mode: bool = False,
    ) -> None:
        self.model, self.dtype, self.train_mode = model, dtype, train_mode
        self.device = targets[0].value().device
        given = {t.name for t in targets}
        self.fixed: dict[str, Tensor] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name not in given:
                self.fixed[name] = self.cast(tensor, absolute)
        self._weights: dict[str, Tensor] = {}
        self._layers: dict[str, HiddenMixin] = {
            (f"{name}.weight" if name else "weight"): m
            for name, m in model.named_modules()
            if isinstance(m, HiddenMixin)
        }
        self._others = [m for m in model.modules() if _of_this_package(m) and not isinstance(m, HiddenMixin)]
        unpruned = [name for name in self._layers if name not in given]
        for name, weight in _revealed(model, unpruned).items():
            self._weights[name] = self.cast(weight, absolute)
        self._absolute = absolute
        self.forwards: dict[str, Callable[[Tensor], Tensor]] = {}  # of layers, in place of their own

    def cast(self, tensor: Tensor, absolute: bool = False) -> Tensor:
        """A copy of its own; numbers that are not whole in the probe's type."""
        tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
        if not tensor.is_floating_point():
            return tensor
        tensor = tensor.to(self.dtype)
        return tensor.abs_() if absolute else tensor

    def values(self, targets: Sequence[Target]) -> list[Tensor]:
        """The weights that are pruned, as the probe computes with them."""
        return [self.cast(t.value(), self._absolute) for t in targets]

    @contextmanager
    def still(self) -> Iterator[None]:
        """Within it the model is ready to be called: its mode set, hidden layers told their weights; then all is back.

        Gradients are on, automatic casting and the short mantissas of TF32 are off.
        """
        flags = [(module, module.training) for module in self.model.modules()]
        before, after = self.model._forward_pre_hooks, self.model._forward_hooks
        with ExitStack() as stack:
            for switch in _no_shortcuts(self.device):
                stack.enter_context(switch)
            try:
                for module, _ in flags:
                    module.training = self.train_mode
                self.model._forward_pre_hooks, self.model._forward_hooks = (
                    OrderedDict((key, hook) for key, hook in hooks.items() if hook not in HOOKS)
                    for hooks in (before, after)
                )
                for name, layer in self._layers.items():
                    layer.__dict__["forward"] = self._forward_of(name, layer)
                for layer in self._others:
                    plain = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
                    layer.__dict__["forward"] = plain.forward.__get__(layer)
                for name, forward in self.forwards.items():
                    self.model.get_submodule(name).__dict__["forward"] = forward
                yield
            finally:
                changed = (self.model.get_submodule(name) for name in self.forwards)
                for layer in (*self._layers.values(), *self._others, *changed):
                    layer.__dict__.pop("forward", None)
                self.model._forward_pre_hooks, self.model._forward_hooks = before, after
                for module, training in flags:
                    module.training = training

    def _forward_of(self, name: str, layer: HiddenMixin) -> Callable[[Tensor], Tensor]:
        if isinstance(layer, nn.Linear):
            return lambda x: F.linear(x, self._weights[name], layer.bias)
        return lambda x: layer._conv_forward(x, self._weights[name], layer.bias)

    def weight(self, name: str) -> Tensor:
        """The parameter of this name in the call that runs."""
        return self._weights[name]

    def __call__(self, weights: Mapping[str, Tensor], x: Tensor, graph: nn.Module | None = None) -> Tensor:
        """The model's output on x, inside still(); graph: its modules in another order of calls."""
        runner = self.model if graph is None else graph
        tensors = {**self.fixed, **weights}
        self._weights.update(weights)
        for name in self._layers:
            tensors.pop(name, None)
        if graph is not None:
            known = {n for n, _ in (*graph.named_parameters(), *graph.named_buffers())}
            tensors = {name: tensor for name, tensor in tensors.items() if name in known}
        out = functional_call(runner, tensors, (x,))
        if not isinstance(out, Tensor):
            raise TypeError(
                f"prune: expected a model that returns a Tensor, got {type(out).__name__}; wrap it in one that does"
            )
        return out


def _of_this_package(module: nn.Module) -> bool:
    """A layer of ours: torch's geometry, our own forward."""
    ours = type(module).__module__.partition(".")[0] == __name__.partition(".")[0]
    return ours and isinstance(module, (nn.Conv2d, nn.Linear))


def _no_shortcuts(device: torch.device) -> list:
    switches: list = [torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False)]
    if device.type == "cuda":
        switches.append(_exact_products())
    return switches


@contextmanager
def _exact_products() -> Iterator[None]:
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


@torch.no_grad()
def _revealed(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """What hidden layers that are not pruned compute with in evaluation: weights by the names of their parameters."""
    if not names:
        return {}
    twin = copy.deepcopy(model).eval()
    masks(twin)  # selects, where a selection is out of date
    layers = {f"{name}.weight" if name else "weight": m for name, m in twin.named_modules()}
    return {name: layers[name].effective_weight() for name in names}
