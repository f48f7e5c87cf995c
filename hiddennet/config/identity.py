"""What a run is: the keys that change its results and are not as by default. The others say where and how fast.

The schema says of each key which it is, see `place` in hiddennet.settings.section.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from hiddennet.config.load import variants
from hiddennet.config.schema import Config
from hiddennet.settings.section import Section


def is_place(field: FieldInfo) -> bool:
    """Whether a key says where or how fast, and not what."""
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and extra.get("identity") is False


def identity(section: Section) -> dict[str, Any]:
    """The keys that change results and differ from their defaults; names always."""
    found = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if is_place(field):
            continue
        if isinstance(value, Section):
            inner, default = identity(value), field.get_default(call_default_factory=True)
            if inner or default is None:
                found[key] = inner
        elif key == "name" or field.is_required() or value != field.get_default(call_default_factory=True):
            found[key] = _plain(value)
    return found


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a document by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _plain(value: Any) -> Any:
    """A value of which equal ones have equal JSON: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def digest(config: Config) -> str:
    """Return 12 hex digits that name what is computed: equal results, equal digest."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def places(kinds: Any = Config, prefix: str = "") -> set[str]:
    """The dotted keys of a config that do not change its results."""
    found = set()
    for _, section in variants("", kinds):
        found |= {f"{prefix}{key}" for key, field in section.model_fields.items() if is_place(field)}
        for key, inner in section.sections.items():
            found |= places(inner, f"{prefix}{key}.")
    return found
