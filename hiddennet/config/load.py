"""From a file or a name, with `extends` and overrides, to a Config, and back to YAML and a hash."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml as pyyaml
from pydantic import ValidationError

from hiddennet import outside, plugins
from hiddennet.config import families
from hiddennet.config.schema import Config, Mistakes
from hiddennet.registry import REGISTRIES, nearest, one_of
from hiddennet.settings import yaml
from hiddennet.settings.errors import ConfigError, explain, shown, unknown_key
from hiddennet.settings.section import Section, Sections


def folders() -> list[Path]:
    """The folders whose files are configs by name: the checkout's, or the installed package's."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package.parent / "configs", package / "configs") if folder.is_dir()]


def find(config: str | Path, homes: Iterable[Path] = ()) -> Path:
    """Return where a config is: its file, or FILE@VARIANT for one of a family.

    config: a path, or a name under configs/ with or without its folders; a variant is `family@variant` or
    `family-variant`. homes: files that the name stands in, whose variants and neighbours come first.
    """
    config = Path(config).expanduser() if str(config).startswith("~") else config
    homes = [families.split(home)[0] for home in homes]
    for home in homes:
        if str(config) in families.names(home):
            return families.join(home, str(config))
    places = [*(home.parent for home in homes), Path(), *folders()]
    shipped = [path for folder in folders() for path in sorted(folder.rglob("*.yml"))]
    lacking = []
    for name, variant in families.spellings(str(config)):
        direct = [place / end for place in places for end in (name, f"{name}.yml") if (place / end).is_file()]
        named = [path for path in shipped if path.stem == name.removesuffix(".yml") and path not in direct]
        having = [path for path in (*direct, *named) if not variant or variant in families.names(path)]
        if having and (having[0] in direct or len(having) == 1):
            return families.join(having[0].resolve(), variant)
        if len(having) > 1:
            shown = ", ".join(str(_name_of(path)) for path in having)
            raise ConfigError(str(config), [f"expected a name that one file has, got that of {shown}; give its folder"])
        lacking += direct or named
    if lacking and "@" in str(config):
        known = [known for path in lacking for known in families.names(path)]
        raise ConfigError(str(config), [families.unknown(variant, known)])
    at = "@" if "@" in str(config) else "-"
    ends = {path: ["", *(f"{at}{name}" for name in families.names(path))] for path in shipped}
    names = [f"{name}{end}" for path in shipped for end in ends[path] for name in (path.stem, _name_of(path))]
    mistake = f"expected a config file or a name under configs/, found none{nearest(str(config), names)}"
    raise ConfigError(str(config) or "''", [mistake])


def _name_of(path: Path) -> Path:
    """The name under configs/ of a file there."""
    return next(path.relative_to(folder).with_suffix("") for folder in folders() if path.is_relative_to(folder))


def read(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the document at `path`, a file or FILE@VARIANT, merged over the one it extends; `extends` is gone.

    Raises ConfigError for a file that cannot be read, is not a map, or extends itself.
    """
    if path in chain:
        circle = " -> ".join(str(step) for step in (*chain[chain.index(path) :], path))
        raise ConfigError(str(path), [f"extends: expected no circle, got {circle}"])
    base, layers = families.layers(path, chain[-1] if chain else None)
    document = {} if base is None else read(base, (*chain, path))
    for layer in layers:
        load_plugins(layer, path.parent, str(path))
        document = merge(document, layer)
    return document


def load_plugins(document: dict[str, Any], folder: Path, source: str) -> None:
    """Load the document's plugins, its `.py` files found from `folder` and noted in it by their whole path.

    Raises ConfigError.
    """
    outside.note_homes(document, folder)
    names = document.get("plugins")
    try:
        plugins.load_installed()
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            document["plugins"] = plugins.located(names, folder)
            plugins.load(document["plugins"])
    except plugins.PluginError as error:
        raise ConfigError(source, [str(error)]) from None


def _allow_outside(document: Mapping[str, Any], source: str) -> None:
    named = document.get("plugins", [])
    folders = (
        [name for name in named if isinstance(name, str) and name.endswith("/")] if isinstance(named, list) else []
    )
    try:
        for module in outside.modules(document):
            outside.allow(module, folders)
    except ValueError as error:
        raise ConfigError(source, [str(error)]) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any], *, leave: bool = True) -> dict[str, Any]:
    """Return `base` with the keys of `over`; maps merge key by key, and plugins add up.

    Where, with `leave`, `over` gives method, optimizer, schedule, rule or source another name, the keys of
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
        if leave and isinstance(variants, Sections) and _known(name, variants) and name != old.get("name"):
            old = {k: v for k, v in old.items() if k in variants[name].model_fields}
        elif leave and key in ("rule", "source") and _known(name, REGISTRIES[key]) and name != old.get("name"):
            old = {k: v for k, v in old.items() if k in inspect.signature(REGISTRIES[key][name]).parameters}
        merged[key] = merge(old, value, leave=leave)
    return merged


def _known(name: Any, things: Mapping[str, Any]) -> bool:
    return isinstance(name, str) and name in things


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
    if is_sweep(document):
        raise ConfigError(str(config), ["expected a config, got a sweep of several; start it with `hiddennet sweep`"])
    document.setdefault("name", families.run_name(path))
    document = merge(document, over)
    if not families.by_itself(path):
        raise ConfigError(str(config), [families.unknown("", families.names(path))])
    outside.note_homes(document, path.parent)
    return parse(document, str(config))


def is_sweep(document: Mapping[str, Any]) -> bool:
    """Whether a document is a sweep: it has a grid, or a list of runs where a config has the folder of its runs."""
    return "grid" in document or isinstance(document.get("runs"), list)


def parse(document: Mapping[str, Any], source: str = "config") -> Config:
    """Return the checked config of a document. Raises ConfigError with every mistake found.

    Plugins that are files lie where the document says, or in the working folder.
    """
    document = dict(document)
    load_plugins(document, Path.cwd(), source)
    _allow_outside(document, source)
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
    values = {key: value for key, value in values.items() if value is not None or key not in Config.sections}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for mistake in error.errors():
            cause = mistake.get("ctx", {}).get("error")
            if isinstance(cause, Mistakes):
                mistakes += cause.mistakes
        keys = values.keys() - Config.sections.keys()  # sections have been explained already
        mistakes += [said for said in explain(error, Config, "") if said.split(":", 1)[0] in keys]
        raise ConfigError(source, mistakes) from None
    if mistakes:
        raise ConfigError(source, mistakes)
    return config


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
        mistakes.append(f"{path}: expected a map of keys, got {shown(value)}")
        return None
    section, title = kinds, path
    if isinstance(kinds, Sections):
        name = value.get("name", getattr(default, "name", None))
        if not _known(name, kinds):
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
