"""Load the extension's two libraries: _C always, _C_cuda where torch has CUDA and the kernels were built."""

from __future__ import annotations

import importlib
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
    return "loaded"


_load_cpu()
cuda_status = _load_cuda()
