"""Names with a colon, of what nobody registered: a library's models, and functions of a user's modules.

    model.name: timm:resnet26t, torchvision:regnet_y_400mf, my.module:build
    data.name: my.module:read

A module lies beside the config, in the working folder or on sys.path. It is only imported where a config or --plugins
names it: an artifact that names one runs nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hiddennet import plugins
from hiddennet.registry import REGISTRIES, nearest

LIBRARIES = {"model": ("timm", "torchvision"), "data": ()}
finders: dict[str, Callable[[str, str], Any]] = {}  # a library's thing of a kind, by the library's name and its own
_homes: dict[str, Path | None] = {}  # the modules that somebody named, and the folder each was found in


def spellings(kind: str) -> list[str]:
    """How such names are written."""
    return [*(f"{library}:NAME" for library in LIBRARIES[kind]), "MODULE:FUNCTION"]


def modules(document: Mapping[str, Any]) -> Iterator[str]:
    """The user's modules that the `model.name` and `data.name` of a config's document are of."""
    for kind, libraries in LIBRARIES.items():
        section = document.get(kind)
        name = section.get("name") if isinstance(section, Mapping) else None
        module = name.partition(":")[0] if isinstance(name, str) and ":" in name else ""
        if module and module not in libraries:
            yield module


def note_homes(document: dict[str, Any], folder: Path) -> None:
    """Add `folder` to the document's plugins if one of its modules lies there and in none that it names already."""
    named = document.get("plugins", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return  # refused elsewhere
    for module in modules(document):
        if not any(_has(Path(name), module) for name in named) and _has(folder, module):
            named = document["plugins"] = [*named, f"{folder.resolve()}/"]


def allow(module: str, folders: list[str]) -> None:
    """Somebody named this module; it is in the first of these folders that has it, or on sys.path.

    Raises ValueError where this process knows another module of that name already.
    """
    home = next((Path(folder) for folder in folders if _has(Path(folder), module)), None)
    before = _homes.get(module)
    if home is not None and before not in (None, home):
        raise ValueError(f"expected one module {module} in a process, got those of {before} and {home}; rename one")
    _homes[module] = home or before


def find(kind: str, name: str) -> Any:
    """What a name with a colon is of: a callable as a user registers it. Raises ValueError."""
    origin, _, inner = name.partition(":")
    if origin in LIBRARIES[kind]:
        return finders[kind](origin, inner)
    module, found = _import(kind, name, origin), None
    for part in inner.split("."):
        found = getattr(module if found is None else found, part, None)
        if found is None:
            break
    if not callable(found):
        known = [known for known, thing in vars(module).items() if callable(thing) and not known.startswith("_")]
        raise ValueError(f"expected the name of a function or class in {origin}, got {name!r}{nearest(inner, known)}")
    return found


def _import(kind: str, name: str, module: str) -> Any:
    if module not in _homes and module in plugins.named:
        allow(module, [*(folder for folder in plugins.named if folder.endswith("/")), str(Path.cwd())])
    if module not in _homes:
        raise ValueError(
            f"expected a module that a config or --plugins names, got {name!r}; if you trust it, give --plugins "
            f"{module}{nearest(module, LIBRARIES[kind])}"
        )
    home = _homes[module]
    try:
        found = plugins.import_from(module, home)
    except Exception as error:  # a user's code may raise anything
        reason = " ".join(str(error).split()) or "no reason given"
        where = "beside the config, in the working folder and on sys.path"
        raise ValueError(
            f"expected {', '.join(spellings(kind))}, got {name!r}, whose module raises {type(error).__name__}: "
            f"{reason} (looked for {where}){nearest(module, LIBRARIES[kind])}"
        ) from error
    if home is not None and home.resolve() not in _origin(found).parents:
        raise ValueError(
            f"expected the module {module} of {home}, got that of {_origin(found)}, imported before; rename it"
        )
    return found


def _origin(module: Any) -> Path:
    return Path(getattr(module, "__file__", None) or next(iter(module.__path__))).resolve()


def _has(folder: Path, module: str) -> bool:
    """Whether a module lies in a folder, perhaps in a package."""
    place = folder.joinpath(*module.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


for _kind in LIBRARIES:
    REGISTRIES[_kind].outside = lambda name, kind=_kind: find(kind, name)
