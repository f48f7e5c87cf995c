"""Rules that draw: what tells a forward's draw, and Sampled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rule import Rule
from hiddennet.ops.checks import check_choice, check_seed
from hiddennet.registry import register

EVALUATIONS = ("expectation", "draw")
_REMEMBERED = 256  # forwards of a layer that may wait for their backward


def recalled(layer: nn.Module, step: Tensor | int) -> Tensor | int:
    """The step that a forward in training draws by; where autograd recomputes a forward, that forward's.

    Activation checkpointing gives a recomputation the state that torch's generator had: a number drawn from it tells
    which forward is meant.
    """
    if torch.compiler.is_compiling():
        return step.clone() if isinstance(step, Tensor) else step
    token = int(torch.empty((), dtype=torch.int64, device="cpu").random_())
    passes = layer.passes
    if in_backward():
        if token not in passes:
            raise RuntimeError(
                f"{type(layer).__name__}: expected a recomputed forward to find its own draw, got one without it; "
                "leave preserve_rng_state of torch.utils.checkpoint as it is"
            )
        return passes[token]
    while len(passes) >= _REMEMBERED:
        passes.pop(next(iter(passes)))
    passes[token] = step.clone() if isinstance(step, Tensor) else step
    return passes[token]


def in_backward() -> bool:
    """Whether autograd is at work, so that a forward is a recomputation."""
    return torch._C._current_graph_task_id() != -1


class Drawn(Rule):
    """A rule whose layer counts its forwards in training, which number the draws: `draw`, int64, from 1."""

    def attach(self, layer: nn.Module) -> Rule:
        # step 0 is the fixed draw of evaluation
        layer.register_buffer("draw", torch.ones(1, dtype=torch.int64, device=layer.selection.device))
        return self

    @torch.no_grad()
    def after_forward(self, layer: nn.Module) -> None:
        if torch.compiler.is_compiling() or not in_backward():
            layer.draw.add_(1)


@register("rule", "sampled")
@dataclass(frozen=True)
class Sampled(Drawn):
    """Bernoulli(sigmoid(score)), drawn anew at each training forward. Zhou et al. 2019, section 4.1 ("supermasks").

    Args:
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        evaluation: "expectation" multiplies weights by sigmoid(score); "draw" uses one fixed draw.
    """

    seed: int = 0
    evaluation: str = "expectation"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed("Sampled", "seed", self.seed, 63)
        check_choice("Sampled", "evaluation", self.evaluation, EVALUATIONS)

    @property
    def ships(self) -> str:
        return "expectation" if self.evaluation == "expectation" else "mask"

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        if training:
            return ops.Mask("sampled", layer.selection, step=recalled(layer, layer.draw), seed=self.seed)
        return ops.Mask("expectation", layer.selection) if self.evaluation == "expectation" else self._fixed(layer)

    def _fixed(self, layer: nn.Module) -> ops.Mask:
        return ops.Mask("sampled", layer.selection, step=torch.zeros_like(layer.draw), seed=self.seed)

    @torch.no_grad()
    def mask(self, layer: nn.Module) -> Tensor:
        return ops.rule_mask(layer.scores, self._fixed(layer), layer.weight_shape, layer=layer.source.layer)

    def kept(self, layer: nn.Module) -> float:
        return float(torch.sigmoid(layer.scores.detach().double()).sum())
