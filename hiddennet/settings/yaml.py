"""YAML as configs use it: YAML 1.2 numbers and booleans, no key twice. Not for any other YAML.

PyYAML follows YAML 1.1, where `1e-4` is a string, `no` is false and the later of two equal keys
wins without a word; here `1e-4` is a number, `no` is a string and a key given twice is an error.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES, MOST_VALUES = 2**22, 100_000  # of a document; beyond them it is no config

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


def _mapping(loader: yaml.Loader, node: yaml.MappingNode) -> dict:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise yaml.YAMLError(f"expected text as a key in line {line}, got {key!r:.60}; put it in quotes")
        if key in seen:
            raise yaml.YAMLError(f"the key {key!r} is given twice, again in line {line}")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_own_resolvers(_Loader)
_own_resolvers(_Dumper)
_Loader.add_constructor(_INT, lambda loader, node: int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str) -> Any:
    """Return the value of a YAML document. Raises yaml.YAMLError."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"expected at most {MOST_VALUES} values, got aliases that unfold to more")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("expected a document of a few levels, got one that is nested too deeply") from None
    except ValueError as error:  # a number of 5,000 digits, a month 13
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node holds when each alias is written out; a part of itself counts as too many."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def read(path: Path) -> Any:
    """Return the value of a YAML file. Raises OSError and yaml.YAMLError: no regular file, too large, no YAML."""
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise OSError("a folder, pipe or device")
    with open(path, "rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"expected at most {MOST_BYTES} bytes, got more")
    try:
        return _parsed(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"expected UTF-8 text, got {error}") from None


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:  # a sweep reads the file of its variants once a point and more
    return parse(text)


def write(value: Any) -> str:
    """Return `value` as YAML, keys in their order; `parse` gives it back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=100)
