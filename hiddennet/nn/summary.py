"""What a model keeps: masks and densities."""

from torch import Tensor, nn

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import hidden_layers, in_pass
from hiddennet.nn.wiring import Wiring, wirings
from hiddennet.ops.checks import check_choice


def dense_weights(model: nn.Module) -> dict[str, tuple[nn.Module, int]]:
    """Modules with weights that are not hidden, by name, and how many: parameters of two dimensions or more."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (HiddenMixin, Wiring)):
            continue
        size = sum(p.numel() for p in module._parameters.values() if p is not None and p.ndim > 1)
        if size:
            found[name] = module, size
    return found


def density(model: nn.Module, of: str = "hidden") -> float:
    """The kept fraction of all hidden layers' weights (for sampled layers the expected one) and of all positions of
    wirings, usable or not; of="all": of the weights of dense layers, too, which keep all (parameters of two dimensions
    or more: no biases, no scales).
    """
    check_choice("density", "of", of, ("hidden", "all"))
    layers, graphs = hidden_layers(model).values(), wirings(model).values()
    total = sum(layer.weight_shape.numel() for layer in layers) + sum(graph.weight.numel() for graph in graphs)
    if total == 0:
        raise ValueError(
            f"density: expected a model with hidden layers or wirings, got {type(model).__name__} without any; hide() "
            "it first, or ask for that of the network it was made from (a compact one has neither)"
        )
    with in_pass(model):
        kept = sum(layer.kept() for layer in layers) + sum(graph.edges for graph in graphs)
    dense = sum(size for _, size in dense_weights(model).values()) if of == "all" else 0
    return (kept + dense) / (total + dense)


def masks(model: nn.Module) -> dict[str, Tensor]:
    """What each hidden layer and each wiring keeps: name -> bool of the weight's shape."""
    with in_pass(model):
        found = {name: layer.mask() for name, layer in hidden_layers(model).items()}
    return found | {name: wiring.mask() for name, wiring in wirings(model).items()}
