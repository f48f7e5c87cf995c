"""Plain numbers: what rules and sources are made with, whatever kind of number it came as."""

from __future__ import annotations

import dataclasses
from numbers import Integral, Real
from typing import Any


def _plain(value: Any) -> Any:
    """A numpy number, or a tensor of one element, as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def plain_fields(self: Any) -> None:
    """Turn the numbers of a frozen dataclass into Python's, in place, by the types of its fields.

    So that state dicts and artifacts hold them as they are. Raises ValueError for what is no such number.
    """
    for field in dataclasses.fields(self):
        kind, _, optional = getattr(field.type, "__name__", str(field.type)).partition(" | ")
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
