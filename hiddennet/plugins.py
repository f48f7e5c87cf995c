"""A user's own code: modules and files that register methods, models, data sets and more when they are loaded.

A name that ends with `/` is a folder whose modules may be imported. A config names them with `plugins:`; installed
packages announce theirs in the entry point group `hiddennet.plugins`.
"""

import argparse
import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

GROUP = "hiddennet.plugins"
named: list[str] = []  # what was asked for so far


class PluginError(ValueError):
    """A plugin that is not there, or that fails while it is loaded."""


def located(names: Iterable[str], folder: Path) -> list[str]:
    """The names of plugins with those of `.py` files and folders made absolute; relative ones lie in `folder`."""
    return [_located(name, folder) if name.endswith((".py", "/")) else name for name in names]


def _located(name: str, folder: Path) -> str:
    return f"{(folder / Path(name).expanduser()).resolve()}{'/' if name.endswith('/') else ''}"


def load(names: Iterable[str]) -> None:
    """Load modules, also of the working folder, and `.py` files, each once. Raises PluginError in one sentence."""
    for name in names:
        named.append(name)
        _guarded(name, _load_file if name.endswith(".py") else _add_folder if name.endswith("/") else import_from)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that look at more than a config."""
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="NAME", help="modules and .py files to load, as a config's plugins"
    )


def load_named(arguments: argparse.Namespace) -> None:
    """Load what is installed, and what the argument names."""
    load_installed()
    load(located(arguments.plugins, Path.cwd()))


@functools.cache
def load_installed() -> None:
    """Load what installed packages announce, once. Raises PluginError."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = f" of the package {point.dist.name}" if point.dist is not None else ""
        _guarded(f"{point.value}{package}", lambda _, point=point: point.load())


def import_from(name: str, folder: Path | None = None) -> ModuleType:
    """Import a module, of that folder before others; else of sys.path or the working folder."""
    _add_folder(str(Path.cwd()))  # as `python -m` has it, and the console script has not
    if folder is None:
        return importlib.import_module(name)
    _add_folder(str(folder))  # for what it imports later
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def _add_folder(name: str) -> None:
    folder = str(Path(name))
    if not Path(folder).is_dir():
        raise FileNotFoundError("there is no such folder")
    if folder not in sys.path:
        sys.path.append(folder)


def _load_file(name: str) -> None:
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    # other files of this name are other modules; loaded under one name, it is loaded once
    module = f"hiddennet_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module, path)
    sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[module])
    except BaseException:
        del sys.modules[module]
        raise


def _guarded(name: str, action) -> None:
    try:
        action(name)
    except Exception as error:  # a user's code may raise anything
        reason = " ".join(str(error).split()) or "no reason given"
        raise PluginError(
            f"plugins: expected a module or .py file that can be loaded, got {name}, which raises "
            f"{type(error).__name__}: {reason}"
        ) from error
