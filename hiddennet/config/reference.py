"""All keys of a config with type, default and meaning, as text: what `hiddennet keys` prints."""

import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hiddennet import outside, plugins
from hiddennet.config.load import variants
from hiddennet.config.schema import Config
from hiddennet.registry import nearest, one_of
from hiddennet.settings.errors import range_of
from hiddennet.settings.section import NameOf, Sections, Values
from hiddennet.settings.yaml import write


def reference(group: str | None = None) -> str:
    """One line a key: path, type, default, meaning; one paragraph a section.

    group: only the paragraphs of a section such as `data` or `method`, or those of one thing such as `edge_popup`.
    Raises ValueError where there are none.
    """
    plugins.load_installed()
    if group is None:
        return _all()
    titles = {part: re.match(r"(\w+)(?: '([^']+)')?", part).groups() for part in _all().split("\n\n")}
    found = [part for part, names in titles.items() if group in names]
    if not found:
        known = dict.fromkeys(name for name, _ in titles.values())
        names = [*known, *(name for _, name in titles.values() if name)]
        raise ValueError(f"keys: expected {one_of(known)}, or a name of theirs, got {group!r}{nearest(group, names)}")
    return "\n\n".join(part.rstrip("\n") for part in found) + "\n"


def _all() -> str:
    lines = ["config"]
    lines += _keys(Config, [name for name in Config.model_fields if name not in Config.sections])
    for name, kinds in Config.sections.items():
        names = kinds if isinstance(kinds, Sections) else [""]
        for called, (title, section) in zip(names, variants(name, kinds), strict=True):
            meaning = (section.__doc__ or "").strip().partition("\n")[0].partition(": ")[2]
            lines += ["", f"{title}: {meaning}"]
            lines += _keys(section, section.model_fields, f"{name}.", called)
            for inner, parts in section.sections.items():
                if not isinstance(parts, Sections):  # optimisers, schedules and rules have paragraphs of their own
                    lines += _keys(parts, parts.model_fields, f"{name}.{inner}.")
    for kind in ("rule", "source"):
        for called, section in Values(kind).items():
            lines += ["", f"{section.__doc__}".replace(":", f" {called!r}:", 1)]
            lines += _keys(section, section.model_fields, f"method.{kind}.", called)
    return "\n".join(lines) + "\n"


def _keys(section: type[BaseModel], names: Iterable[str], prefix: str = "", called: str = "") -> list[str]:
    """A line a key. called: the one value that the key `name` has in a section of several."""
    lines = []
    for name in sorted(names, key=lambda name: name != "name"):
        field = section.model_fields[name]
        kind = called if called and name == "name" else _kind(field.annotation, field.metadata)
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


_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """The type in words, with the range that its metadata give."""
    origin, metadata = get_origin(annotation), list(metadata)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*more, *metadata])
    if origin is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if origin in (Union, types.UnionType):
        return " | ".join(_kind(part, metadata) for part in get_args(annotation))
    if annotation is type(None):
        return "null"
    if origin is dict:
        return "map of keys"
    if origin is list:
        return f"list of {_kind(get_args(annotation)[0])}"
    for item in metadata:
        if isinstance(item, NameOf):
            return " | ".join([*item.names, *(outside.spellings(item.names.kind) if item.names.outside else [])])
    name = _NAMES.get(annotation, re.sub(r"Section$", "", getattr(annotation, "__name__", "value")))
    return " ".join([name, range_of(metadata)]).strip()
