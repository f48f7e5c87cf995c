"""masked_weight: mask x source -> the effective weight in one pass. Edge-popup eq. 3, backward eq. 5.

The backward is straight-through: every score gets dL/dweight_eff x weight x (sign of the score, where magnitudes are
ranked; p (1 - p), where it is sampled), kept or not. Neither mask nor product is saved: both are made again from the
scores, the seed and 16 bytes of selection.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hiddennet.ops.checks import dense, in_layout, is_channels_last
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.generate_weight import WeightSource
from hiddennet.ops.inits import KINDS
from hiddennet.ops.mask import CODES, SCORELESS, Mask

_masked_weight = torch.ops.hiddennet.masked_weight.default
_masked_weight_backward = torch.ops.hiddennet.masked_weight_backward.default

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


class MaskedWeight(NamedTuple):
    """A layer's weight as the ops take it: scores, mask and source in one object, their arguments in schema order.

    The last three are no arguments: `order`, the code of the selection whose straight-through derivative the scores of
    a packed mask take (None: the mask's own); `through`: stored weights get the gradient of pruned ones too; `ahead`:
    the weight as hiddennet.nn.ahead may have made it.
    """

    scores: Tensor | None
    selection: Tensor
    shape: list[int]
    channels_last: bool
    mask: int
    bits: Tensor | None
    step: Tensor | None
    mask_seed: int
    source: int
    stored: Tensor | None
    plane: Tensor | None
    scale: float
    seed: int
    layer: int
    redraw: int
    order: int | None = None
    through: bool = False
    ahead: Any = None

    @classmethod
    def of(cls, scores: Tensor | None, mask: Mask, source: WeightSource) -> MaskedWeight:
        """Parts that fit, which is not checked; all dense, in the layout of the scores, or else of stored weights."""
        stored = source.stored
        reads = mask.order is not None or mask.kind not in SCORELESS
        scores = dense(scores) if scores is not None and reads else None
        if stored is not None:
            stored = dense(stored) if scores is None else in_layout(stored, is_channels_last(scores))
        first = stored if scores is None else scores
        channels_last = first is not None and is_channels_last(first)
        return cls(
            scores,
            mask.selection,
            list(source.shape),
            channels_last,
            CODES[mask.kind],
            mask.bits,
            mask.step,
            mask.seed,
            KINDS.index(source.kind),
            stored,
            source.plane,
            source.scale,
            source.seed,
            source.layer,
            source.redraw,
            None if mask.order is None else CODES[mask.order],
            source.through,
        )

    def write(self, dtype: torch.dtype) -> Tensor:
        """The effective weight, without a gradient."""
        made = None if self.ahead is None else self.ahead.take(dtype)
        if made is not None:
            return made
        return _masked_weight(*self[:N_ARGUMENTS], DTYPE_CODES[dtype])

    def save(self, ctx: Any, *others: Tensor | None) -> None:
        """Keep `others` and these parts, all of which exist anyway, in an autograd function's context."""
        ctx.save_for_backward(*others, self.scores, self.selection, self.bits, self.step, self.stored, self.plane)
        ctx.numbers = (self.shape, self.channels_last, self.mask, self.mask_seed, self.source, *self[11:-1])

    @classmethod
    def saved(cls, ctx: Any) -> tuple[list[Tensor | None], MaskedWeight]:
        """What save() kept."""
        *others, scores, selection, bits, step, stored, plane = ctx.saved_tensors
        shape, channels_last, mask, seed, source, *rest = ctx.numbers
        weight = cls(scores, selection, shape, channels_last, mask, bits, step, seed, source, stored, plane, *rest)
        return others, weight

    def gradients(
        self, grad: Tensor, want_scores: bool, want_stored: bool, ctx: Any = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(dL/dscores, dL/dstored), each where it is wanted, from that of the effective weight.

        ctx: of the backward that returns them: scores that take dL/dweight in place of theirs (hiddennet.optim) do.
        """
        masked = want_stored and not self.through
        twice = grad.requires_grad  # create_graph: once_differentiable is to say that there is no second gradient
        grad = in_layout(grad, self.channels_last)
        if ctx is not None and want_scores and not (want_stored or twice or torch.compiler.is_compiling()):
            owe = getattr(self.scores, "owe", None)
            if owe is not None and owe(self._replace(scores=None), grad, ctx.next_functions):
                return None, None
        to_scores = to_stored = None
        scores, selection, _, channels_last, mask, *others = self[:N_ARGUMENTS]
        own = want_scores and self.order is None
        if own or masked:
            product = _masked_weight_backward(grad, scores, selection, channels_last, mask, *others, own, masked)
            to_scores, to_stored = product[0] if own else None, product[1] if masked else None
        if want_scores and not own:
            to_scores = _masked_weight_backward(
                grad, scores, selection, channels_last, self.order, *others, True, False
            )[0]
        if want_stored and self.through:
            to_stored = grad.to(torch.float32)
        return to_scores, to_stored


N_PARTS = len(MaskedWeight._fields)
N_ARGUMENTS = N_PARTS - 3  # of the schemas


def part_gradients(to_scores: Tensor | None, to_stored: Tensor | None) -> list[Tensor | None]:
    """What an autograd function returns for a MaskedWeight's parts."""
    found: list[Tensor | None] = [None] * N_PARTS
    found[0], found[9] = to_scores, to_stored
    return found


@register_fake("masked_weight")
def _(*arguments) -> Tensor:
    *parts, dtype = arguments
    weight = MaskedWeight(*parts)
    device, layout = weight.selection.device, _format(weight.channels_last)
    return torch.empty(weight.shape, dtype=_DTYPES[dtype], device=device, memory_format=layout)


@register_fake("topk_weight")
def _(scores, *others) -> tuple[Tensor, Tensor]:
    row = torch.empty((1, 4), dtype=torch.int32, device=scores.device)
    return torch.empty_like(scores, dtype=_DTYPES[others[-1]]), row


@register_fake("masked_weight_backward")
def _(grad, scores, selection, channels_last, *others) -> tuple[Tensor, Tensor]:
    def like(wanted: bool) -> Tensor:
        shape = grad.shape if wanted else 0
        layout = _format(wanted and channels_last)
        return torch.empty(shape, dtype=torch.float32, device=grad.device, memory_format=layout)

    return like(others[-2]), like(others[-1])


class _MaskedWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dtype: torch.dtype, *parts):
        weight = MaskedWeight(*parts)
        weight.save(ctx)
        return weight.write(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        _, weight = MaskedWeight.saved(ctx)
        want_scores, want_stored = ctx.needs_input_grad[1], ctx.needs_input_grad[10]
        return None, *part_gradients(*weight.gradients(grad, want_scores, want_stored, ctx))


def effective_weight(weight: MaskedWeight | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """masked_weight without the checks: for layers, whose parts agree by construction. A weight that is made stays."""
    if isinstance(weight, Tensor):
        return weight
    made = None if weight.ahead is None else weight.ahead.take(dtype, graph=True)
    if made is not None:
        return made
    scores, stored = weight.scores, weight.stored
    learns = (scores is not None and scores.requires_grad) or (stored is not None and stored.requires_grad)
    return _MaskedWeight.apply(dtype, *weight) if learns and torch.is_grad_enabled() else weight.write(dtype)
