"""Rules that draw: what tells a forward's draw, Sampled, and TargetedDropout, by which the largest weights stay."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rule import Rule
from hiddennet.nn.rules import TopK, check_fraction
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


@torch.no_grad()
def not_dropped(weight: Tensor, kept: Tensor, drop: float, *, seed: int, layer: int, step: Tensor) -> Tensor:
    """What takes part in a training step: bool of the weight's shape.

    All of `kept` does, every other element with probability 1 - drop: a function of (seed, layer, index, step), the
    same on every device. No sort, no synchronisation with the host. step: int64, one element, on the device.
    """
    # a uniform number below 1 never exceeds 2
    chance = torch.full_like(weight, 1.0 - drop, dtype=torch.float32).masked_fill_(kept, 2.0)
    every = torch.full(((weight.numel() + 7) // 8,), 255, dtype=torch.uint8, device=weight.device)
    return ops.rule_mask(chance, ops.Mask.rounded_at_random(step, seed, every), weight.shape, layer=layer)


@register("rule", "targeted_dropout")
@dataclass(frozen=True)
class TargetedDropout(TopK):
    """The largest of the layer's own stored weights; in training each other weight too, unless it is dropped.

    Gomez et al. 2019 (arXiv 1905.13678), as "Discovering Neural Wirings" compares with it: the candidates are all
    weights but the largest. Gradients reach what takes part in the step (with a source Stored(trainable=True), whose
    gradient is "masked").

    Args:
        density: kept fraction in [0, 1] in evaluation.
        drop: probability with which a candidate is left out of a training forward, in [0, 1].
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        scope, rounding: as in TopK.
    """

    steady: ClassVar[bool] = False
    by: str = field(default="magnitude", init=False)
    scope: str = field(default="layer", kw_only=True)
    of: str = field(default="weights", init=False)
    rounding: str = field(default="decimal", kw_only=True)
    drop: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("TargetedDropout", "drop", self.drop, "a probability")
        check_seed("TargetedDropout", "seed", self.seed, 63)

    attach = Drawn.attach
    after_forward = Drawn.after_forward

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        largest = layer.selected()
        if not training:
            return largest
        weight, number = layer.stored.detach(), layer.source.layer
        kept = ops.rule_mask(weight, largest, layer.weight_shape, layer=number)
        step = recalled(layer, layer.draw)
        running = not_dropped(weight, kept, self.drop, seed=self.seed, layer=number, step=step)
        return ops.Mask("bits", largest.selection, bits=ops.pack_mask(running))
