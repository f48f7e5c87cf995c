"""Gem-Miner's original training step, written anew from its description, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes. Every layer owns a weight, scores and a flag of the weight's
shape, and the same for a bias it does not have, of one element each; all of them are parameters. Each forward writes
the threshold into a tensor of the scores' size, compares, converts the integer flags and takes three products; the
dummies go the same way, and nothing reads what comes out. The trainer clamps all scores one after another before a
step, adds the squared norm of each layer's scores to the loss, measures three accuracies and reads four numbers back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets import Trainee
from bench.originals import convolved

THRESHOLD = 0.5


class Rounding(torch.autograd.Function):
    """One where a score is above the bar, else zero; identity backwards."""

    @staticmethod
    def forward(ctx, scores: Tensor, bar: Tensor) -> Tensor:
        return (scores > bar).float()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def rounded(scores: Tensor, flag: Tensor) -> Tensor:
    """The rounded scores among those whose flag is 1, as floats."""
    bar = torch.ones_like(scores) * THRESHOLD
    return Rounding.apply(scores, bar) * flag.data.float()


class GemMinerConv2d(nn.Conv2d):
    """A frozen weight, scores in [0, 1], a flag: int32, as it is from the first pruning on; and three dummies."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.weight.requires_grad = False
        self.scores = nn.Parameter(torch.rand(self.weight.shape))
        self.flag = nn.Parameter(torch.ones(self.weight.shape, dtype=torch.int32), requires_grad=False)
        self.bias_scores = nn.Parameter(torch.rand(1))
        self.bias_flag = nn.Parameter(torch.ones(1, dtype=torch.int32), requires_grad=False)

    def mask(self) -> Tensor:
        return rounded(self.scores, self.flag)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask()
        rounded(self.bias_scores, self.bias_flag)  # there is no bias to multiply it with
        return convolved(self, x, self.weight * mask)


def penalty(model: nn.Module, l2: float) -> Tensor:
    """l2 times the sum of the squared norms, parameter by parameter, of all that are named scores."""
    total = torch.zeros((), device=next(model.parameters()).device)
    for name, p in model.named_parameters():
        if name.endswith(".scores"):
            total = total + p.norm() ** 2
    return l2 * total


def accuracies(logits: Tensor, labels: Tensor, ranks: tuple[int, ...] = (1, 5, 10)) -> list[Tensor]:
    """The shares, in %, of images whose label is among the highest logits."""
    order = logits.topk(max(ranks), dim=1).indices.t()
    hits = order.eq(labels[None].expand_as(order))
    return [hits[:rank].reshape(-1).float().sum() * (100 / labels.numel()) for rank in ranks]


@dataclass
class OriginalTrainee(Trainee):
    """A training step in the order of the original's trainer."""

    l2: float = 0.0
    seen: list[float] = field(default_factory=list)  # loss and accuracies of the last step

    def clamp(self) -> None:
        """All scores into [0, 1], the dummies too."""
        for name, p in self.model.named_parameters():
            if "score" in name:
                p.data.clamp_(0.0, 1.0)

    def step(self) -> None:
        self.clamp()
        logits = self.model(self.x)
        loss = F.cross_entropy(logits, self.labels)
        loss = loss + penalty(self.model, self.l2)
        measured = accuracies(logits, self.labels)
        self.seen = [loss.item(), *(share.item() for share in measured)]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def sgd(model: nn.Module, lr: float, momentum: float = 0.9) -> torch.optim.Optimizer:
    """Torch's default SGD on the scores, the dummies among them, without weight decay."""
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr, momentum=momentum)
