"""The machine a run is on: device, memory format, reproducibility, memory used."""

import os
import random
import resource
import sys

import numpy as np
import torch


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of `auto`, `cpu`, `cuda` or `cuda:N`. Raises ValueError without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index if device.index is not None else local_rank
    if index >= found:
        raise ValueError(
            f"train.device: expected a GPU number below {found}, got {name} (GPU {index}); use train.device=cpu"
            if found
            else f"train.device: expected a GPU that torch sees, got {name}; use train.device=cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def seed_all(seed: int) -> None:
    """Seed torch (all devices), Python and NumPy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def set_deterministic(deterministic: bool) -> None:
    """Allow only algorithms with reproducible bits, or let cuDNN look for the fastest."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # setting it imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def use_channels_last(setting: bool | str) -> bool:
    """Whether images and convolution weights lie pixel by pixel (NHWC) in memory.

    auto: yes. A GPU's convolutions are made for it, and on a CPU steps are faster too: `python -m bench.step_search`
    and `python -m bench.step --channels-last` measure it.
    """
    return True if setting == "auto" else bool(setting)


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe(device: torch.device) -> str:
    """The device in words: cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
