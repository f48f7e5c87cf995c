"""Source: where a layer's weights come from. The layer asks its source and knows no kinds; a new one is a subclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops


def _plain(value: Any) -> Any:
    """A numpy number, or a tensor of one element, as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def plain_fields(self: Any) -> None:
    """Turn the numbers of a frozen dataclass into Python's, in place, by the types of its fields.

    So that state dicts and artifacts hold them as they are. Raises ValueError for what is no such number.
    """
    for field in dataclasses.fields(self):
        stands = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        kind, _, optional = stands.partition(" | ")
        value = getattr(self, field.name, None)
        if kind not in ("int", "float", "bool") or (value is None and optional):
            continue
        found = _plain(value)
        expected, known = {
            "int": ("a whole number", isinstance(found, Integral) and not isinstance(found, bool)),
            "float": ("a number", isinstance(found, Real) and not isinstance(found, bool)),
            "bool": ("True or False", isinstance(found, bool)),
        }[kind]
        if not known:
            raise ValueError(f"{type(self).__name__}: expected {field.name} to be {expected}, got {value!r}")
        object.__setattr__(self, field.name, {"int": int, "float": float, "bool": bool}[kind](found))


Put = Callable[[str, Tensor], None]  # append numbers to a stream of an artifact
Take = Callable[[str, int], Tensor]  # the next so many numbers of a stream
GRADIENTS = ("masked", "through")
_MOST_ZEROS = 64  # kept zeros listed by position beside a constant; more make it no constant


class Source:
    """What a hidden layer asks. A source is a value (a frozen dataclass); what changes is the layer's.

    Attributes:
        kind: its name in specs and registries.
        layer: the layer's number in the generator's counter; `hide` counts layers itself where it is None.
        learns: what of the weights learns: "weights", "signs" or "nothing".
        redrawable: whether hiddennet.redraw can draw weights anew.
    """

    kind: ClassVar[str]
    layer: int | None = None
    learns: str = "nothing"
    redrawable: ClassVar[bool] = False

    @property
    def trainable(self) -> bool:
        """Whether the layer's `weight` gets a gradient."""
        return self.learns != "nothing"

    def attach(self, layer: nn.Module, fresh: bool) -> Source:
        """Make or take the weights, with what the layer must keep of them; return the source that it holds.

        layer.stored is the plain layer's parameter, of undefined values where the layer is `fresh`; it stays as a
        parameter, or becomes None (`without_weight`).
        """
        return self

    def __post_init__(self) -> None:
        plain_fields(self)

    def remake(self, layer: nn.Module) -> None:
        """Make again what `attach` registered that no state dict holds, on the layer's device."""

    def state(self, layer: nn.Module) -> ops.WeightSource:
        """The weights as the ops take them; differentiable where something of them learns."""
        raise NotImplementedError(f"{type(self).__name__}: expected a source that defines state()")

    def narrow(self, layer: nn.Module, mask: Tensor) -> Tensor:
        """The mask without what the source itself makes 0."""
        return mask

    def save(self, layer: nn.Module, state: dict[str, Any], prefix: str) -> None:
        """Change what a state dict holds of the layer, in place."""

    def load(self, layer: nn.Module, state: dict[str, Any], prefix: str) -> None:
        """Undo `save` in a state dict that is about to be loaded."""

    def shipped(self, layer: nn.Module, mask: Tensor, put: Put) -> dict[str, Any]:
        """What an artifact holds of the weights: keys of the layer's entry; numbers are `put` into its streams.

        mask: the kept weights, on the CPU. Here 4 bytes each, or a bit where they are plus or minus one constant: they
        are stored weights to whom loads them.
        """
        values = ops.masked_weight(None, ops.Mask.all(layer.selection.device), source=self.state(layer))
        values = values.detach().cpu().contiguous()[mask]
        return {**self.shipped_as_stored(layer), "weights": put_values(values, put)}

    def shipped_as_stored(self, layer: nn.Module) -> dict[str, Any]:
        """The entry's keys for weights that load as stored ones."""
        stored = {"kind": "stored", "gradient": "masked", "layer": self.layer}
        return {"source": stored, "drawn_from": self.spec(), "trainable": False}

    @classmethod
    def received(cls, entry: dict[str, Any], mask: Tensor | None, take: Take) -> Tensor:
        """The kept weights that `shipped` put: float32 [kept]. mask: None where all are kept."""
        return take_values(entry["weights"], entry["kept"], take)

    def spec(self) -> dict:
        """A plain dict that tells this source from another; of state dicts and artifacts."""
        return {"kind": self.kind, **asdict(self)}


def without_weight(layer: nn.Module) -> None:
    """Let the layer have no weight parameter: its source makes the weights."""
    layer._parameters["weight"] = None


def stored_state(layer: nn.Module, weight: Tensor, *, through: bool = False) -> ops.WeightSource:
    """A tensor as the ops take it, without checks."""
    return ops.WeightSource("stored", layer.weight_shape, stored=weight, layer=layer.source.layer, through=through)


def with_signs(weight: Tensor, signs: Tensor) -> Tensor:
    """The weight's magnitudes with packed signs (uint8 [ceil(n / 8)], OIHW order, bit 1 = negative)."""
    negative, magnitude = ops.unpack_mask(signs, tuple(weight.shape)), weight.abs()
    return torch.where(negative, -magnitude, magnitude)


def put_values(values: Tensor, put: Put) -> dict[str, Any]:
    """Write weights, float32 [n]: 1 bit each where they are +- one constant, else 4 bytes."""
    magnitude = values.abs()
    constant = float(magnitude.max()) if values.numel() else 0.0
    zeros = (magnitude == 0).nonzero().flatten()
    if zeros.numel() > _MOST_ZEROS or not bool(((magnitude == constant) | (magnitude == 0)).all()):
        put("values", values)
        return {"as": "values"}
    negative = torch.signbit(values)
    signed = bool(negative.any())
    if signed:
        put("sign_bits", ops.pack_mask(negative))
    return {"as": "constant", "constant": constant, "signed": signed, "zeros": zeros.tolist()}


def take_values(weights: dict[str, Any], kept: int, take: Take) -> Tensor:
    """The weights that put_values wrote: float32 [kept]."""
    if weights["as"] == "values":
        return take("values", kept)
    magnitude = torch.full((kept,), weights["constant"])
    magnitude[weights["zeros"]] = 0.0
    return with_signs(magnitude, take("sign_bits", (kept + 7) // 8)) if weights["signed"] else magnitude
