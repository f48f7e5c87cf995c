"""Say what this installation can do: versions, libraries, devices. `python -m hiddennet.env`."""

from __future__ import annotations

import os
import platform

import torch


def _cpu_path() -> str:
    wish, found = os.environ.get("HIDDENNET_ISA", ""), torch.backends.cpu.get_cpu_capability()
    if wish == "scalar" or found == "DEFAULT":
        return "scalar"
    return "AVX2, some loops AVX-512" if found.startswith("AVX512") and wish != "avx2" else "AVX2"


def collect() -> dict[str, str]:
    """Return what is installed and what works, one short sentence a key."""
    from hiddennet import _load, tuned
    from hiddennet._version import __version__
    from hiddennet.train.precision import measured

    found = {
        "hiddennet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda or "none (a CPU build)",
        "_C (CPU)": f"loaded, {_cpu_path()} path, {torch.get_num_threads()} threads",
        "_C_cuda (kernels)": _load.cuda_status,
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none visible",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "instructions": tuned.instructions(),
        "measured here": str(tuned.cache_file()),
    }
    for number, line in enumerate(measured(), 1):
        found[f"train.amp=auto {number}"] = line
    try:
        import torchvision

        found["torchvision"] = torchvision.__version__
    except Exception as error:
        found["torchvision"] = f"does not import: {error}"
    return found


def main() -> None:
    """Print the table."""
    found = collect()
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
