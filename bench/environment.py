"""Where a number was measured: device, threads, versions, commit. Only read, never set."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """Short hash of the checkout, "+" when files differ from it, or "unknown"."""
    told = os.environ.get("HIDDENNET_COMMIT")
    if told:
        return told

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu_facts() -> dict[str, Any]:
    """Driver and clocks as found; the numbers are only read, never set."""
    query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm"
    try:
        out = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return {}
    return dict(zip(query.split(","), (part.strip() for part in out.split(",")), strict=True))


def environment(device: torch.device) -> dict[str, Any]:
    """Device, threads, versions and commit: what a number means nothing without."""
    import hiddennet
    from hiddennet import _load

    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "unset"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "unset"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "hiddennet": hiddennet.__version__,
        "kernels": _load.cuda_status,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        facts |= _gpu_facts()
    return facts


def headline(facts: Mapping[str, Any]) -> str:
    """The environment in one or two lines."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
