"""What the header of an artifact may say, key by key: checked whole before anything is made or changed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from hiddennet.container import ArtifactError
from hiddennet.ops.checks import MAX_ELEMENTS
from hiddennet.ops.mask_code import is_unheld

MOST_UNHELD = 2**28  # weights that a file of a few bytes may ask for: 1 GiB
_OURS = ("generated", "redrawn", "flipped", "activated", "stored", "wiring")
_STATE = "state."

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Size = Annotated[int, Field(ge=1, le=MAX_ELEMENTS)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Source(_Part):
    """A recipe of weights; a source of one's own may have more keys."""

    model_config = ConfigDict(extra="allow")
    kind: str
    init: str | None = None
    seed: Count = 0
    layer: Count | None = None
    mode: str = ""
    nonlinearity: str = ""
    scale_fan: bool = False
    redraw: Count = 0
    gain: Number = 1.0


class _Weights(_Part):
    """How kept weights are held; a source of one's own may have a way of its own."""

    model_config = ConfigDict(extra="allow")
    held: str = Field(alias="as")
    constant: Number = 0.0
    signed: bool = False
    zeros: list[Count] = []
    bytes: Literal[1, 2] = 1
    scale: Number = 1.0


class _Layer(_Part):
    """An entry of `layers`; a source of one's own may add keys."""

    model_config = ConfigDict(extra="allow")
    name: str
    kind: str
    shape: Annotated[list[Size], Field(min_length=1, max_length=5)]
    source: _Source
    rule: dict[str, Any] | None = None
    reveals: Literal["mask", "all", "expectation"]
    kept: Count
    code: Annotated[int, Field(ge=1, le=MAX_ELEMENTS)] | None = None
    scale: Number | None = None
    drawn_from: _Source | None = None
    trainable: bool = False
    weights: _Weights | None = None

    @model_validator(mode="after")
    def _fits(self) -> _Layer:
        drawn_from = self.drawn_from or self.source
        if self.__pydantic_extra__ and drawn_from.kind in _OURS:
            raise ValueError(f"unknown key {next(iter(self.__pydantic_extra__))!r}")
        if self.elements > MAX_ELEMENTS or self.kept > self.elements:
            raise ValueError(f"shape {self.shape} with {self.kept} weights kept")
        if self.reveals != "mask" and self.kept != self.elements:
            raise ValueError(f"kept {self.kept} of {self.elements} where all are")
        if self.code is not None and self.reveals != "mask":
            raise ValueError("code: a mask that the layer has not")
        if self.source.kind == "generated" and self.scale is None:
            raise ValueError("scale: a number is required")
        if self.source.kind in ("stored", "wiring") and self.weights is None and drawn_from.kind in _OURS:
            raise ValueError("weights: a map is required")
        if self.weights is not None and any(place >= self.kept for place in self.weights.zeros):
            raise ValueError(f"weights.zeros: a place beyond the {self.kept} kept")
        return self

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def unheld(self) -> int:
        """Weights of which the file holds no bit: all kept, and made from a seed or of one constant; of a mask whose
        code is next to nothing."""
        if self.code is not None and is_unheld(self.elements, self.code):
            return self.elements
        weights = self.weights
        held = weights is not None and (weights.held != "constant" or weights.signed)
        return self.elements if self.reveals == "all" and not held else 0


class _Common(_Part):
    checksum: str = ""
    format_version: Annotated[int, Field(ge=1)] = 1
    model: dict[str, Any] | None
    method: str | None
    config_hash: str | None
    hidden_weights: Count
    dense_bytes: Count
    metadata: dict[str, Any]
    graph: dict[str, Any] | None = None


class _Header(_Common):
    made_by: str = Field(alias="class")
    versions: dict[str, str]
    layers: list[_Layer]


class _Product(_Part):
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_ELEMENTS)]], Field(min_length=2, max_length=2)]
    dense: bool
    stored: Literal["weight", "places"]


class _Compact(_Common):
    kind: Literal["compact"]
    kept: Count
    layers: Annotated[list[Any], Field(max_length=0)]
    spec: dict[str, Any]
    products: dict[str, _Product]


def check(header: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str | os.PathLike) -> None:
    """Compare the header with what one may say, and its sums with the tensors.

    Raises ArtifactError, which names the first key that is not as it should be, and `where`.
    """
    compact = header.get("kind") == "compact"
    try:
        found = (_Compact if compact else _Header).model_validate(dict(header))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "header"
        _refuse(where, f"{key}: {first['msg'].removeprefix('Value error, ')}")
    if not compact:
        _check_sums(found, tensors, where)


def _check_sums(header: _Header, tensors: Mapping[str, Tensor], where: str | os.PathLike) -> None:
    names = [layer.name for layer in header.layers]
    if len(set(names)) < len(names):
        _refuse(where, "layers: a name that is given twice")
    weights = sum(layer.elements for layer in header.layers)
    state = sum(t.numel() * t.element_size() for name, t in tensors.items() if name.startswith(_STATE))
    for key, wanted in (("hidden_weights", weights), ("dense_bytes", 4 * weights + state)):
        if getattr(header, key) != wanted:
            _refuse(where, f"{key}: {getattr(header, key)} where its layers and tensors make {wanted}")
    unheld = sum(layer.unheld for layer in header.layers)
    if (header.model is not None or any(layer.code for layer in header.layers)) and unheld > MOST_UNHELD:
        raise ArtifactError(
            f"artifact: expected {where} to hold a bit or more of all but {MOST_UNHELD} weights, got {unheld} that it "
            "holds nothing of; make the model and call load(path, model)"
        )


def _refuse(where: str | os.PathLike, got: str) -> None:
    raise ArtifactError(
        f"artifact: expected a complete header in {where}, got one that cannot be used ({got}); export it again"
    )
