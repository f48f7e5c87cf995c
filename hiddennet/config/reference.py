"""All keys of a config with type, default and meaning, as text: what `hiddennet keys` prints."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hiddennet.config.schema import Config
from hiddennet.config.yaml import write
from hiddennet.methods.section import NameOf


def reference() -> str:
    """One line a key: path, type, default, meaning; one paragraph a section."""
    lines = ["config"]
    lines += _keys(Config, [name for name in Config.model_fields if name not in Config.sections])
    for name, section in Config.sections.items():
        variants = section.values() if isinstance(section, dict) else (section,)
        for variant in variants:
            meaning = (variant.__doc__ or "").strip().partition(": ")[2]
            lines += ["", f"{variant.title}: {meaning}"]
            lines += _keys(variant, variant.model_fields, f"{name}.")
            for inner, kinds in variant.sections.items():
                if not isinstance(kinds, dict):  # optimisers and schedules have paragraphs of their own
                    lines += _keys(kinds, kinds.model_fields, f"{name}.{inner}.")
    return "\n".join(lines) + "\n"


def _keys(section: type[BaseModel], names: Iterable[str], prefix: str = "") -> list[str]:
    lines = []
    for name in sorted(names, key=lambda name: name != "name"):
        field = section.model_fields[name]
        kind = _kind(field.annotation, field.metadata)
        default = "required" if field.is_required() else _default(field)
        meaning = f": {field.description}" if field.description else ""
        lines.append(f"  {prefix}{name} ({kind}; {default}){meaning}")
    return lines


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):  # a section in a section: told by its name
        value = getattr(value, "name", "a map of keys")
    text = str(value) if isinstance(value, list) else write(value)
    return f"default {text.strip().removesuffix('...').strip()}"


_BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """The type in words, with the range that its metadata give."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*more, *metadata])
    if origin is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if origin in (Union, types.UnionType):
        return " | ".join(_kind(part, metadata) for part in get_args(annotation))
    if annotation is type(None):
        return "null"
    if origin is list:
        return f"list of {_kind(get_args(annotation)[0])}"
    for item in metadata:
        if isinstance(item, NameOf):
            return " | ".join(item.names)
    bounds = [
        f"{word} {getattr(item, key):g}"
        for item in _flat(metadata)
        for key, word in _BOUNDS
        if getattr(item, key, None) is not None
    ]
    name = _NAMES.get(annotation, re.sub(r"Section$", "", getattr(annotation, "__name__", "value")))
    return " ".join([name, " and ".join(bounds)]).strip()


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for item in metadata:
        yield from _flat(item.metadata) if isinstance(item, FieldInfo) else (item,)
