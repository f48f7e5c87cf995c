"""The committed table: what a training step of each method asks of the device, in the eager run and under capture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

PATH = Path(__file__).resolve().parent / "steps.json"
COMMAND = "python -m tests.cuda_host"
THEIRS = "kernel: torch"


def minor() -> str:
    """The version of torch that how many kernels of its own a step has depends on."""
    return ".".join(torch.__version__.split(".")[:2])


def write(steps: dict[str, Any]) -> None:
    """Replace the table."""
    PATH.write_text(json.dumps({"torch": minor(), "steps": steps}, indent=1) + "\n")


def differences(steps: dict[str, Any]) -> list[str]:
    """Where these counts are not the table's, a line each. Torch's own kernels count under the table's torch alone."""
    expected = json.loads(PATH.read_text())
    ignored = set() if expected["torch"] == minor() else {THEIRS}
    found = []
    for name in {**expected["steps"], **steps}:
        was, now = expected["steps"].get(name, {}), steps.get(name, {})
        for kind in ("step", "captured", "replayed"):
            old, new = was.get(kind, {}), now.get(kind, {})
            found += [
                f"{name}, {kind}: {what}: expected {old.get(what, 0)}, got {new.get(what, 0)}"
                for what in {**old, **new}
                if what not in ignored and old.get(what, 0) != new.get(what, 0)
            ]
    return found
