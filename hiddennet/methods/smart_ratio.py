"""smart_ratio: a random mask whose density falls from layer to layer by a fixed law; the revealed weights learn.

Su et al. 2020, "Sanity-Checking Pruning Methods", arXiv 2009.11094, as the code of Sreenivasan et al. (Rare Gems, arXiv
2202.12002) computes it.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.random_mask import MaskSection, RandomMask
from hiddennet.models import prunable
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number

FAMILIES = ("resnet", "vgg")
# Version 2 puts what Gem-Miner keeps of ResNet-20's first convolution and classifier in their place, by density.
# The published 0.4143518518518518 is 179 / 432 less its last bit, and so keeps 178.
RESNET20_SIZES = (432, *(2304,) * 6, 4608, *(9216,) * 5, 18432, *(36864,) * 5, 640)
RESNET20_ENDS = {0.0144: (149 / 432, 166 / 640), 0.0372: (0.4143518518518518, 350 / 640)}


def keep_counts(
    sizes: Sequence[int], density: float, *, family: str = "resnet", head_density: float = 0.3, version: int = 1
) -> list[int]:
    """Return how many weights each layer keeps, in the layers' order.

    Their sum is at most ``density * sum(sizes)``, since all shares are rounded down, and less by at most two
    weights a layer unless every layer but the last is full. Version 2 keeps more: it puts two layers' shares
    in and takes nothing from the others.

    Args:
        sizes: weights of each layer in the order of the forward pass, the classifier last, such as those of
            ``hiddennet.models.prunable(model)``.
        density: kept fraction of all of them together, in (0, 1].
        family: ``resnet`` (also for MobileNet and Wide ResNet): layer l of L keeps a share proportional to
            (L - l + 1)^2 + (L - l + 1); ``vgg``: to that over l^2.
        head_density: kept fraction of the classifier, in [0, 1].
        version: 1, or 2: ResNet-20's ends as Gem-Miner prunes them, at the densities 0.0144 and 0.0372.

    Raises ValueError where the classifier alone exceeds the density, and for impossible arguments.
    """
    ratios = keep_ratios(sizes, density, family=family, head_density=head_density, version=version)[1]
    return [int(ratio * size) for ratio, size in zip(ratios, sizes, strict=True)]


def keep_ratios(
    sizes: Sequence[int], density: float, *, family: str = "resnet", head_density: float = 0.3, version: int = 1
) -> tuple[list[float], list[float]]:
    """Return each layer's share of kept weights before and after the excess of full layers (a share above 1)
    is carried on to the next layers. Arguments and errors as those of ``keep_counts``."""
    _check(sizes, density, family, head_density, version)
    # The original is told what is removed and subtracts; its rounding decides some counts.
    keep = 1.0 - (1.0 - density)
    layers = len(sizes)
    shares = []
    for layer in range(1, layers):
        left = layers - layer + 1
        share = left**2 + left
        shares.append(share / layer**2 if family == "vgg" else share)
    *body, head = sizes
    budget = keep * sum(sizes) - head_density * head
    if budget < 0:
        raise ValueError(
            f"smart_ratio: expected a classifier within the density, got {head_density:g} of its {head} weights for "
            f"a network of {sum(sizes)} weights at density {density:g}; lower head_density below "
            f"{keep * sum(sizes) / head:.3g}, or give the network fewer classes"
        )
    scale = budget / sum(size * share for size, share in zip(body, shares, strict=True))
    raw = [scale * share for share in shares] + [head_density]
    ratios = list(raw)
    if version == 2:
        ratios[0], ratios[-1] = RESNET20_ENDS[_version_2_density(density)]
    return raw, _carried(ratios, sizes)


def _carried(ratios: list[float], sizes: Sequence[int]) -> list[float]:
    """Ratios of at most 1: what a layer has too much of goes to the next ones, in whole weights. As in the
    original the walk ends at the first layer that leaves no excess."""
    excess = 0
    for i in range(len(sizes) - 1):
        if ratios[i] >= 1:
            excess += int((ratios[i] - 1) * sizes[i])
            ratios[i] = 1.0
        else:
            room = int((1 - ratios[i]) * sizes[i])
            if room >= excess:
                ratios[i] += excess / sizes[i]
                excess = 0
            else:
                excess -= room
                ratios[i] = 1.0
        if excess == 0:
            break
    return ratios


def _version_2_density(density: float) -> float | None:
    return next((known for known in RESNET20_ENDS if math.isclose(density, known, abs_tol=1e-9)), None)


def _check(sizes: Sequence[int], density: float, family: str, head_density: float, version: int) -> None:
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"smart_ratio: expected the sizes of two layers or more, each at least 1, got {list(sizes)}")
    if not 0 < density <= 1:
        raise ValueError(f"smart_ratio: expected a density in (0, 1], got {density!r}")
    if not 0 <= head_density <= 1:
        raise ValueError(f"smart_ratio: expected a head_density in [0, 1], got {head_density!r}")
    if family not in FAMILIES:
        raise ValueError(f"smart_ratio: expected family to be one of {', '.join(FAMILIES)}, got {family!r}")
    if version not in (1, 2):
        raise ValueError(f"smart_ratio: expected version 1 or 2, got {version!r}")
    if version == 2 and (tuple(sizes) != RESNET20_SIZES or _version_2_density(density) is None or family != "resnet"):
        raise ValueError(
            "smart_ratio: expected the layers of resnet20 at density 0.0144 or 0.0372 with version 2, got "
            f"{len(sizes)} layers of {sum(sizes)} weights at {density!r}; use version 1"
        )


__all__ = ["SmartRatio", "keep_counts", "keep_ratios"]


class SmartRatioSection(MaskSection):
    """method: a random mask with a density for each layer that falls with depth (smart ratio)."""

    density: Density = Field(0.05, description="fraction of all hidden weights that is revealed")
    train_weights: bool = Field(True, description="false: the weights stay as they were drawn")
    version: Literal[1, 2] = Field(1, description="2: first and last layer as Gem-Miner keeps them (resnet20 only)")
    head_density: Number = Field(0.3, gt=0.0, le=1.0, description="density of the last layer")
    family: Literal["resnet", "vgg"] | None = Field(
        None, description="the law of the falling densities; null: by the network's name"
    )
    shortcuts: bool = Field(True, description="false: as the original, leave projections of ImageNet nets dense")


@register("method", "smart_ratio")
class SmartRatio(RandomMask):
    """int(p_l n_l) weights of layer l are revealed, chosen by a uniform draw."""

    Section = SmartRatioSection

    def counts(self, model: nn.Module, hidden: list[str]) -> dict[str, int]:
        section = self.section
        layers = {name: m for name, m in prunable(model, shortcuts=section.shortcuts).items() if name in hidden}
        family = section.family or ("vgg" if "vgg" in self.setting.model else "resnet")
        counts = keep_counts(
            [layer.weight.numel() for layer in layers.values()],
            section.density,
            family=family,
            head_density=section.head_density,
            version=section.version,
        )
        found = {name: model.get_submodule(name).weight.numel() for name in hidden}
        return found | dict(zip(layers, counts, strict=True))
