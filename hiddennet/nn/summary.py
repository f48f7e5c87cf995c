"""What a model keeps: masks, densities, and a table of what is hidden and what is not."""

from __future__ import annotations

from torch import Tensor, nn

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import hidden_layers, in_pass
from hiddennet.nn.wiring import Wiring, wirings
from hiddennet.ops.checks import check_choice
from hiddennet.tables import aligned


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


def summary(model: nn.Module) -> str:
    """A table of what is hidden and what is not: layer, kind, shape, kept weights of how many, density, what of."""
    rows = []
    with in_pass(model):
        for name, layer in hidden_layers(model).items():
            kept, size = layer.kept(), layer.weight_shape.numel()
            made = getattr(layer.source, "init", layer.source.kind)
            rows.append((name, layer.plain.__name__, layer.weight_shape, kept, size, f"{made}, {layer.rule.kind}"))
        for name, graph in wirings(model).items():
            rows.append((name, "Wiring", graph.weight.shape, graph.edges, graph.weight.numel(), graph.kind))
        for name, (module, size) in dense_weights(model).items():
            shapes = [tuple(p.shape) for p in module._parameters.values() if p is not None and p.ndim > 1]
            rows.append((name, type(module).__name__, shapes[0], size, size, "dense"))
    kept, total = (sum(row[i] for row in rows) for i in (3, 4))
    lines = [("layer", "kind", "shape", "kept", "of", "density", "made of")]
    for name, kind, shape, k, n, how in rows:
        lines.append((name, kind, "x".join(map(str, shape)), f"{k:,.0f}", f"{n:,}", f"{k / max(1, n):.4f}", how))
    lines.append(("all", "", "", f"{kept:,.0f}", f"{total:,}", f"{kept / max(1, total):.4f}", ""))
    return aligned(lines)


def masks(model: nn.Module) -> dict[str, Tensor]:
    """What each hidden layer and each wiring keeps: name -> bool of the weight's shape."""
    with in_pass(model):
        found = {name: layer.mask() for name, layer in hidden_layers(model).items()}
    return found | {name: wiring.mask() for name, wiring in wirings(model).items()}
