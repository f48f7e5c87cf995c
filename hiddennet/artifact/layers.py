"""One hidden layer as an entry of the header and its share of the streams of numbers, and back.

The streams run through all layers in order, so that a network has one tensor of each kind, not one a layer:
`mask_bits` (uint8, 1 bit a weight in OIHW order, each layer from a whole byte on), `mask_codes` (uint8, since format 2:
masks of layers where hiddennet.ops.mask_code is shorter; the entry says how many bytes), `values` (float32, stored
weights at kept positions), `sign_bits` (uint8, for kept weights that are plus or minus one constant, or whose
magnitudes the seed gives), `redraws` (1 or 2 bytes for each kept weight that is drawn anew and is no constant: which
redraw it is of) and `scores` (float32, only where evaluation multiplies by them). What a layer's weights put into them
its source says (hiddennet.nn.Source.shipped).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.container import ArtifactError
from hiddennet.nn import All, Fixed, Generated, Rule, Sampled, Source, Stored
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.other_layers import LAYERS
from hiddennet.nn.source import put_values, take_values
from hiddennet.nn.wiring import Wiring
from hiddennet.ops.mask_code import decode_bits, encode_mask, is_unheld
from hiddennet.registry import REGISTRIES

_MOST_UNHELD = 2**24  # weights of a layer of which a code may hold next to nothing

STREAMS = {
    "mask_bits": torch.uint8,
    "mask_codes": torch.uint8,
    "values": torch.float32,
    "sign_bits": torch.uint8,
    "scores": torch.float32,
    "redraws": torch.uint8,
}


@dataclass
class Streams:
    """The streams, while they are written or read."""

    parts: dict[str, list[Tensor]] = field(default_factory=lambda: {name: [] for name in STREAMS})
    position: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))

    def put(self, name: str, tensor: Tensor) -> None:
        """Append numbers to a stream."""
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

    def put_bytes(self) -> int:
        """Of all numbers put so far."""
        return sum(part.numel() * part.element_size() for parts in self.parts.values() for part in parts)

    def taken_bytes(self) -> int:
        """Of all numbers taken so far."""
        return sum(self.position[name] * dtype.itemsize for name, dtype in STREAMS.items())

    def check_end(self) -> None:
        """Refuse numbers that no layer has taken."""
        for name, parts in self.parts.items():
            if self.position[name] != parts[0].numel():
                raise ArtifactError(
                    f"artifact: expected {self.position[name]} numbers in {name}, got {parts[0].numel()}"
                )


@dataclass
class Restored:
    """What a layer is made of; `scores` belong to expectation."""

    source: Source
    rule: Rule
    scores: Tensor | None


def kind(module: nn.Module) -> str:
    """The layer's kind as the header names it."""
    if isinstance(module, Wiring):
        return "wiring"
    return next((kind.__name__.lower() for kind in LAYERS if isinstance(module, kind)), type(module).__name__)


def encode(name: str, layer: HiddenMixin, mask: Tensor, streams: Streams) -> dict[str, Any]:
    """Append the layer's numbers to the streams and return its entry. mask: what it keeps."""
    mask, ships = mask.cpu(), layer.rule.ships
    if ships == "all" and not bool(mask.all()):  # the source itself makes some 0
        ships = "mask"
    if ships == "expectation":
        streams.put("scores", layer.scores)
        mask = torch.ones_like(mask)
    return {
        "name": name,
        "kind": kind(layer),
        "shape": list(layer.weight_shape),
        **layer.spec(),
        "reveals": ships,
        "kept": int(mask.count_nonzero()),
        **(_put_mask(mask, streams) if ships == "mask" else {}),
        **layer.source.shipped(layer, mask, streams.put),
    }


def encode_wiring(name: str, wiring: Wiring, mask: Tensor, streams: Streams) -> dict[str, Any]:
    """Append a wiring's kept edges, as evaluation runs them, to the streams and return its entry."""
    if wiring.weight.dtype != torch.float32:
        raise TypeError(
            f"artifact: expected wiring {name} in float32, got {wiring.weight.dtype}; convert the model with .float()"
        )
    mask = mask.cpu()
    weight = wiring.eval_weight().cpu().contiguous()
    return {
        "name": name,
        "kind": "wiring",
        "shape": list(wiring.weight.shape),
        "source": {"kind": "wiring", "edges": wiring.kind},
        "reveals": "mask",
        "kept": int(mask.count_nonzero()),
        **_put_mask(mask, streams),
        "weights": put_values(weight[mask], streams.put),
    }


def decode_wiring(entry: dict[str, Any], streams: Streams) -> tuple[Tensor, Tensor]:
    """The kept edges (bool) and the weights of a wiring: of encode_wiring."""
    mask = ops.unpack_mask(_bits(entry, streams), tuple(entry["shape"]))
    return mask, _spread(mask, take_values(entry["weights"], entry["kept"], streams.take))


def decode(entry: dict[str, Any], streams: Streams) -> Restored:
    """Make the layer's source and rule again, taking its numbers from the streams."""
    shape, scores, mask = tuple(entry["shape"]), None, None
    if entry["reveals"] == "mask":
        bits = _bits(entry, streams)
        rule: Rule = Fixed.packed(bits, entry["kept"])
        if entry["source"]["kind"] != "generated":
            mask = ops.unpack_mask(bits, shape)
    elif entry["reveals"] == "all":
        rule = All()
    else:
        rule = Sampled(entry["rule"]["seed"], entry["rule"]["evaluation"])
        scores = streams.take("scores", math.prod(shape)).view(shape)
    spec = {key: value for key, value in entry["source"].items() if key != "kind"}
    if entry["source"]["kind"] == "generated":
        return Restored(Generated(**spec, scale=entry["scale"]), rule, scores)
    drawn_from = entry.get("drawn_from", entry["source"])["kind"]
    source = REGISTRIES["source"].get(drawn_from, Stored)  # without its plugin a source ships plain values
    values = source.received(entry, mask, streams.take)
    weight = values.clone() if mask is None else _spread(mask, values)
    return Restored(Stored(weight.view(shape), **spec, trainable=entry["trainable"]), rule, scores)


def _put_mask(mask: Tensor, streams: Streams) -> dict[str, Any]:
    """Append a mask to the streams, coded where that is shorter; the entry's keys that say so."""
    bits = ops.pack_mask(mask)
    coded = encode_mask(mask)
    n, size = mask.numel(), coded.numel()
    if size >= bits.numel() or (is_unheld(n, size) and n > _MOST_UNHELD):
        streams.put("mask_bits", bits)
        return {}
    streams.put("mask_codes", coded)
    return {"code": size}


def _bits(entry: dict[str, Any], streams: Streams) -> Tensor:
    """A mask of the streams, packed, its count compared with the entry's."""
    shape = tuple(entry["shape"])
    if "code" in entry:
        try:
            return decode_bits(streams.take("mask_codes", entry["code"]), entry["kept"], shape)
        except ValueError as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"artifact: expected the code of a mask in layer {entry['name']}, got other bytes ({error})"
            ) from None
    n = math.prod(shape)
    bits = streams.take("mask_bits", (n + 7) // 8).clone()  # a part of all masks of the file
    if n % 8:
        bits[-1] &= (1 << n % 8) - 1  # nothing is said of what lies behind the last weight
    count = int(ops.count_flags([bits])) if n else 0
    if count != entry["kept"]:
        raise ArtifactError(
            f"artifact: expected {entry['kept']} weights revealed in layer {entry['name']}, got {count}"
        )
    return bits


def _spread(mask: Tensor, values: Tensor) -> Tensor:
    """The values at the mask's places, 0 elsewhere."""
    return torch.zeros(mask.shape).masked_scatter_(mask, values)
