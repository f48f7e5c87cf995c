"""What a model or a file holds, layer by layer: shape, density, what is alive, bits a weight, bytes as an artifact."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet.analysis.layers import layer_report
from hiddennet.analysis.wirings import size_of, wiring_report
from hiddennet.artifact.layers import Streams, decode, decode_wiring, encode, encode_wiring
from hiddennet.artifact.network import state_of
from hiddennet.nn.network import hidden_layers, in_pass
from hiddennet.nn.summary import dense_weights, masks
from hiddennet.nn.wiring import wirings
from hiddennet.tables import aligned

OTHERS = "other tensors"


@dataclass(frozen=True)
class Held:
    """What is held of one layer.

    Attributes:
        kind: of the layer. shape: of its weight; empty for the total and for tensors that are no weights.
        source, rule: how the weights are made and revealed; "dense" and "" where nothing is hidden.
        weights, kept: how many, and how many evaluation reveals; for a layer evaluated by expectation, the expected
            number. density: the fraction.
        alive: kept weights on a path from the input to the output; None: not known.
        bytes: of its numbers in an artifact, its biases not among them; None: it cannot be in one. bits: of them for a
            weight.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    source: str
    rule: str
    weights: int
    kept: float
    alive: int | None
    bytes: int | None

    @property
    def density(self) -> float:
        return self.kept / max(1, self.weights)

    @property
    def bits(self) -> float | None:
        return None if self.bytes is None or not self.weights else 8 * self.bytes / self.weights

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with density and bits."""
        return {**asdict(self), "shape": list(self.shape), "density": self.density, "bits": self.bits}


@dataclass(frozen=True)
class Contents:
    """Rows of layers in the order they are held, hidden ones first. unknown: why nothing is known to be alive."""

    layers: list[Held] = field(default_factory=list)
    unknown: str = ""

    @property
    def total(self) -> Held:
        rows = self.layers
        alive = [row.alive for row in rows if row.weights]
        sizes = [row.bytes for row in rows]
        return Held(
            "all",
            "",
            (),
            "",
            "",
            sum(row.weights for row in rows),
            sum(row.kept for row in rows),
            None if None in alive else sum(alive),
            None if None in sizes else sum(sizes),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        unknown = {"alive_unknown": self.unknown} if self.unknown else {}
        return {"layers": [row.as_dict() for row in self.layers], "total": self.total.as_dict(), **unknown}

    def table(self) -> str:
        """As text, with the total in the last line."""
        return aligned([_HEAD, *(_cells(row) for row in (*self.layers, self.total))])


_HEAD = ("layer", "kind", "shape", "kept", "of", "density", "alive", "bits", "bytes", "made of")


def _cells(row: Held) -> tuple[str, ...]:
    return (
        row.name,
        row.kind,
        "x".join(map(str, row.shape)),
        f"{row.kept:,.0f}" if row.weights else "",
        f"{row.weights:,}" if row.weights else "",
        f"{row.density:.4f}" if row.weights else "",
        "" if not row.weights else "-" if row.alive is None else f"{row.alive:,}",
        "" if row.bits is None else f"{row.bits:.2f}",
        "-" if row.bytes is None else f"{row.bytes:,}",
        ", ".join(filter(None, (row.source, row.rule))),
    )


@torch.no_grad()
def contents(model: nn.Module, input_shape: Sequence[int] | None = None) -> Contents:
    """What a model holds, and what an artifact of it would.

    Args:
        model: any model; left as it is.
        input_shape: of one input, without the batch, by which paths are found; None: the shape that the network says
            (`architecture`), or what is alive stays unknown.
    """
    revealed, rows = masks(model), []
    alive, unknown = _alive(model, input_shape)
    with in_pass(model):
        for name, layer in hidden_layers(model).items():
            streams = Streams()
            encode(name, layer, revealed[name], streams)
            made = getattr(layer.source, "init", layer.source.kind)
            size, kept = layer.weight_shape.numel(), layer.kept()
            rows.append(
                Held(
                    name,
                    layer.plain.__name__,
                    tuple(layer.weight_shape),
                    made,
                    layer.rule.kind,
                    size,
                    kept,
                    alive.get(name),
                    streams.put_bytes(),
                )
            )
    for name, wiring in wirings(model).items():
        streams = Streams()
        if fits := wiring.weight.dtype == torch.float32:
            encode_wiring(name, wiring, revealed[name], streams)
        size = streams.put_bytes() if fits else None
        shape = tuple(wiring.weight.shape)
        rows.append(
            Held(name, "Wiring", shape, wiring.kind, "", wiring.weight.numel(), wiring.edges, alive.get(name), size)
        )
    dense = {
        f"{name}.{leaf}".lstrip("."): module
        for name, (module, _) in dense_weights(model).items()
        for leaf, parameter in module._parameters.items()
        if parameter is not None and parameter.ndim > 1
    }
    return Contents([*rows, *_of_state(state_of(model), dense, alive)], unknown)


def _of_state(
    state: Mapping[str, Tensor], dense: Mapping[str, nn.Module | str], alive: Mapping[str, int]
) -> Iterable[Held]:
    """Rows of dense weights, by key of the state dict, and one of all other tensors."""
    rest = 0
    for key, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if key not in dense:
            rest += size
            continue
        name = key.removesuffix(".weight")
        kind = dense[key] if isinstance(dense[key], str) else type(dense[key]).__name__
        count = tensor.numel()
        yield Held(name, kind, tuple(tensor.shape), "dense", "", count, count, alive.get(name), size)
    if rest:
        yield Held(OTHERS, "", (), "", "", 0, 0, None, rest)


def _alive(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[dict[str, int], str]:
    """Alive weights by layer's name; else why they are not known."""
    try:
        if wirings(model):
            return {report.name: report.alive for report in wiring_report(model)}, ""
        made = getattr(model, "architecture", {})
        side, channels = size_of(model), made.get("in_channels")
        if input_shape is None and (side is None or channels is None):
            return {}, "the shape of an input is not known"
        shape = tuple(input_shape) if input_shape is not None else (channels, side, side)
        return {report.name: report.alive for report in layer_report(model, shape)}, ""
    except Exception as error:  # a forward that the trace does not understand is answered with many types
        return {}, str(error).strip().partition("\n")[0]


def file_contents(header: Mapping[str, Any], tensors: Mapping[str, Tensor], alive: Mapping[str, int]) -> Contents:
    """What an artifact's header and tensors hold; no model is made. alive: of contents(), where there was one."""
    if header.get("kind") == "compact":
        return Contents(list(_compact(header, tensors)))
    tensors = dict(tensors)
    streams, rows = Streams.of(tensors), []
    for entry in header["layers"]:
        before = streams.taken_bytes()
        (decode_wiring if entry["kind"] == "wiring" else decode)(entry, streams)
        source, rule = entry.get("drawn_from", entry["source"]), entry.get("rule") or {}
        wired = entry["kind"] == "wiring"
        rows.append(
            Held(
                entry["name"],
                entry["kind"],
                tuple(entry["shape"]),
                source["edges"] if wired else source.get("init") or source["kind"],
                rule.get("kind", ""),
                math.prod(entry["shape"]),
                entry["kept"],
                alive.get(entry["name"]),
                streams.taken_bytes() - before,
            )
        )
    state = {key.removeprefix("state."): tensor for key, tensor in tensors.items()}
    dense = {key: "" for key, tensor in state.items() if tensor.ndim > 1}
    return Contents([*rows, *_of_state(state, dense, alive)])


def _compact(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterable[Held]:
    rest = sum(t.numel() * t.element_size() for t in tensors.values())
    for name, entry in header["products"].items():
        own = [tensor for key, tensor in tensors.items() if key.rpartition(".")[0] == name and "bias" not in key]
        size = sum(t.numel() * t.element_size() for t in own)
        rest -= size
        count = math.prod(entry["shape"])
        places = entry["stored"] == "places"
        kept = tensors[f"{name}.values"].numel() if places else int(tensors[f"{name}.weight"].count_nonzero())
        yield Held(name, "compact", tuple(entry["shape"]), "edges" if places else "dense", "", count, kept, kept, size)
    yield Held(OTHERS, "", (), "", "", 0, 0, None, rest)


def summary(model: nn.Module, input_shape: Sequence[int] | None = None) -> str:
    """A table of what is hidden and what is not: layer, kind, shape, kept weights of how many, density, how many of
    them are alive, bits a weight and bytes in an artifact, what of.

    input_shape: of one input, without the batch: (channels, height, width), to find what is alive by; None: what the
    network says, or "-".
    """
    return contents(model, input_shape).table()
