"""The machine code that nvcc makes of a kernel: its instructions, by kernel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from build_tools.cuda_toolkit import find_toolkit

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", "-DHN_NO_TORCH")
FUNCTION = re.compile(r"^\s*Function : (\S+)$")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][^;]*?)\s*;")


def nvcc() -> Path | None:
    """The compiler of the toolkit that builds the kernels."""
    home = find_toolkit().home
    return None if home is None else home / "bin" / "nvcc"


def disassembler() -> Path | None:
    """cuobjdump: the toolkit's, one on PATH, or the one in triton's package, which comes with torch."""
    compiler, on_path = nvcc(), shutil.which("cuobjdump")
    places = [] if compiler is None else [compiler.parent / "cuobjdump"]
    places += [] if on_path is None else [Path(on_path)]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return next((place for place in places if place.is_file()), None)


def missing(arch: str) -> str | None:
    """What is needed for code of sm_`arch` and is not here, in one sentence; None: nothing."""
    compiler = nvcc()
    if compiler is None:
        return "expected nvcc to compile the kernels with, got none"
    if disassembler() is None:
        return "expected cuobjdump beside nvcc, on PATH or in triton's package, got none"
    known = subprocess.run([compiler, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    number = arch.rstrip("af")
    return None if f"compute_{number}" in known.split() else f"expected an nvcc that knows sm_{number}, got an older"


@dataclass(frozen=True)
class Kernel:
    """One kernel's instructions: name and operands, as the disassembler writes them, without predicates."""

    name: str
    code: tuple[str, ...]

    def named(self, pattern: str) -> list[str]:
        """The instructions whose first word the pattern matches from its beginning."""
        return [line for line in self.code if re.match(pattern, line.split()[0])]


@cache
def kernels(source: str, arch: str, folder: Path) -> tuple[Kernel, ...]:
    """The kernels of a source under csrc/ops, compiled for sm_`arch` in the folder."""
    cubin = folder / f"{Path(source).stem}.sm_{arch}.cubin"
    target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    command = [nvcc(), *FLAGS, target, "-cubin", ROOT / "csrc" / "ops" / source, "-o", cubin]
    subprocess.run(command, check=True, capture_output=True, text=True)
    text = subprocess.run([disassembler(), "-sass", cubin], check=True, capture_output=True, text=True).stdout
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if function := FUNCTION.match(line):
            name = function.group(1)
            found[name] = []
        elif instruction := INSTRUCTION.match(line):
            found[name].append(instruction.group(1))
    return tuple(Kernel(name, tuple(code)) for name, code in found.items())
