"""Checkpoints: what a run needs to go on to the bit; written whole, read without running code."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiddennet.files import write_atomic
from hiddennet.importers.checkpoint import check_members

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or of another run."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write plain values and tensors to `path`; an old file stays until the new one is complete."""
    document = {"format": FORMAT, **state}
    write_atomic(path, lambda file: torch.save(document, file))


def load(path: Path) -> dict[str, Any]:
    """Return what `save` wrote, tensors on the CPU. Nothing in the file is executed.

    Raises CheckpointError, saying what to do, when the file is damaged or of a newer format.
    """
    way_out = "delete it, or start again with --fresh"
    try:
        check_members(path)
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: expected a file at {path}, got none") from None
    except Exception as error:  # zipfile and torch answer damage with many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"checkpoint: expected a complete checkpoint at {path}, got a damaged one ({reason}); {way_out}"
        ) from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"checkpoint: expected format {FORMAT} in {path}, got {found}; {way_out}")
    return document


def random_state() -> dict[str, Any]:
    """The states of all random generators a run can touch, as plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": json.dumps(random.getstate()),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned; GPUs that are not there any more are passed over."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    for index, generator in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, index)
