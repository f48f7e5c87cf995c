"""Find the CUDA toolkit: by CUDA_HOME, by asking the nvcc on PATH (a wrapper script too), or in the usual folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Toolkit:
    """`home` is the folder that holds bin/nvcc and include/cuda_runtime.h; None with a `reason` when there is none."""

    home: Path | None
    reason: str
    nvtx: Path | None  # the include folder with nvtx3/nvtx3.hpp


def _is_home(folder: Path) -> bool:
    return (folder / "include" / "cuda_runtime.h").is_file() and (folder / "bin" / "nvcc").exists()


def _home_by_nvcc(nvcc: str) -> Path | None:
    """The folder nvcc itself works in: `nvcc --dryrun` prints it as TOP, whatever wraps the call."""
    answer = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
    found = re.search(r"^#\$ TOP=(.+)$", answer.stderr, re.MULTILINE)
    return Path(found.group(1).strip()).resolve() if found else None


def _candidates() -> list[Path]:
    folders = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        by_nvcc = _home_by_nvcc(nvcc)
        folders += [by_nvcc] if by_nvcc is not None else []
        folders.append(Path(nvcc).resolve().parent.parent)
    folders.append(Path("/usr/local/cuda"))
    return folders


def find_toolkit() -> Toolkit:
    """Return the first toolkit that has its compiler and its headers."""
    looked = _candidates()
    for folder in looked:
        if _is_home(folder):
            nvtx = folder / "include"
            has_nvtx = (nvtx / "nvtx3" / "nvtx3.hpp").is_file()
            return Toolkit(folder, f"found at {folder}", nvtx if has_nvtx else None)
    places = ", ".join(dict.fromkeys(str(folder) for folder in looked))
    return Toolkit(None, f"no CUDA toolkit with include/cuda_runtime.h was found (looked in {places})", None)
