"""In which dtype a run computes: what the config insists on, or bfloat16 on a CPU where it was measured to pay."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hiddennet import data
from hiddennet.config import Config
from hiddennet.models.dnw import NotConverged
from hiddennet.nn.wiring import wirings
from hiddennet.train.heaviest import LayerShape, Step, heaviest
from hiddennet.train.machine import use_channels_last
from hiddennet.tuned import Measured

KIND = "bfloat16"  # of the choices in hiddennet.tuned
PAYS = 1.2  # times as fast as float32, at least: a step has parts that bfloat16 does not help
ENOUGH = 2**28  # multiply-adds of a layer that is timed; more are of a smaller batch
SECONDS, ROUNDS = 1.0, (3, 9)  # of the measurement, after a first round that is not counted
VARIABLE = "HIDDENNET_AMP"
CHOICES = {"float32": "float32", "bf16": "bfloat16"}  # of train.amp, beside auto


@dataclass(frozen=True)
class Precision:
    """The dtype that a run computes in, "float32" or "bfloat16" (by autocast), and why it is that one."""

    dtype: str
    why: str

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype that autocast uses, or None for float32 throughout."""
        return torch.bfloat16 if self.dtype == "bfloat16" else None

    def __str__(self) -> str:
        return f"{self.dtype} ({self.why})"


def insisted(amp: str) -> Precision | None:
    """What train.amp says, or None for `auto`."""
    return None if amp == "auto" else Precision(CHOICES[amp], f"train.amp={amp}")


def decide(config: Config, model: nn.Module, sizes: Sequence[int], device: torch.device, world: int = 1) -> Precision:
    """The precision of a run that begins here.

    sizes: of the images: (channels, side). world: processes that share a batch. Where train.amp is `auto` and nothing
    is known of the network's layers on this CPU, they are timed, for about a second; draws none of the run's numbers.
    Raises ValueError for a value of HIDDENNET_AMP that it does not know.
    """
    found = insisted(config.train.amp) or _by_variable()
    if found is not None:
        return found
    if device.type != "cpu":
        return Precision("float32", "the default on a GPU; train.amp=bf16 asks for bfloat16")
    if config.train.deterministic:
        return Precision("float32", "train.deterministic: not by what was measured")
    if wirings(model):
        return Precision("float32", "a wiring's edges are not timed; train.amp=bf16 insists")
    one = torch.zeros(1, sizes[0], sizes[1], sizes[1])
    if config.data.name in data.TEXT:
        one = torch.zeros(config.data.bptt, 1, dtype=torch.int64)
    try:
        layers = heaviest(model, one)
    except (RuntimeError, ValueError, TypeError, NotConverged) as error:
        first = str(error).strip().partition("\n")[0]
        return Precision("float32", f"its layers could not be looked at: {type(error).__name__}: {first:.80}")
    if not layers:
        return Precision("float32", "it has no convolution or linear layer to time")
    batch = max(1, config.data.batch_size // world // config.train.accumulate)
    return verdict(config.model.name, layers, batch, use_channels_last(config.train.channels_last))


def of_checkpoint(state: Mapping[str, Any], amp: str) -> Precision:
    """The precision that a checkpoint's run began with. amp: the run's train.amp. Raises ValueError for one that no run
    has.

    Older ones do not say: they took bfloat16 where train.amp insisted, and not on a CPU.
    """
    if "precision" not in state:
        cast = amp == "bf16" and state["device"] != "cpu"
        return Precision("bfloat16" if cast else "float32", "as it was when the run began")
    found = Precision(**state["precision"])
    if found.dtype not in CHOICES.values() or not isinstance(found.why, str):
        raise ValueError(f"expected a precision of {' or '.join(CHOICES.values())}, got {found.dtype!r}")
    return found


def _by_variable() -> Precision | None:
    wish = os.environ.get(VARIABLE, "")
    if wish and wish not in CHOICES:
        raise ValueError(f"{VARIABLE}: expected {' or '.join(CHOICES)}, or the variable not set, got {wish!r}")
    return Precision(CHOICES[wish], f"{VARIABLE}={wish}") if wish else None


def verdict(network: str, layers: Sequence[LayerShape], batch: int, channels_last: bool) -> Precision:
    """Whether bfloat16 pays in these layers on this CPU, measured now or before. network: its name, for people."""
    layout = "channels_last" if channels_last else "contiguous"
    key = "; ".join([*(layer.words for layer in layers), f"batch {batch}", layout])
    ratio = _ratio(Measured.get(KIND, key))
    if ratio is None:
        seconds = measure(layers, batch, channels_last)
        ratio = round(seconds["float32"] / seconds["bfloat16"], 2)
        Measured.put(KIND, key, {"network": network, "ratio": ratio, **seconds})
    return of_ratio(ratio)


def _ratio(found: Mapping[str, Any] | None) -> float | None:
    ratio = None if found is None else found.get("ratio")
    return ratio if isinstance(ratio, float) else None


def measured() -> list[str]:
    """What was found on this CPU for each network, in words."""
    known = [(found.get("network"), _ratio(found)) for found in Measured.all(KIND).values()]
    return [f"{network}: {of_ratio(ratio)}" for network, ratio in known if ratio is not None]


def of_ratio(ratio: float) -> Precision:
    """The choice where bfloat16 takes 1 / ratio of float32's time."""
    if ratio >= PAYS:
        return Precision("bfloat16", f"{ratio:.2g}x as fast as float32 in the heaviest layers, measured on this CPU")
    return Precision("float32", f"bfloat16 is {ratio:.2g}x as fast in the heaviest layers, measured on this CPU")


def measure(layers: Sequence[LayerShape], batch: int, channels_last: bool) -> dict[str, float]:
    """CPU seconds of the layers' steps in float32 and in bfloat16: interleaved, of each layer the least of several."""
    steps = [
        (i, dtype, Step(layer, _images(layer, batch), bfloat16=dtype == "bfloat16", channels_last=channels_last))
        for i, layer in enumerate(layers)
        for dtype in CHOICES.values()
    ]
    least: dict[tuple[int, str], float] = {}
    for *_, step in steps:
        step.seconds()
    begun, rounds = time.perf_counter(), 0
    while rounds < ROUNDS[0] or (rounds < ROUNDS[1] and time.perf_counter() - begun < SECONDS):
        for i, dtype, step in steps:
            least[i, dtype] = min(step.seconds(), least.get((i, dtype), float("inf")))
        rounds += 1
    return {dtype: sum(least[i, dtype] for i in range(len(layers))) for dtype in CHOICES.values()}


def _images(layer: LayerShape, batch: int) -> int:
    return max(1, min(batch, ENOUGH // max(1, layer.multiply_adds)))
