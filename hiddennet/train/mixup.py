"""Mixup: each image of a batch blended with another, and their labels in the same proportion."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.data.order import derived_seed
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.inits import InitScale


@dataclass(frozen=True)
class Mixed:
    """The labels of a mixed batch: int64 [n] each; `share`, in [0, 1], is that of `labels`, the rest the partners'.

    larger: the labels of the larger share, by which accuracy is counted. A captured step has its share in a tensor.
    """

    labels: Tensor
    partners: Tensor
    share: float | Tensor
    larger: Tensor

    def chunk(self, parts: int) -> list[Mixed]:
        """As Tensor.chunk."""
        split = zip(*(labels.chunk(parts) for labels in (self.labels, self.partners, self.larger)), strict=True)
        return [Mixed(labels, partners, self.share, larger) for labels, partners, larger in split]

    def targets(self, classes: int) -> Tensor:
        """Probabilities, float32 [n, classes]."""
        own, other = (F.one_hot(labels, classes).float() for labels in (self.labels, self.partners))
        return own.mul_(self.share).add_(other * (1 - self.share))


@dataclass(frozen=True)
class Mixup:
    """Blends of images within a batch. Zhang et al. 2018 (arXiv 1710.09412), eq. 1.

    Image i becomes c x_i + (1 - c) x_p(i), with one c from Beta(alpha, alpha) and one random permutation p a batch. All
    is drawn from (seed, step), so a resumed run draws what it would have drawn; c is the same on all ranks, which mix
    their own images. No synchronisation with the host.

    Args:
        alpha: of the distribution, above 0; c is near 0 or 1 where it is small, near 1/2 where it is large.
    """

    alpha: float
    seed: int
    rank: int = 0

    def share(self, step: int) -> float:
        """c of an optimiser step of the run, counted from 0."""
        return random.Random(f"{self.seed}/mixup/{step}").betavariate(self.alpha, self.alpha)

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Mixed]:
        """Images [n, ...] and labels int64 [n] of a step -> the mixed images and labels."""
        draws = torch.empty(len(labels), device=labels.device)
        seed = derived_seed(self.seed, "mixup")
        order = fill(draws, InitScale("uniform", 1.0), seed=seed, layer=self.rank, redraw=step).argsort(stable=True)
        share = self.share(step)
        mixed = images * share + images.index_select(0, order) * (1 - share)
        partners = labels.index_select(0, order)
        return mixed, Mixed(labels, partners, share, labels if share >= 0.5 else partners)
