"""Say what this installation can do: versions, libraries, devices. `python -m hiddennet.env`."""

import argparse
import os
import platform

import torch


def _cpu_path() -> str:
    wish, found = os.environ.get("HIDDENNET_ISA", ""), torch.backends.cpu.get_cpu_capability()
    if wish == "scalar" or found == "DEFAULT":
        return "scalar"
    return "AVX2, some loops AVX-512" if found.startswith("AVX512") and wish != "avx2" else "AVX2"


def _where_measured() -> str:
    from hiddennet import tuned

    try:
        return str(tuned.cache_file())
    except RuntimeError:
        return "nowhere: this user has no home"


def _runtime() -> str:
    try:
        from hiddennet import runtime
    except ImportError as error:
        return f"not built: {error}; pip install ./runtime, or build in place with pybind11"
    return f"loaded from {os.path.dirname(runtime.__file__)}"


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
        "runtime": _runtime(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none visible",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "instructions": tuned.instructions(),
        "measured here": _where_measured(),
    }
    for number, line in enumerate(measured(), 1):
        found[f"train.amp=auto {number}"] = line
    try:
        import torchvision

        found["torchvision"] = torchvision.__version__
    except Exception as error:
        found["torchvision"] = f"does not import: {error}"
    return found


def plans() -> list[str]:
    """Which way each direction of a convolution takes on this machine, as far as that was measured; one a line."""
    from hiddennet.ops.conv_ways import KIND
    from hiddennet.tuned import Measured

    lines = []
    for key, choice in sorted(Measured.all(KIND).items()):
        times = ", ".join(f"{way} {ms:.3g} ms" for way, ms in choice.get("ms", {}).items())
        lines.append(f"{choice.get('way', '?'):<16}  {key} ({times})")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plans", action="store_true", help="how convolutions are computed here, as measured so far")


def execute(arguments: argparse.Namespace) -> int:
    if arguments.plans:
        print("\n".join(plans()) or "no convolution was measured here yet: training steps on a CPU do so")
        return 0
    found = collect()
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {value}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="hiddennet env", description="what this installation can do")
    add_arguments(parser)
    execute(parser.parse_args())
