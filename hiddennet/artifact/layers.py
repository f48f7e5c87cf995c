"""One hidden layer as an entry of the header and its share of the streams of numbers, and back.

The streams run through all layers in order, so that a network has one tensor of each kind, not one a layer:
`mask_bits` (uint8, 1 bit a weight in OIHW order, each layer from a whole byte on), `values` (float32, stored weights at
revealed positions), `sign_bits` (uint8, for revealed weights that are plus or minus one constant, or whose magnitudes
the seed gives), `redraws` (1 or 2 bytes for each revealed weight that is drawn anew and is no constant: which redraw it
is of) and `scores` (float32, only where evaluation multiplies by them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.container import ArtifactError
from hiddennet.nn import Activated, All, Fixed, Flipped, Generated, Redrawn, Sampled, Stored
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.weights import source_weight, with_signs
from hiddennet.nn.wiring import Wiring
from hiddennet.ops.generate_weight import InitScale, fill

STREAMS = {
    "mask_bits": torch.uint8,
    "values": torch.float32,
    "sign_bits": torch.uint8,
    "scores": torch.float32,
    "redraws": torch.uint8,
}
_MOST_ZEROS = 64  # revealed zeros listed by position beside a constant; more make it no constant


@dataclass
class Streams:
    """The streams, while they are written or read."""

    parts: dict[str, list[Tensor]] = field(default_factory=lambda: {name: [] for name in STREAMS})
    position: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))

    def add(self, name: str, tensor: Tensor) -> None:
        self.parts[name].append(tensor.detach().cpu().contiguous().flatten())

    def tensors(self) -> dict[str, Tensor]:
        """The streams that hold anything, each as one tensor."""
        return {name: torch.cat(parts) for name, parts in self.parts.items() if parts}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Streams:
        """Streams to read from; takes its tensors out of `tensors`."""
        streams = cls()
        for name, dtype in STREAMS.items():
            tensor = tensors.pop(name, torch.empty(0, dtype=dtype))
            if tensor.dtype != dtype or tensor.dim() != 1:
                raise ArtifactError(
                    f"artifact: expected {name} to be {dtype} of one dimension, got {tensor.dtype} "
                    f"of shape {tuple(tensor.shape)}"
                )
            streams.parts[name].append(tensor)
        return streams

    def take(self, name: str, count: int) -> Tensor:
        """The next `count` numbers."""
        tensor, start = self.parts[name][0], self.position[name]
        self.position[name] = start + count
        if self.position[name] > tensor.numel():
            raise ArtifactError(
                f"artifact: expected at least {self.position[name]} numbers in {name}, got {tensor.numel()}"
            )
        return tensor[start : start + count]


@dataclass
class Restored:
    """What a layer is made of; `scale` belongs to generated weights, `scores` to expectation."""

    source: Generated | Stored
    rule: Fixed | All | Sampled
    scale: float | None
    scores: Tensor | None


def kind(module: nn.Module) -> str:
    """The layer's kind as the header names it."""
    if isinstance(module, Wiring):
        return "wiring"
    return "linear" if isinstance(module, nn.Linear) else "conv2d"


def shape_of(module: nn.Conv2d | nn.Linear | Wiring) -> tuple[int, ...]:
    """The weight's shape, OIHW or OI, of a plain or a hidden layer or a wiring."""
    return tuple(module.weight_shape if isinstance(module, HiddenMixin) else module.weight.shape)


def encode(name: str, layer: HiddenMixin, mask: Tensor, streams: Streams) -> dict[str, Any]:
    """Append the layer's numbers to the streams and return its entry. mask: what it reveals."""
    rule, mask = layer.rule, mask.cpu()
    entry = {
        "name": name,
        "kind": kind(layer),
        "shape": list(layer.weight_shape),
        **layer.spec(),
    }
    if isinstance(rule, Sampled) and rule.evaluation == "expectation":
        entry["reveals"] = "expectation"
        streams.add("scores", layer.scores)
        mask = torch.ones_like(mask)
    elif isinstance(rule, All):
        entry["reveals"] = "all"
    else:
        entry["reveals"] = "mask"
        streams.add("mask_bits", ops.pack_mask(mask))
    entry["kept"] = int(mask.count_nonzero())
    if isinstance(layer.source, Redrawn):
        _encode_redrawn(entry, layer, mask, streams)
    elif isinstance(layer.source, (Flipped, Activated)):
        _encode_flipped(entry, layer, mask, streams)
    elif isinstance(layer.source, Generated):
        entry["scale"] = layer.scaled.scale
    else:
        weight = layer.weight.detach().cpu().contiguous().flatten()
        entry["weights"] = _encode_weights(weight[mask.flatten()], streams)
        entry["trainable"] = layer.weight.requires_grad
    return entry


def encode_wiring(name: str, wiring: Wiring, mask: Tensor, streams: Streams) -> dict[str, Any]:
    """Append a wiring's kept edges, as evaluation runs them, to the streams and return its entry."""
    if wiring.weight.dtype != torch.float32:
        raise TypeError(
            f"artifact: expected wiring {name} in float32, got {wiring.weight.dtype}; convert the model with .float()"
        )
    with torch.no_grad():
        weight = wiring.eval_weight().cpu().contiguous().flatten()
    streams.add("mask_bits", ops.pack_mask(mask.cpu()))
    return {
        "name": name,
        "kind": "wiring",
        "shape": list(wiring.weight.shape),
        "source": {"kind": "wiring", "edges": wiring.kind},
        "reveals": "mask",
        "kept": int(mask.count_nonzero()),
        "weights": _encode_weights(weight[mask.cpu().flatten()], streams),
    }


def decode_wiring(entry: dict[str, Any], streams: Streams) -> tuple[Tensor, Tensor]:
    """The kept edges (bool) and the weights of a wiring: of encode_wiring."""
    shape = tuple(entry["shape"])
    mask = ops.unpack_mask(streams.take("mask_bits", (math.prod(shape) + 7) // 8), shape)
    values = _decode_weights(entry["weights"], entry["kept"], streams)
    return mask, _spread(entry, mask, values)


def _spread(entry: dict[str, Any], mask: Tensor, values: Tensor) -> Tensor:
    """The values at the mask's places, 0 elsewhere."""
    count = int(mask.count_nonzero())
    if count != entry["kept"]:
        raise ArtifactError(
            f"artifact: expected {entry['kept']} weights revealed in layer {entry['name']}, got {count}"
        )
    return torch.zeros(mask.shape).masked_scatter_(mask, values)


def _encode_redrawn(entry: dict[str, Any], layer: HiddenMixin, mask: Tensor, streams: Streams) -> None:
    """Write revealed weights that were drawn anew: signs, or which redraw each is of (1 or 2 bytes), or values."""
    entry["drawn_from"], entry["trainable"] = entry["source"], False
    entry["source"] = Stored(layer=layer.source.layer).spec()
    if layer.redraws is None:
        values = source_weight(layer).cpu().contiguous().flatten()[mask.flatten()]
        entry["weights"] = _encode_weights(values, streams)
        return
    redraws = layer.redraws.cpu().contiguous().flatten()[mask.flatten()].int()
    width = 2 if redraws.numel() and int(redraws.max()) > 255 else 1
    for byte in range(width):
        streams.add("redraws", (redraws >> (8 * byte) & 255).to(torch.uint8))
    kind, scale = layer.scaled
    entry["weights"] = {"as": "redraws", "bytes": width, "kind": kind, "scale": scale}


def _decode_redrawn(entry: dict[str, Any], mask: Tensor | None, streams: Streams) -> Tensor:
    """The revealed weights of _encode_redrawn: made again from the seed, float32 [kept]."""
    weights, kept, source = entry["weights"], entry["kept"], entry["drawn_from"]
    redraws = sum(streams.take("redraws", kept).int() << (8 * byte) for byte in range(weights["bytes"]))
    shape = tuple(entry["shape"])
    flat = torch.ones(math.prod(shape), dtype=torch.bool) if mask is None else mask.flatten()
    whole = torch.zeros(flat.numel(), dtype=torch.int16).masked_scatter_(flat, redraws.to(torch.int16)).view(shape)
    scaled = InitScale(weights["kind"], weights["scale"])
    return ops.redrawn_weight(whole, scaled, seed=source["seed"], layer=source["layer"]).flatten()[flat]


def _encode_flipped(entry: dict[str, Any], layer: HiddenMixin, mask: Tensor, streams: Streams) -> None:
    """Write the signs of revealed weights whose magnitudes the seed gives."""
    values = layer.activated_weight() if isinstance(layer.source, Activated) else layer.known_magnitudes()
    streams.add("sign_bits", ops.pack_mask(torch.signbit(values.detach().cpu().contiguous()[mask])))
    entry["drawn_from"], entry["trainable"] = entry["source"], False
    entry["source"] = Stored(layer=layer.source.layer).spec()
    kind, scale = layer.scaled
    entry["weights"] = {"as": "signs", "kind": kind, "scale": scale}


def _decode_flipped(entry: dict[str, Any], mask: Tensor | None, streams: Streams) -> Tensor:
    """The revealed weights of _encode_flipped: float32 [kept]."""
    weights, kept, source = entry["weights"], entry["kept"], entry["drawn_from"]
    drawn = torch.empty(tuple(entry["shape"]))
    fill(drawn, InitScale(weights["kind"], weights["scale"]), **{k: source[k] for k in ("seed", "layer", "redraw")})
    values = drawn.flatten() if mask is None else drawn[mask]
    return with_signs(values, streams.take("sign_bits", (kept + 7) // 8))


def _encode_weights(values: Tensor, streams: Streams) -> dict[str, Any]:
    """Write revealed weights: 1 bit each where they are +- one constant, else 4 bytes."""
    magnitude = values.abs()
    constant = float(magnitude.max()) if values.numel() else 0.0
    zeros = (magnitude == 0).nonzero().flatten()
    if zeros.numel() > _MOST_ZEROS or not bool(((magnitude == constant) | (magnitude == 0)).all()):
        streams.add("values", values)
        return {"as": "values"}
    negative = torch.signbit(values)
    signed = bool(negative.any())
    if signed:
        streams.add("sign_bits", ops.pack_mask(negative))
    return {"as": "constant", "constant": constant, "signed": signed, "zeros": zeros.tolist()}


def decode(entry: dict[str, Any], streams: Streams) -> Restored:
    """Make the layer's source and rule again, taking its numbers from the streams."""
    shape = tuple(entry["shape"])
    count = math.prod(shape)
    scores = None
    if entry["reveals"] == "mask":
        mask = ops.unpack_mask(streams.take("mask_bits", (count + 7) // 8), shape)
        rule = Fixed(mask)
    elif entry["reveals"] == "all":
        mask, rule = None, All()
    else:
        mask, rule = None, Sampled(entry["rule"]["seed"], entry["rule"]["evaluation"])
        scores = streams.take("scores", count).view(shape)
    spec = {key: value for key, value in entry["source"].items() if key != "kind"}
    if entry["source"]["kind"] == "generated":
        return Restored(Generated(**spec), rule, entry["scale"], scores)
    spec["trainable"] = entry["trainable"]
    if entry["weights"]["as"] == "redraws":
        values = _decode_redrawn(entry, mask, streams)
    elif entry["weights"]["as"] == "signs":
        values = _decode_flipped(entry, mask, streams)
    else:
        values = _decode_weights(entry["weights"], entry["kept"], streams)
    weight = values.clone() if mask is None else _spread(entry, mask, values)
    return Restored(Stored(weight.view(shape), **spec), rule, None, scores)


def _decode_weights(weights: dict[str, Any], kept: int, streams: Streams) -> Tensor:
    """The revealed weights as _encode_weights got them: float32 [kept]."""
    if weights["as"] == "values":
        return streams.take("values", kept)
    magnitude = torch.full((kept,), weights["constant"])
    magnitude[weights["zeros"]] = 0.0
    if not weights["signed"]:
        return magnitude
    negative = ops.unpack_mask(streams.take("sign_bits", (kept + 7) // 8), (kept,))
    return torch.where(negative, -magnitude, magnitude)
