"""The machine code of the kernels as the extension holds them: instructions, by kernel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import hiddennet
from build_tools.cuda_toolkit import find_toolkit
from hiddennet import _load

SOURCE = re.compile(r"^identifier = (?:.*/)?csrc/ops/(\S+)$")
FUNCTION = re.compile(r"^\s*Function : (\S+)$")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][^;]*?)\s*;")


def disassembler() -> Path | None:
    """cuobjdump: the toolkit's, one on PATH, or the one in triton's package, which comes with torch."""
    home, on_path = find_toolkit().home, shutil.which("cuobjdump")
    places = [] if home is None else [home / "bin" / "cuobjdump"]
    places += [] if on_path is None else [Path(on_path)]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return next((place for place in places if place.is_file()), None)


def library() -> Path | None:
    """The extension's kernels."""
    return next(Path(hiddennet.__file__).parent.glob("_C_cuda*.so"), None)


@cache
def missing(arch: str) -> str | None:
    """What is needed to read code of sm_`arch` and is not here, in one sentence; None: nothing."""
    if library() is None:
        return f"the kernels are not built: {_load.cuda_status}"
    if disassembler() is None:
        return "expected cuobjdump beside nvcc, on PATH or in triton's package, got none"
    held = subprocess.run([disassembler(), "-lelf", library()], check=True, capture_output=True, text=True).stdout
    return None if f"sm_{arch}." in held else f"the kernels are not built for sm_{arch}: TORCH_CUDA_ARCH_LIST"


@dataclass(frozen=True)
class Kernel:
    """One kernel's instructions: name and operands, as the disassembler writes them, without predicates."""

    name: str
    code: tuple[str, ...]

    def named(self, pattern: str) -> list[str]:
        """The instructions whose first word the pattern matches from its beginning."""
        return [line for line in self.code if re.match(pattern, line.split()[0])]


@cache
def kernels(arch: str) -> dict[str, tuple[Kernel, ...]]:
    """The extension's kernels for sm_`arch`, by their source under csrc/ops."""
    command = [disassembler(), "-arch", f"sm_{arch}", "-sass", library()]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, dict[str, list[str]]] = {}
    functions: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if source := SOURCE.match(line):
            functions = found.setdefault(source.group(1), {})
        elif function := FUNCTION.match(line):
            name = function.group(1)
            functions[name] = []
        elif instruction := INSTRUCTION.match(line):
            functions[name].append(instruction.group(1))
    return {
        source: tuple(Kernel(name, tuple(code)) for name, code in functions.items())
        for source, functions in found.items()
    }
