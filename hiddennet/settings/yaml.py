"""YAML as configs use it: YAML 1.2 numbers and booleans, no key twice. Not for any other YAML.

PyYAML follows YAML 1.1, where `1e-4` is a string, `no` is false and the later of two equal keys
wins without a word; here `1e-4` is a number, `no` is a string and a key given twice is an error.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_BOOL, _FLOAT, _INT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the rules above."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what _Loader would not read back as a string."""


_REPLACED = (_BOOL, _FLOAT, _INT)
_PATTERNS = (
    (_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    (_INT, re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    (
        _FLOAT,
        re.compile(
            r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
            r"|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
)


def _own_resolvers(cls: type) -> None:
    cls.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in _REPLACED]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern, first in _PATTERNS:
        cls.add_implicit_resolver(tag, pattern, list(first))


def _integer(loader: yaml.Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _mapping(loader: yaml.Loader, node: yaml.MappingNode) -> dict:
    seen: set = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.YAMLError(f"the key {key!r} is given twice, again in line {line}")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_own_resolvers(_Loader)
_own_resolvers(_Dumper)
_Loader.add_constructor(_INT, _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str) -> Any:
    """Return the value of a YAML document. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def write(value: Any) -> str:
    """Return `value` as YAML, keys in their order; `parse` gives it back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=100)
