"""KthValue: IteRand's mask, all scores at or above the kth smallest of a layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hiddennet.nn.rules import TopK
from hiddennet.registry import register


@register("rule", "kth_value")
@dataclass(frozen=True)
class KthValue(TopK):
    """Scores at or above a layer's kth smallest: IteRand's mask (Chijiwa et al. 2021, section 3).

    With p = 1 - density and n scores, kth = 1 + round(p (n - 1)), half to even. Scores equal to the kth are all kept,
    so that more than n - kth + 1 may be; at least the largest always is.

    Args:
        density: kept fraction in [0, 1].
    """

    keeps_ties: ClassVar[bool] = True
    by: str = field(default="value", init=False)
    scope: str = field(default="layer", init=False)
    of: str = field(default="scores", init=False)
    rounding: str = field(default="floor", init=False)

    def count(self, n: int) -> int:
        """How many of n scores are kept, when no two are equal."""
        return n - pruned_below_kth(n, self.density)

    def spec(self) -> dict:
        return {"kind": self.kind, "density": self.density}


def pruned_below_kth(n: int, density: float) -> int:
    """kth - 1 = round(p (n - 1)) of IteRand, p = 1 - density taken as the decimal that was written."""
    p = round(1 - density, 12)
    return round(0.01 * (p * 100) * (n - 1))
