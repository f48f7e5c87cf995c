"""Choices that were measured on this machine, kept between processes: one small JSON in the user's cache.

    Measured.put("plans", "conv 64x64 ...", {"plan": "library", "seconds": 0.004})
    Measured.get("plans", "conv 64x64 ...")  # in this and every later process on the same machine

A choice holds for the machine it was made on, see machine_key(). The file is a help and nothing more: where it cannot
be read or written, choices are kept for the process alone, and measured again by the next.
"""

import contextlib
import functools
import json
import os
import platform
from pathlib import Path
from typing import Any, ClassVar

import torch

from hiddennet._version import __version__
from hiddennet.files import locked, write_text

Choice = dict[str, Any]

LIMIT = 4096  # choices of a kind that the file holds: the newest
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")  # of which a plan may depend
_SWITCHES = ("HIDDENNET_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # that keep libraries from using them


def cache_file() -> Path:
    """Where choices are kept: $XDG_CACHE_HOME, or else ~/.cache, and hiddennet/measured.json below it. Raises
    RuntimeError for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "hiddennet" / "measured.json"


@functools.cache
def _processor() -> tuple[str, frozenset[str]]:
    """The processor in words (its marketing name tells little in a virtual machine), and what it can do."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip() and found:
                break
            name, _, value = line.partition(":")
            found[name.strip()] = value.strip()
    words = found.get("model name") or platform.processor() or platform.machine()
    numbers = [found[key] for key in ("cpu family", "model", "stepping") if key in found]
    return " ".join([words, "/".join(numbers)]).strip(), frozenset(found.get("flags", "").split())


def instructions() -> str:
    """The instruction sets that matter here, such as "avx2 avx512f amx_bf16", and what switches some of them off."""
    has = [name for name in _INSTRUCTIONS if name in _processor()[1]]
    switched = [f"{name}={os.environ[name]}" for name in _SWITCHES if os.environ.get(name)]
    return " ".join([*has, f"(torch: {torch.backends.cpu.get_cpu_capability()})", *switched])


def machine_key() -> str:
    """What a choice depends on besides itself: processor, instruction sets, versions of torch and of us, threads."""
    versions = f"torch {torch.__version__}, hiddennet {__version__}"
    return f"{_processor()[0]}, {instructions()}, {versions}, {torch.get_num_threads()} threads"


class Measured:
    """Choices by kind and key, of this machine as machine_key() has it at each call."""

    _own: ClassVar[dict[tuple[str, str, str], Choice]] = {}  # of this process, whatever becomes of the file

    @classmethod
    def get(cls, kind: str, key: str) -> Choice | None:
        """The choice of that kind and key, or None where none was made on this machine."""
        machine = machine_key()
        found = cls._own.get((machine, kind, key))
        if found is None:
            found = _of(_read(), machine, kind).get(key)
            if not isinstance(found, dict):
                return None
            cls._own[machine, kind, key] = found
        return dict(found)

    @classmethod
    def put(cls, kind: str, key: str, value: Choice) -> None:
        """Keep a choice: a map of plain values, as JSON has them. In the place of an earlier one."""
        machine = machine_key()
        cls._own[machine, kind, key] = value = json.loads(json.dumps(value))
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
            file = cache_file()
            with locked(file.with_name(f".{file.name}.lock")):
                everything = _read()
                choices = {**_of(everything, machine, kind), key: value}
                newest = dict(list(choices.items())[-LIMIT:])
                everything[machine] = {**_section(everything, machine), kind: newest}
                write_text(file, json.dumps(everything, indent=1) + "\n")

    @classmethod
    def all(cls, kind: str) -> dict[str, Choice]:
        """Every choice of a kind that was made on this machine, by key."""
        machine = machine_key()
        own = {key: value for (where, of, key), value in cls._own.items() if (where, of) == (machine, kind)}
        return {k: v for k, v in {**_of(_read(), machine, kind), **own}.items() if isinstance(v, dict)}


def _read() -> dict[str, Any]:
    """What the file holds; nothing where it is broken or not there."""
    try:
        found = json.loads(cache_file().read_bytes())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home, or nested too deeply
        return {}
    return found if isinstance(found, dict) else {}


def _section(everything: dict[str, Any], name: str) -> dict[str, Any]:
    found = everything.get(name)
    return found if isinstance(found, dict) else {}


def _of(everything: dict[str, Any], machine: str, kind: str) -> dict[str, Any]:
    return _section(_section(everything, machine), kind)
