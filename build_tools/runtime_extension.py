"""The extension hiddennet.runtime._runtime: what csrc/runtime needs of csrc, without torch. Needs pybind11."""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "-O3",
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # generated weights are rounded as everywhere
    "-Wall",
    "-g0",
]
DECODERS = ("generate_weight", "mask_code", "redrawn_weight")  # ops that make weights out of a file


def runtime_sources() -> list[Path]:
    """The C++ files of the library, without the Python module."""
    folder = ROOT / "csrc" / "runtime"
    found = [*folder.glob("*.cpp"), *folder.glob("conv/*.cpp")]
    return sorted(found) + [ROOT / "csrc" / "ops" / op / f"{op}_cpu.cpp" for op in DECODERS]


def runtime_extension(start: Path) -> Extension:
    """The extension with its sources as seen from `start`, the folder of the setup.py that builds it."""
    import pybind11

    sources = [*runtime_sources(), ROOT / "csrc" / "runtime" / "python" / "module.cpp"]
    return Extension(
        "hiddennet.runtime._runtime",
        [os.path.relpath(path, start) for path in sources],
        include_dirs=[pybind11.get_include()],
        define_macros=[("HN_NO_TORCH", None)],
        extra_compile_args=FLAGS,
        extra_link_args=["-Wl,--exclude-libs,ALL", "-s"],
        language="c++",
    )
