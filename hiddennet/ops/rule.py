"""Rule: which weights are revealed, as the few tensors an op needs to know it (csrc/base/rule.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiddennet.ops.checks import ORDERS, check_choice, check_seed, check_tensor

CODES = {"all": 0, "magnitude": 1, "value": 2, "bits": 3, "sampled": 4, "expectation": 5}


def threshold_key(t: float, by: str) -> int:
    """The selection key of a float32 threshold (csrc/base/key.cuh), as the int32 that holds its bits."""
    bits = int(torch.tensor(t, dtype=torch.float32).view(torch.int32)) & 0xFFFFFFFF
    if by == "magnitude":
        key = bits & 0x7FFFFFFF if t >= 0 else 0  # |score| >= t holds for every score when t < 0
    else:
        bits = 0 if bits == 0x80000000 else bits
        key = bits ^ (0xFFFFFFFF if bits >= 0x80000000 else 0x80000000)
    return key - (1 << 32) if key >= 1 << 31 else key


@dataclass(frozen=True)
class Rule:
    """Built by the class methods below; `selection` is int32[4] on the device of the scores, also where unread."""

    kind: str
    selection: Tensor
    bits: Tensor | None = None
    step: Tensor | None = None
    seed: int = 0

    @classmethod
    def all(cls, device: torch.device | str = "cpu") -> Rule:
        """Every weight."""
        return cls("all", torch.zeros(4, dtype=torch.int32, device=device))

    @classmethod
    def selected(cls, selection: Tensor, by: str) -> Rule:
        """The scores a row of topk_select keeps, ranked by "magnitude" or "value"."""
        check_choice("Rule.selected", "by", by, ORDERS)
        check_tensor("Rule.selected", "selection", selection, dtypes=(torch.int32,))
        if selection.shape != (4,):
            raise ValueError(f"Rule.selected: expected one row of shape (4,), got {tuple(selection.shape)}")
        return cls(by, selection)

    @classmethod
    def threshold(cls, t: float, by: str, device: torch.device | str = "cpu") -> Rule:
        """Scores (or magnitudes) at or above t; all ties are kept. NaN scores are kept."""
        check_choice("Rule.threshold", "by", by, ORDERS)
        if t != t:
            raise ValueError("Rule.threshold: expected a number, got nan")
        row = torch.tensor([threshold_key(t, by), 0, 0, 0], dtype=torch.int32, device=device)
        return cls(by, row)

    @classmethod
    def packed(cls, bits: Tensor) -> Rule:
        """A fixed mask: uint8 [ceil(n / 8)] as pack_mask makes it."""
        check_tensor("Rule.packed", "bits", bits, dtypes=(torch.uint8,))
        return cls("bits", torch.zeros(4, dtype=torch.int32, device=bits.device), bits=bits)

    @classmethod
    def sampled(cls, step: Tensor, seed: int) -> Rule:
        """Bernoulli(sigmoid(score)), drawn by (seed, layer, index, step); step: int64, one element, on the device."""
        check_tensor("Rule.sampled", "step", step, dtypes=(torch.int64,))
        check_seed("Rule.sampled", "seed", seed, 63)
        return cls("sampled", torch.zeros(4, dtype=torch.int32, device=step.device), step=step, seed=seed)

    @classmethod
    def expectation(cls, device: torch.device | str = "cpu") -> Rule:
        """No draw: every weight times sigmoid(score)."""
        return cls("expectation", torch.zeros(4, dtype=torch.int32, device=device))

    @property
    def reads_scores(self) -> bool:
        """Whether the rule is a function of scores at all."""
        return self.kind not in ("all", "bits")

    def arguments(self) -> tuple[int, Tensor | None, Tensor | None, int]:
        """The ops' (rule, bits, step, rule_seed)."""
        return CODES[self.kind], self.bits, self.step, self.seed
