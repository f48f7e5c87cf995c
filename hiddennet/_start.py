"""What is done before torch is loaded, or when it is.

A command's threads wait without spinning, and Ctrl-C ends it in a sentence: only for `hiddennet ...` and `python -m
hiddennet...`; a program that imports the package keeps what it has. `import hiddennet` alone loads no torch, and
torch.ops.hiddennet is there as soon as torch is.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads tempfile, shutil, bz2 and more, a tenth of what a process takes that runs a network
    from importlib.abc import Loader


def is_command() -> bool:
    """Whether this process was started as one of our commands, also by torchrun."""
    if sys.argv[:1] == ["-m"]:  # as runpy has it until the module is found
        return any(argument.partition(".")[0] == "hiddennet" for argument in sys.orig_argv[1:])
    return Path(next(iter(sys.argv), "")).name == "hiddennet"


def _stop(signum: int, frame: FrameType | None) -> None:
    os.write(2, b"hiddennet: stopped by SIGINT\n")
    os._exit(130)


def prepare() -> None:
    """Call before torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def begin() -> None:
    """Call when all is imported: from here on Ctrl-C is KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Then:
    """A Loader: loads a module as its own loader does, and another one after it."""

    def __init__(self, own: "Loader", then: str) -> None:
        self.own, self.then = own, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.own
        self.own.exec_module(module)
        _import(self.then)


class _WithTorch:
    """A MetaPathFinder: finds torch, once, for whoever imports it."""

    def __init__(self, then: str) -> None:
        self.then = then

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self.then)
        return spec


def _import(name: str) -> None:
    if "hiddennet._load" in sys.modules:  # it is what imports torch, and goes on
        return
    with contextlib.suppress(ImportError):  # whoever uses the package is told
        importlib.import_module(name)


def when_torch_is_imported(name: str) -> None:
    """Import a module as soon as somebody imports torch, too."""
    sys.meta_path.insert(0, _WithTorch(name))
