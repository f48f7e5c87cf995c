"""How a network's density is shared out among its layers: equally, or by Erdős-Rényi-Kernel (ERK)."""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from hiddennet.nn.rules import kept_count

Densities = Literal["uniform", "erk"]
DENSITIES = Field(
    "uniform",
    description="of the layers: all as density says, or erk: larger layers less, in proportion to the sum of their "
    "dimensions over the product, together density",
)


def layer_densities(how: Densities, shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """The kept fraction of each layer, by name, so that all together keep `density`.

    erk: layer l keeps e (sum of its dimensions) / (their product), e such that the whole is met; a layer that would
    keep more than all is kept whole and the others share what is left. Mocanu et al. 2018 (arXiv 1707.04780) for linear
    layers; Evci et al. 2020 (arXiv 1911.11134), section 3, for kernels.

    shapes: of the weights, [out, in, *kernel].
    """
    if how == "uniform":
        return dict.fromkeys(shapes, density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    whole: set[str] = set()
    while True:
        rest = {name: sum(shapes[name]) / size for name, size in sizes.items() if name not in whole}
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in whole)
        factor = budget / sum(share * sizes[name] for name, share in rest.items()) if rest else 0.0
        full = {name for name, share in rest.items() if factor * share > 1.0}
        if not full:
            return {name: 1.0 if name in whole else factor * rest[name] for name in shapes}
        whole |= full


def layer_counts(how: Densities, shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, int]:
    """How many weights of each layer are kept."""
    found = layer_densities(how, shapes, density)
    return {name: kept_count(math.prod(shape), found[name]) for name, shape in shapes.items()}
