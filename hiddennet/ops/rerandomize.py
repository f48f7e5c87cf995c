"""rerandomize_: draw unrevealed weights anew, for all layers of a network in one call (IteRand, arXiv 2106.09269).

redrawn_weight: the weights that such redraws left behind, from the number of the redraw each one carries.

Decisions and values come from the counter generator by (seed, layer, index, redraw number), so ranks, devices, memory
formats and a resumed run agree to the bit, and nothing is sent between ranks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import (
    ORDERS,
    check_choice,
    check_like,
    check_plane,
    check_same_device,
    check_seed,
    check_tensor,
    dense,
    is_channels_last,
)
from hiddennet.ops.fakes import register_fake, register_void
from hiddennet.ops.inits import KINDS, InitScale

_rerandomize = torch.ops.hiddennet.rerandomize_.default
_redrawn_weight = torch.ops.hiddennet.redrawn_weight.default

MAX_NOTED_REDRAW = 32767  # what an int16 holds
register_void("rerandomize_")


@register_fake("redrawn_weight")
def _(redraws, kind, scale, seed, layer) -> Tensor:
    layout = torch.channels_last if is_channels_last(redraws) else torch.contiguous_format
    return torch.empty(redraws.shape, dtype=torch.float32, device=redraws.device, memory_format=layout)


def check_init(op: str, init: object) -> InitScale:
    """A kind of number and its scale, as init_scale returns them."""
    if not isinstance(init, InitScale):
        raise TypeError(f"{op}: expected an InitScale, got {type(init).__name__}; hiddennet.ops.init_scale makes it")
    check_choice(op, "the kind of an init", init.kind, KINDS[1:])
    return init


def _check_layer(op: str, weight: object, scores: object, init: object, blended: bool) -> tuple[Tensor, Tensor]:
    s = check_tensor(op, "scores", scores, dtypes=(torch.float32,))
    if not (s.is_contiguous() or is_channels_last(s)):
        raise ValueError(f"{op}: expected scores contiguous or channels_last, got strides {s.stride()}")
    kind = check_init(op, init).kind
    if not (isinstance(weight, Tensor) and weight.dtype is torch.uint8):
        return check_like(op, "weights", weight, s, torch.float32), s
    if kind != "signs":
        raise TypeError(f"{op}: expected float32 weights for an init of kind {kind!r}, got a plane of signs (uint8)")
    if blended:
        raise TypeError(f"{op}: expected float32 weights with decay and mix, got a plane of signs (uint8)")
    return check_plane(op, "weights", weight, s), s


def _check_mode(rate: float, redraw: int, noted: bool, decay: float | None, mix: float | None) -> None:
    op = "rerandomize_"
    check_seed(op, "redraw", redraw, 32)
    if redraw < 1:
        raise ValueError(f"{op}: expected redraw >= 1, got {redraw}; 0 is the initial draw")
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{op}: expected a rate in [0, 1], got {rate}")
    if (decay is None) != (mix is None):
        raise ValueError(f"{op}: expected decay and mix together, got decay={decay} and mix={mix}")
    if decay is not None and mix is not None:
        if not (math.isfinite(decay) and math.isfinite(mix)):
            raise ValueError(f"{op}: expected finite decay and mix, got {decay} and {mix}")
        if rate != 1.0:
            raise ValueError(f"{op}: expected rate 1 with decay and mix, got {rate}: all unrevealed weights are mixed")
        if noted:
            raise ValueError(f"{op}: expected no redraws with decay and mix: a mixed weight is no draw's")
    if noted and redraw > MAX_NOTED_REDRAW:
        raise ValueError(f"{op}: expected redraw up to {MAX_NOTED_REDRAW}, what int16 redraws hold, got {redraw}")


def rerandomize_(
    weights: Sequence[Tensor],
    scores: Sequence[Tensor],
    selection: Tensor,
    inits: Sequence[InitScale],
    *,
    seed: int,
    layers: Sequence[int],
    redraw: int,
    rate: float = 1.0,
    by: str = "value",
    redraws: Sequence[Tensor] | None = None,
    decay: float | None = None,
    mix: float | None = None,
) -> None:
    """Replace each unrevealed weight, with probability `rate`, by draw number `redraw` of its distribution. IteRand.

    Revealed weights, and unrevealed ones that were not picked, keep their bits. With decay and mix (IteRand's manual
    mode) every unrevealed weight w becomes decay * w + mix * new instead. A constant is its own draw: layers of that
    kind are left alone, unless mixed. Neither waits for a device nor allocates on it.

    Args:
        weights: one a layer, changed in place: float32 of the scores' shape and memory layout, or, for an init of kind
            "signs", also the plane of signs: uint8 [ceil(n / 8)], OIHW order, 1 = negative.
        scores: float32, OIHW or channels_last memory, all on one device.
        selection: int32 [layers, 4] of topk_select: a weight is revealed if it is kept there.
        inits: the distribution of each layer, of hiddennet.ops.init_scale.
        seed, layers, redraw: name the draws: 63 bits; 32 bits a layer; 1, 2, ... (0 is the initial draw).
        rate: the probability, in [0, 1], rounded to a multiple of 2^-32.
        by: "value" or "magnitude": what the selection ranked.
        redraws: one a layer: int16 of the scores' shape and memory layout, gets `redraw` where a weight was replaced
            (then at most 32767); `redrawn_weight` makes the weights again from it.
        decay, mix: both or none; finite; float32 weights, rate 1 and no redraws.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "rerandomize_"
    if isinstance(weights, Tensor) or isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected non-empty lists of weights and scores, one tensor a layer")
    lists = {"weights": weights, "inits": inits, "layers": layers, "redraws": redraws}
    for name, given in lists.items():
        if given is not None and len(given) != len(scores):
            raise ValueError(f"{op}: expected one entry of {name} a layer ({len(scores)}), got {len(given)}")
    _check_mode(rate, redraw, redraws is not None, decay, mix)
    check_seed(op, "seed", seed, 63)
    for layer in layers:
        check_seed(op, "layers", layer, 32)
    check_choice(op, "by", by, ORDERS)
    checked = [_check_layer(op, w, s, i, decay is not None) for w, s, i in zip(weights, scores, inits, strict=True)]
    first = checked[0][1]
    for _, s in checked[1:]:
        check_same_device(op, "scores", s, "the first layer's", first)
    check_tensor(op, "selection", selection, dtypes=(torch.int32,))
    check_same_device(op, "selection", selection, "the scores", first)
    if selection.shape != (len(scores), 4):
        raise ValueError(f"{op}: expected a selection of shape ({len(scores)}, 4), got {tuple(selection.shape)}")
    noted = [check_like(op, "redraws", r, s, torch.int16) for r, (_, s) in zip(redraws or (), checked, strict=False)]
    changed = [w.detach() for w, _ in checked]
    _rerandomize(
        changed,
        [s.detach() for _, s in checked],
        selection.contiguous(),
        [init.code for init in inits],
        [init.scale for init in inits],
        seed,
        list(layers),
        redraw,
        round(rate * 2**32),
        by == "value",
        noted,
        decay,
        mix,
    )
    if not torch.compiler.is_compiling():  # written behind autograd's back: what saved the old values must know
        torch.autograd.graph.increment_version([*changed, *noted])


def redrawn_weight(redraws: Tensor, init: InitScale, *, seed: int, layer: int = 0) -> Tensor:
    """Return the weights that redraws left behind: element i of draw number redraws[i], 0 being the initial draw.

    Equal to the bit to a weight drawn by generate_weight and then changed by rerandomize_ with these `redraws`.

    Args:
        redraws: int16, any shape and memory format; not negative (a negative number names an arbitrary draw).
        init: the distribution, of hiddennet.ops.init_scale.
        seed, layer: name the draws; 63 and 32 bits.

    Returns:
        float32 of the redraws' shape, contiguous or channels_last as they are.

    Raises:
        TypeError, ValueError: wrong dtype, too large a tensor, no InitScale, seed or layer out of range.
    """
    op = "redrawn_weight"
    r = check_tensor(op, "redraws", redraws, dtypes=(torch.int16,))
    check_init(op, init)
    check_seed(op, "seed", seed, 63)
    check_seed(op, "layer", layer, 32)
    return _redrawn_weight(dense(r), init.code, init.scale, seed, layer)
