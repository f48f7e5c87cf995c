"""Build the wheel hiddennet-runtime out of hiddennet/runtime and csrc/runtime, a folder above."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent.resolve()
sys.path.insert(0, str(HERE.parent))
from build_tools.runtime_extension import runtime_extension  # noqa: E402

VERSION: dict[str, str] = {}
exec((HERE.parent / "hiddennet" / "_version.py").read_text(encoding="utf-8"), VERSION)

setup(
    version=VERSION["__version__"],
    packages=["hiddennet.runtime"],  # no hiddennet/__init__.py, which is the main wheel's: both go beside each other
    package_dir={"hiddennet.runtime": "../hiddennet/runtime"},
    ext_modules=[runtime_extension(HERE)],
)
