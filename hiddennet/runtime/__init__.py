"""Run a network from its file, with numpy alone: no torch, nothing that is unpickled.

    import hiddennet.runtime as rt

    net = rt.load("net.hidden")  # of hiddennet.export(model, "net.hidden", runtime=True)
    logits = net(images)  # float32 [batch, channels, height, width]; batch of any size

Weights are made from seed and mask bits when they are needed. Which plan is the fastest for each convolution is
estimated, so that the first call does not wait. HIDDENNET_PLANS=measure measures it at the first call with a batch size
and keeps what it found in the user's cache, which later processes go by; HIDDENNET_PLANS=fixed goes by estimates even
then: the same plans on every run. HIDDENNET_ISA=avx2 or scalar holds back instructions.
"""

import operator
import os
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from hiddennet.runtime import _runtime

Error = _runtime.Error
__all__ = ["Error", "Layer", "Network", "load"]

_BF16 = {"auto": -1, True: 1, False: 0}
_LAYOUTS = ("nchw", "nhwc")
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer as it runs.

    Attributes:
        name: of the layer. shape: of its weight, OIHW.
        plan: the way it is computed for the batch size that came last; empty before the first call.
        density: the fraction of weights that its mask keeps; 1.0 of a dense layer.
        bytes: that the plan keeps in memory for the weights.
    """

    name: str
    plan: str
    shape: tuple[int, ...]
    density: float
    bytes: int


class Network:
    """What load() returns; called with an array it returns the network's output. Threads may share it: calls wait."""

    def __init__(self, network: _runtime.Network) -> None:
        self._network = network

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, without the batch: (channels, height, width), (channels, width) or (features,)."""
        return tuple(self._network.input_shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one output, without the batch."""
        return tuple(self._network.output_shape)

    @property
    def threads(self) -> int:
        """How many threads a call runs on."""
        return self._network.threads

    @property
    def bf16(self) -> bool:
        """Whether plans that round to bfloat16 may be taken."""
        return self._network.bf16

    @property
    def layers(self) -> list[Layer]:
        """The convolutions and linear layers, in the order in which they run."""
        return [
            Layer(name, plan, tuple(shape), kept / weights, size)
            for name, plan, shape, kept, weights, size in self._network.layers()
        ]

    def summary(self) -> str:
        """The layers as a table."""
        head = ("layer", "weight", "density", "plan", "bytes")
        rows = [
            (one.name, "x".join(map(str, one.shape)), f"{one.density:.4f}", one.plan or "-", f"{one.bytes:,}")
            for one in self.layers
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))

    def __call__(self, x: np.ndarray, *, layout: str = "nchw") -> np.ndarray:
        """The network's output for a batch: float32 [batch, *output_shape].

        Args:
            x: float32 [batch, *input_shape], or, with layout "nhwc", channels last; any strides; an empty batch is one.
            layout: "nchw" or "nhwc", of x and of an output with pixels.

        Raises:
            TypeError: another dtype, or no array. ValueError: another shape or layout.
        """
        if layout not in _LAYOUTS:
            raise ValueError(f"hiddennet.runtime: expected layout to be nchw or nhwc, got {layout!r}")
        if not isinstance(x, np.ndarray):
            raise TypeError(f"hiddennet.runtime: expected an array of numpy, got {type(x).__name__}; see numpy.asarray")
        if x.dtype != np.float32:
            raise TypeError(f"hiddennet.runtime: expected float32, got {x.dtype}; x.astype(numpy.float32) makes it")
        shape = self.input_shape
        last = layout == "nhwc"
        wanted = (*shape[1:], shape[0]) if last else shape
        if x.shape[1:] != wanted or x.ndim != len(wanted) + 1:
            sizes = ", ".join(map(str, wanted))
            raise ValueError(f"hiddennet.runtime: expected {layout} of shape [batch, {sizes}], got {list(x.shape)}")
        return self._network.run(np.ascontiguousarray(x), last)

    def __repr__(self) -> str:
        return f"Network({self.input_shape} -> {self.output_shape}, {len(self.layers)} layers, {self.threads} threads)"


def load(path: str | os.PathLike, threads: SupportsIndex | None = None, bf16: str | bool = "auto") -> Network:
    """Return the network at `path`.

    Args:
        path: a file of hiddennet.export(model, path, runtime=True).
        threads: that a call runs on; None: what HIDDENNET_THREADS says, or as many as there are cores.
        bf16: whether plans may round activations and weights to bfloat16, with sums in float32: True, False, or "auto":
            where the processor multiplies tiles of them (AMX).

    Raises:
        Error (a ValueError): no file, a damaged one, one without a graph, or of a newer format.
    """
    if not isinstance(bf16, (str, bool)) or bf16 not in _BF16:
        raise ValueError(f"hiddennet.runtime: expected bf16 to be 'auto', True or False, got {bf16!r}")
    name = os.fsencode(os.path.expanduser(path))
    if b"\0" in name:
        raise Error(f"hiddennet.runtime: expected a file at a path without NUL, got {path!r}")
    return Network(_runtime.Network(name, 0 if threads is None else _checked_threads(threads), _BF16[bf16]))


def _checked_threads(threads: SupportsIndex) -> int:
    try:
        count = 0 if isinstance(threads, bool) else operator.index(threads)
    except TypeError:
        count = 0
    if not 1 <= count <= _MOST_THREADS:
        raise ValueError(f"hiddennet.runtime: expected threads to be 1 to {_MOST_THREADS}, got {threads!r}")
    return count
