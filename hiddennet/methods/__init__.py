"""The methods by name: one paper or family a file, which registers what it has. A new one is a new file here."""

import importlib
import pkgutil

from hiddennet.methods.base import Method, MethodSection, Setting
from hiddennet.registry import REGISTRIES

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

METHODS = REGISTRIES["method"]

__all__ = ["METHODS", "Method", "MethodSection", "Setting", "create"]


def create(setting: Setting) -> Method:
    """The method that the setting's section names."""
    return METHODS.find(setting.method.name)(setting)
