"""Builds the CUDA runtime that runs nothing, and runs programs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from build_tools.cuda_toolkit import find_toolkit
from hiddennet import _load

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = HERE / "cudart.cpp"


def headers() -> Path | None:
    """The folder with cuda_runtime_api.h: a toolkit's, or of torch's own packages."""
    home = find_toolkit().home
    packages = Path(torch.__file__).parents[1] / "nvidia"
    places = [home / "include"] if home is not None else []
    places += [file.parent for file in packages.glob("*/include/cuda_runtime_api.h")]
    return next((place for place in places if (place / "cuda_runtime_api.h").is_file()), None)


def missing() -> str | None:
    """What it needs that is not here, in one sentence; None: nothing."""
    if _load.cuda_status != "loaded":
        return f"the kernels are not there: {_load.cuda_status}"
    if torch.cuda.is_available():
        return "a GPU is here, which runs what this runtime counts"
    if shutil.which("g++") is None or headers() is None:
        return "expected g++ and cuda_runtime_api.h to build a runtime with, got none"
    return None


def build(folder: Path) -> Path:
    """Compile it into the folder, also under the driver's name, and return the library."""
    library = folder / "libcudart_of_nothing.so"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{headers()}"]
    subprocess.run(["g++", *flags, str(SOURCE), "-o", str(library)], check=True)
    (folder / "libcuda.so.1").symlink_to(library)
    return library


def run(library: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a Python program on it: the words after `python`."""
    return execute(library, sys.executable, *command, **environment)


def execute(library: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run any program on it, at the root of the project."""
    return subprocess.run(
        list(command),
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": str(library.parent),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
