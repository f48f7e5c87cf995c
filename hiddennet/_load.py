"""Load the extension's two libraries: _C always, _C_cuda where torch has CUDA and the kernels were built."""

import ctypes
import importlib
import warnings
from pathlib import Path

import torch

HERE = Path(__file__).parent
_BUILD = "build it with `python setup.py build_ext --inplace` or `pip install --no-build-isolation -e .`"

cuda_status = "not loaded"


def _load_cpu() -> None:
    try:
        importlib.import_module("hiddennet._C")
    except ImportError as error:
        if not list(HERE.glob("_C.*")):
            raise ImportError(f"hiddennet: expected the extension hiddennet._C, found none; {_BUILD}") from None
        raise ImportError(
            f"hiddennet: hiddennet._C does not load with torch {torch.__version__}: {error}; "
            f"torch >= 2.11 is needed, {_BUILD}"
        ) from error


def _load_cuda() -> str:
    """Load _C_cuda and return what happened, in one sentence."""
    if torch.version.cuda is None:
        return f"not loaded: torch {torch.__version__} is a build without CUDA"
    if not list(HERE.glob("_C_cuda.*")):
        return f"not built: hiddennet._C_cuda is missing; {_BUILD} where a CUDA toolkit is"
    try:
        importlib.import_module("hiddennet._C_cuda")
    except ImportError as error:
        return f"does not load: {error}"
    old, others = _gpus_by_age()
    if not old:
        return "loaded"
    said = f"{', '.join(old)}: expected compute capability 8.0 or newer; hidden layers run on the CPU"
    if others:
        return f"loaded, but not for {said} or on {', '.join(others)}"
    warnings.warn(f"hiddennet: the CUDA kernels do not run on {said}", RuntimeWarning, stacklevel=2)
    return f"loaded, but of no use on {said}"


def _gpus_by_age() -> tuple[list[str], list[str]]:
    """GPUs below compute capability 8.0, and the others. Asked of the driver's management library: a process that has
    asked CUDA may not fork any more."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return [], []
    except (OSError, AttributeError):
        return [], []
    old: list[str] = []
    others: list[str] = []
    count, major, minor = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int()
    handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        if (
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0
            and nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0
            and nvml.nvmlDeviceGetName(handle, name, len(name)) == 0
        ):
            known = f"{name.value.decode(errors='replace')} (sm_{major.value}{minor.value})"
            (old if major.value < 8 else others).append(known)
    nvml.nvmlShutdown()
    return old, others


_load_cpu()
cuda_status = _load_cuda()
