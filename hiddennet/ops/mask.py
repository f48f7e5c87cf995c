"""Mask: which weights are kept, as the few tensors an op needs to know it (csrc/base/rule.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiddennet.ops.checks import ORDERS, check_choice, check_same_device, check_seed, check_tensor

CODES = {
    "all": 0,
    "magnitude": 1,
    "value": 2,
    "bits": 3,
    "sampled": 4,
    "expectation": 5,
    "rounded": 6,
    "scored": 7,
}

SCORELESS = ("all", "bits")  # no function of scores


def threshold_key(t: float, by: str) -> int:
    """The selection key of a float32 threshold (csrc/base/key.cuh), as the int32 that holds its bits."""
    bits = int(np.float32(t).view(np.uint32))
    if by == "magnitude":
        key = bits & 0x7FFFFFFF if t >= 0 else 0  # |score| >= t holds for every score when t < 0
    else:
        bits = 0 if bits == 0x80000000 else bits
        key = bits ^ (0xFFFFFFFF if bits >= 0x80000000 else 0x80000000)
    return as_int32(key)


def as_int32(bits: int) -> int:
    """32 bits, given as an int in [0, 2^32), as the int32 that holds them."""
    return bits - (1 << 32) if bits >= 1 << 31 else bits


def _check_row(op: str, selection: Tensor) -> None:
    check_tensor(op, "selection", selection, dtypes=(torch.int32,))
    if selection.shape != (4,):
        raise ValueError(f"{op}: expected one row of shape (4,), got {tuple(selection.shape)}")


@dataclass(frozen=True)
class Mask:
    """Built by the class methods below; `selection` is int32[4] on the device of the scores, also where unread.

    order: of a packed mask that was made of scores: they get the straight-through derivative of a selection by
    "magnitude" or "value"; None: they get none.
    """

    kind: str
    selection: Tensor
    bits: Tensor | None = None
    step: Tensor | None = None
    seed: int = 0
    order: str | None = None

    @classmethod
    def all(cls, device: torch.device | str = "cpu") -> Mask:
        """Every weight."""
        return cls("all", torch.zeros(4, dtype=torch.int32, device=device))

    @classmethod
    def selected(cls, selection: Tensor, by: str) -> Mask:
        """The scores a row of topk_select keeps, ranked by "magnitude" or "value"."""
        check_choice("Mask.selected", "by", by, ORDERS)
        _check_row("Mask.selected", selection)
        return cls(by, selection)

    @classmethod
    def threshold(cls, t: float, by: str, device: torch.device | str = "cpu") -> Mask:
        """Scores (or magnitudes) at or above t; all ties are kept. NaN scores are kept."""
        check_choice("Mask.threshold", "by", by, ORDERS)
        if t != t:
            raise ValueError("Mask.threshold: expected a number, got nan")
        row = torch.tensor([threshold_key(t, by), 0, 0, 0], dtype=torch.int32, device=device)
        return cls(by, row)

    @classmethod
    def packed(cls, bits: Tensor, order: str | None = None) -> Mask:
        """A mask made outside the ops: uint8 [ceil(n / 8)] as pack_mask makes it; order: see the class."""
        check_tensor("Mask.packed", "bits", bits, dtypes=(torch.uint8,))
        if order is not None:
            check_choice("Mask.packed", "order", order, ORDERS)
        return cls("bits", torch.zeros(4, dtype=torch.int32, device=bits.device), bits=bits, order=order)

    @classmethod
    def sampled(cls, step: Tensor, seed: int) -> Mask:
        """Bernoulli(sigmoid(score)), drawn by (seed, layer, index, step); step: int64, one element, on the device."""
        check_tensor("Mask.sampled", "step", step, dtypes=(torch.int64,))
        check_seed("Mask.sampled", "seed", seed, 63)
        return cls("sampled", torch.zeros(4, dtype=torch.int32, device=step.device), step=step, seed=seed)

    @classmethod
    def expectation(cls, device: torch.device | str = "cpu") -> Mask:
        """No draw: every weight times sigmoid(score)."""
        return cls("expectation", torch.zeros(4, dtype=torch.int32, device=device))

    @classmethod
    def rounded(cls, threshold: float, flags: Tensor) -> Mask:
        """Flagged scores strictly above a threshold, which is rounded to float32 (Gem-Miner's rounding).

        NaN scores are kept. flags: uint8 [ceil(n / 8)] as pack_mask makes it, 1 = may be revealed; the gradient of a
        score is 0 where its flag is. Later changes of `flags` in place are seen.
        """
        if threshold != threshold:
            raise ValueError("Mask.rounded: expected a threshold that is a number, got nan")
        check_tensor("Mask.rounded", "flags", flags, dtypes=(torch.uint8,))
        above = (threshold_key(threshold, "value") & 0xFFFFFFFF) + 1  # no number's key is the largest
        row = torch.tensor([as_int32(above), 0, 0, 0], dtype=torch.int32, device=flags.device)
        return cls("rounded", row, bits=flags)

    @classmethod
    def rounded_at(cls, selection: Tensor, flags: Tensor) -> Mask:
        """Flagged scores that a row of topk_select(by="value") keeps; flags as in `rounded`."""
        op = "Mask.rounded_at"
        _check_row(op, selection)
        check_tensor(op, "flags", flags, dtypes=(torch.uint8,))
        check_same_device(op, "flags", flags, "the selection", selection)
        return cls("rounded", selection, bits=flags)

    @classmethod
    def rounded_at_random(cls, step: Tensor, seed: int, flags: Tensor) -> Mask:
        """Flagged scores above a uniform number in (0, 1): a Bernoulli draw of each score, taken as a probability.

        Drawn by (seed, layer, index, step); step: int64, one element, on the device; flags as in `rounded`.
        """
        op = "Mask.rounded_at_random"
        check_tensor(op, "step", step, dtypes=(torch.int64,))
        check_seed(op, "seed", seed, 63)
        check_tensor(op, "flags", flags, dtypes=(torch.uint8,))
        check_same_device(op, "flags", flags, "the step", step)
        row = torch.zeros(4, dtype=torch.int32, device=step.device)
        return cls("rounded", row, bits=flags, step=step, seed=seed)

    @classmethod
    def scored(cls, flags: Tensor) -> Mask:
        """The weight times its score where flagged, +0 elsewhere; flags as in `rounded`. The mask is the flags."""
        check_tensor("Mask.scored", "flags", flags, dtypes=(torch.uint8,))
        return cls("scored", torch.zeros(4, dtype=torch.int32, device=flags.device), bits=flags)

    def check(self, op: str, n: int) -> None:
        """Refuse parts that do not fit each other or n weights: TypeError, ValueError in the name of `op`."""
        check_choice(op, "the mask's kind", self.kind, tuple(CODES))
        size = (n + 7) // 8
        wanted = [("selection", self.selection, torch.int32, (4,))]
        if self.kind in ("bits", "rounded", "scored"):
            wanted.append(("bits", self.bits, torch.uint8, (size,)))
        if self.kind == "sampled" or self.step is not None:
            wanted.append(("step", self.step, torch.int64, (1,)))
        for name, t, dtype, shape in wanted:
            check_tensor(op, f"the mask's {name}", t, dtypes=(dtype,))
            check_same_device(op, f"the mask's {name}", t, "its selection", self.selection)
            if t.numel() != shape[0] or not t.is_contiguous():
                raise ValueError(
                    f"{op}: expected the mask's {name} of shape {shape} for {n} weights, got {tuple(t.shape)}"
                )

    @property
    def reads_scores(self) -> bool:
        """Whether the effective weight depends on scores, or they get a gradient."""
        return self.order is not None or self.kind not in SCORELESS

    def arguments(self) -> tuple[int, Tensor | None, Tensor | None, int]:
        """The schemas' (rule, bits, step, rule_seed)."""
        return CODES[self.kind], self.bits, self.step, self.seed
