"""A compact network as one file: its tensors, the places of its edges in few bits, what it is made of in the header."""

import os
from typing import Any

import torch
from torch import Tensor

from hiddennet import container
from hiddennet.container import ArtifactError

from . import positions
from .base import CompactNetwork
from .discrete import CompactDiscrete
from .mobilenet import CompactMobileNet
from .parts import Product, narrow, sources_of, starts_of
from .static import CompactStatic

FORMAT = "compact"
_NETWORKS = {
    "MobileNetGraph": CompactMobileNet,
    "StaticGraph": CompactStatic,
    "DiscreteGraph": CompactDiscrete,
}


def save(
    model: CompactNetwork,
    path: str | os.PathLike,
    metadata: dict[str, Any] | None = None,
    graph: dict[str, Any] | None = None,
    beside: dict[str, Tensor] | None = None,
) -> None:
    """Write the network to `path`, atomically, as one safetensors file with the artifact's header and checksum.

    Edges are stored as 4 bytes of value and the Elias-Fano code of their places, dense products too where that is
    smaller.

    Args:
        metadata: JSON-able facts kept in the header, as of hiddennet.export.
        graph, beside: how it computes, for hiddennet.runtime, and tensors of that.

    Raises:
        TypeError: no compact network.
    """
    if not isinstance(model, CompactNetwork):
        raise TypeError(
            f"compact: expected a compact network, got {type(model).__name__}; make it by hiddennet.compact"
        )
    facts = dict(metadata or {})
    tensors, products = {}, {}
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for name, product in model.products_by_name().items():
        keys = ("weight",) if product.is_dense else ("starts", "sources", "values")
        own = {key: state.pop(f"{name}.{key}") for key in keys}
        entry, stored = _encode(own, product)
        products[name] = entry
        tensors |= {f"{name}.{key}": tensor for key, tensor in stored.items()}
    tensors |= {name: tensor.contiguous() for name, tensor in state.items()}
    header = {
        "format_version": 1 if graph is None else 3,
        "kind": FORMAT,
        "model": facts.pop("model", model.architecture),
        "method": facts.pop("method", None),
        "config_hash": facts.pop("config_hash", None),
        "hidden_weights": model.spec["positions"],
        "dense_bytes": model.spec["dense_bytes"],
        "kept": model.edges,
        "layers": [],
        "spec": model.spec,
        "products": products,
        "metadata": facts,
        **({} if graph is None else {"graph": graph}),
    }
    container.write(path, header, {**tensors, **(beside or {})})


def load(path: str | os.PathLike) -> CompactNetwork:
    """Return the compact network at `path`, on the CPU. Nothing in the file is unpickled.

    Raises:
        ArtifactError (a ValueError): the file is missing, damaged, of a newer format, or holds no compact network.
    """
    return restore(path, *container.read(path))


def restore(path: str | os.PathLike, header: dict[str, Any], tensors: dict[str, Tensor]) -> CompactNetwork:
    """The compact network of a file's header and tensors, as `load`."""
    if header.get("kind") != FORMAT:
        raise ArtifactError(f"artifact: expected a compact network in {path}, got another artifact; use hiddennet.load")
    from hiddennet.header import check

    check(header, tensors, path)
    try:
        for name, entry in header["products"].items():
            keys = ("weight",) if entry["stored"] == "weight" else ("low", "high", "values")
            stored = {key: tensors.pop(f"{name}.{key}") for key in keys}
            tensors |= {f"{name}.{key}": tensor for key, tensor in _decode(entry, stored).items()}
        spec = header["spec"]
        model = _NETWORKS[spec["network"]](spec, tensors)
        if model.state_dict().keys() != tensors.keys():
            raise ValueError(f"unknown tensors {sorted(tensors.keys() - model.state_dict().keys())[:3]}")
    except Exception as error:  # what a header can say wrongly is answered with many types
        raise ArtifactError(
            f"artifact: expected a complete compact network in {path}, got one that cannot be used "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]}); export it again"
        ) from None
    model.architecture = header["model"]
    return model


def needed_bytes(model: CompactNetwork) -> dict[str, float]:
    """What the alive parameters need, in bytes: "values", 4 each (of dense products only those that are not 0), and
    "positions", the information in the places of edges, log2 of the number of choices; "total"."""
    values = information = 0.0
    products = model.products_by_name()
    for product in products.values():
        size, edges = product.n_destinations * product.n_sources, product.n_edges
        values += 4 * edges
        information += positions.information(edges, size) / 8
    for name, tensor in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if owner not in products or leaf not in ("values", "weight"):
            values += 4 * tensor.numel()
    return {"values": values, "positions": information, "total": values + information}


def _encode(own: dict[str, Tensor], product: Product) -> tuple[dict[str, Any], dict[str, Tensor]]:
    rows, columns = product.n_destinations, product.n_sources
    entry = {"shape": [rows, columns], "dense": product.is_dense}
    if product.is_dense:
        places = own["weight"].flatten().nonzero().flatten()
        values = own["weight"].flatten()[places]
        if 4 * places.numel() + sum(positions.sizes(places.numel(), rows * columns)) >= 4 * rows * columns:
            return {**entry, "stored": "weight"}, own
    else:
        places = (
            torch.arange(rows).repeat_interleave(own["starts"].diff().long()) * columns
            + sources_of(own["sources"]).long()
        )
        values = own["values"]
    low, high = positions.encode(places, rows * columns)
    return {**entry, "stored": "places"}, {"low": low, "high": high, "values": values}


def _decode(entry: dict[str, Any], stored: dict[str, Tensor]) -> dict[str, Tensor]:
    if entry["stored"] == "weight":
        return stored
    rows, columns = entry["shape"]
    values = stored["values"]
    places = positions.decode(stored["low"], stored["high"], values.numel(), rows * columns)
    if entry["dense"]:
        weight = values.new_zeros(rows * columns)
        weight[places] = values
        return {"weight": weight.view(rows, columns)}
    owners = places.div(max(columns, 1), rounding_mode="floor")
    sources = narrow(places - owners * columns, columns)
    return {"starts": starts_of(owners, rows), "sources": sources, "values": values}
