"""From a file or a name, with `extends` and overrides, to a Config, and back to YAML and a hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml as pyyaml
from pydantic import ValidationError

from hiddennet import plugins
from hiddennet.config.schema import Config, Mistakes
from hiddennet.registry import nearest, one_of
from hiddennet.settings import yaml
from hiddennet.settings.errors import ConfigError, explain, unknown_key
from hiddennet.settings.section import Section, Sections


def folders() -> list[Path]:
    """The folders whose files are configs by name: the checkout's, or the installed package's."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package.parent / "configs", package / "configs") if folder.is_dir()]


def find(config: str | Path) -> Path:
    """Return the file of a config: a path, or a name under configs/ with or without its folders."""
    given = Path(config)
    candidates = [given, given.with_name(given.name + ".yml")]
    for folder in folders():
        candidates += [folder / given, folder / f"{given}.yml"]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    named = [path for folder in folders() for path in sorted(folder.rglob("*.yml"))]
    stem = str(given).removesuffix(".yml")
    same = [path for path in named if path.stem == stem]
    if len(same) == 1:
        return same[0].resolve()
    names = [path.stem for path in named]
    names += [str(path.relative_to(f).with_suffix("")) for f in folders() for path in f.rglob("*.yml")]
    mistake = f"expected a config file or a name under configs/, found none{nearest(stem, names)}"
    raise ConfigError(str(config), [mistake])


def read(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the document at `path` merged over the one it extends; `extends` is gone.

    Raises ConfigError for a file that cannot be read, is not a map, or extends itself.
    """
    if path in chain:
        circle = " -> ".join(str(step) for step in (*chain[chain.index(path) :], path))
        raise ConfigError(str(path), [f"extends: expected no circle, got {circle}"])
    try:
        document = yaml.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(chain[-1]), [f"extends: expected a file at {path}, got none"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"expected a readable text file, got {error}"]) from None
    except pyyaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise ConfigError(str(path), [f"expected YAML, got a mistake in it: {text}"]) from None
    if document is None:
        document = {}
    if not isinstance(document, Mapping):
        raise ConfigError(str(path), [f"expected a map of keys, got {document!r:.60}"])
    document = dict(document)
    load_plugins(document, path.parent, str(path))
    base = document.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str):
        raise ConfigError(str(path), [f"extends: expected the path of one file, got {base!r}"])
    return merge(read((path.parent / base).resolve(), (*chain, path)), document)


def load_plugins(document: dict[str, Any], folder: Path, source: str) -> None:
    """Load the document's plugins, its `.py` files found from `folder` and noted in it by their whole path.

    Raises ConfigError.
    """
    names = document.get("plugins")
    try:
        plugins.load_installed()
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            document["plugins"] = plugins.located(names, folder)
            plugins.load(document["plugins"])
    except plugins.PluginError as error:
        raise ConfigError(source, [str(error)]) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any], *, leave: bool = True) -> dict[str, Any]:
    """Return `base` with the keys of `over`; maps merge key by key, and plugins add up.

    Where, with `leave`, `over` gives method, optimizer or schedule another name, the keys of
    `base` that the new one does not have are left behind: they spoke of the old one.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "plugins" and isinstance(old, list) and isinstance(value, list):
            merged[key] = list(dict.fromkeys([*old, *value]))
            continue
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            merged[key] = value
            continue
        variants = Config.sections.get(key)
        name = value.get("name", old.get("name"))
        if leave and isinstance(variants, Sections) and name in variants and name != old.get("name"):
            old = {k: v for k, v in old.items() if k in variants[name].model_fields}
        merged[key] = merge(old, value, leave=leave)
    return merged


def overrides_document(overrides: Iterable[str]) -> dict[str, Any]:
    """Return the map that `key.path=value` arguments stand for; values are read as YAML."""
    document: dict[str, Any] = {}
    mistakes = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            mistakes.append(f"{override}: expected key=value, such as optimizer.lr=0.05")
            continue
        try:
            value = yaml.parse(text)
        except pyyaml.YAMLError as error:
            mistakes.append(f"{key}: expected a YAML value, got {text!r} ({type(error).__name__})")
            continue
        for part in reversed(path):
            value = {part: value}
        document = merge(document, value, leave=False)
    if mistakes:
        raise ConfigError("command line", mistakes)
    load_plugins(document, Path.cwd(), "command line")
    return document


def load(config: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Return the checked config of a file or a name under configs/, `key.path=value` on top.

    Raises ConfigError with every mistake found, before anything runs.
    """
    over, path = overrides_document(overrides), find(config)  # whose plugins the file may count on
    document = read(path)
    if "grid" in document or isinstance(document.get("runs"), list):
        raise ConfigError(str(config), ["expected a config, got a sweep of several; start it with `hiddennet sweep`"])
    document.setdefault("name", path.stem)
    return parse(merge(document, over), str(config))


def parse(document: Mapping[str, Any], source: str = "config") -> Config:
    """Return the checked config of a document. Raises ConfigError with every mistake found.

    Plugins that are files lie where the document says, or in the working folder.
    """
    document = dict(document)
    load_plugins(document, Path.cwd(), source)
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in Config.model_fields:
            mistakes.append(unknown_key(key, value, "a config", Config.model_fields, _home(key)))
        elif key in Config.sections:
            values[key] = _section(key, Config.sections[key], Config.model_fields[key].default, value, mistakes)
        else:
            values[key] = value
    required = [name for name, field in Config.model_fields.items() if field.is_required()]
    for name in required:
        if name not in document:
            meaning = Config.model_fields[name].description or f"the section {name!r}"
            mistakes.append(f"{name}: expected a value, got none; it is {meaning}")
    values = {key: value for key, value in values.items() if value is not None}
    try:
        return _finish(Config.model_validate(values), mistakes, source)
    except ValidationError as error:
        for mistake in error.errors():
            cause = mistake.get("ctx", {}).get("error")
            if isinstance(cause, Mistakes):
                mistakes += cause.mistakes
        mistakes += _top_level(error, values)
        raise ConfigError(source, mistakes) from None


def _finish(config: Config, mistakes: list[str], source: str) -> Config:
    if mistakes:
        raise ConfigError(source, mistakes)
    return config


def _top_level(error: ValidationError, values: Mapping[str, Any]) -> list[str]:
    """The mistakes of keys that are not sections (those have been explained already)."""
    return [
        sentence
        for sentence in explain(error, Config, "")
        if sentence.split(":", 1)[0] in values and sentence.split(":", 1)[0] not in Config.sections
    ]


def _home(key: str, here: str = "") -> str:
    """Say where a key that is unknown in section `here` belongs, if it does anywhere."""
    homes, titles = [], []
    for name, kinds in Config.sections.items():
        owners = [title for title, section in variants(name, kinds) if key in section.model_fields]
        if owners and name == here:
            titles = owners
        elif owners:
            homes.append(f"{name}.{key}")
    if titles:
        return f"it is a key of {', '.join(titles)}"
    return f"did you mean {' or '.join(homes)}?" if homes else ""


def variants(key: str, kinds: Any) -> list[tuple[str, type[Section]]]:
    """What a key may hold of sections: what each is called, and its class."""
    if isinstance(kinds, Sections):
        return [(kinds.title(name), section) for name, section in kinds.items()]
    return [(key, kinds)]


def _section(path: str, kinds: Any, default: Any, value: Any, mistakes: list[str]) -> Section | None:
    """Return the checked section at `path`, or None after adding its mistakes.

    kinds: the section's class, or Sections by `name`; default: what the section is where the config has none.
    """
    if not isinstance(value, Mapping):
        mistakes.append(f"{path}: expected a map of keys, got {value!r}")
        return None
    section, title = kinds, path
    if isinstance(kinds, Sections):
        name = value.get("name", getattr(default, "name", None))
        if name not in kinds:
            got = "none" if name is None else repr(name)
            mistakes.append(f"{path}.name: expected {one_of(kinds)}, got {got}{nearest(name, kinds)}")
            return None
        section, title, value = kinds[name], kinds.title(name), {"name": name, **value}
    before = len(mistakes)
    unknown = [name for name in value if name not in section.model_fields]
    for name in unknown:
        home = _home(str(name), path)
        mistakes.append(unknown_key(f"{path}.{name}", value[name], title, section.model_fields, home))
    known = {name: item for name, item in value.items() if name not in unknown}
    for name, inner in section.sections.items():
        if known.get(name) is not None:
            known[name] = _section(f"{path}.{name}", inner, section.model_fields[name].default, known[name], mistakes)
            if known[name] is None:
                del known[name]
    try:
        checked = section.model_validate(known)
    except ValidationError as error:
        mistakes += explain(error, section, f"{path}.")
        return None
    return None if len(mistakes) > before else checked


def dump(config: Config) -> str:
    """Return the resolved config as YAML; `parse` of it is the same config."""
    document = config.model_dump(mode="json")
    for key, value in document.items():
        if isinstance(value, dict) and "name" in value:
            document[key] = {"name": value["name"], **value}
    return yaml.write(document)
