"""Initialisations by name: what kind of number a weight is, and its scale for a shape. The one table of them.

A row is a function of a Fan that returns an InitScale; a user registers one with `hn.register("init", name)`. Kinds are
those of csrc/base/distributions.cuh. Sources: He et al. 2015 (kaiming), Glorot and Bengio 2010 (xavier), Ramanujan et
al. 2020 (signed_constant, and fans scaled by the density), Peek-a-Boo (laplace, xavier_constant).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from hiddennet.ops.checks import check_choice
from hiddennet.registry import REGISTRIES

MODES = ("fan_in", "fan_out")

# Kinds of numbers, by the codes of csrc/base/source.cuh; after "signs" in the order of HN_DISTRIBUTIONS.
KINDS = ("stored", "constant", "signs", "uniform", "normal", "laplace", "truncated_normal")


class InitScale(NamedTuple):
    """An initialisation for one shape: a kind of number of KINDS, not "stored", times a scale.

    kind: "constant" 1, "signs" +-1, "uniform" U(-1, 1), "normal" N(0, 1), "laplace" Laplace(0, 1),
    "truncated_normal" N(0, 1) given that it lies within [-2, 2].
    """

    kind: str
    scale: float

    @property
    def code(self) -> int:
        """What the ops call the kind."""
        return KINDS.index(self.kind)

    @property
    def drawn(self) -> bool:
        """Whether magnitudes are drawn too, and not signs at most."""
        return self.code > KINDS.index("signs")


class Fan(NamedTuple):
    """What the scale of a weight [out, in, *kernel] may depend on.

    fan: the one of fan_in and fan_out that `mode` names. kept: it times the density where scale_fan asks for that.
    gain: of the nonlinearity, as torch.nn.init has it.
    """

    fan_in: int
    fan_out: int
    fan: int
    kept: float
    gain: float


INITS = REGISTRIES["init"]


def _row(name: str, kind: str, scale: Callable[[Fan], float], says: str) -> None:
    def init(f: Fan) -> InitScale:
        return InitScale(kind, scale(f))

    init.__doc__ = says
    INITS.add(name, init)


# F: the fan times the density of scale_fan; g: the gain. Who reads `kept` can be scaled, who reads `fan` cannot.
_row("signed_constant", "signs", lambda f: f.gain / math.sqrt(f.kept), "+-g / sqrt(F)")
_row("unsigned_constant", "constant", lambda f: f.gain / math.sqrt(f.kept), "g / sqrt(F)")
_row("kaiming_normal", "normal", lambda f: f.gain / math.sqrt(f.kept), "N(0, g^2 / F)")
_row(
    "kaiming_truncated",  # JAX's and Keras's he_normal; lecun_normal with nonlinearity "linear"
    "truncated_normal",
    lambda f: f.gain / math.sqrt(f.kept) / 0.8796256610342398,  # the deviation that is left within [-2, 2]
    "N(0, g^2 / F), cut at 2 deviations of the uncut one",
)
_row("kaiming_uniform", "uniform", lambda f: math.sqrt(3.0) * f.gain / math.sqrt(f.fan), "U(+-g sqrt(3 / fan))")
_row("kaiming_laplace", "laplace", lambda f: f.gain / math.sqrt(2.0 * f.kept), "Laplace(0, g / sqrt(2 F))")
_row("xavier_normal", "normal", lambda f: math.sqrt(2.0 / (f.fan_in + f.fan_out)), "N(0, 2 / (fan_in + fan_out))")
_row("xavier_constant", "signs", lambda f: math.sqrt(2.0 / (f.fan_in + f.fan_out)), "+-sqrt(2 / (fan_in + fan_out))")
_row("standard", "uniform", lambda f: 1.0 / math.sqrt(f.fan_in), "U(+-1 / sqrt(fan_in))")
_row("uniform", "uniform", lambda f: 1.0, "U(-1, 1)")


def scales_fan(init: str) -> bool:
    """Whether the scale of this initialisation depends on the density, so that scale_fan serves it."""
    return INITS[init](Fan(2, 2, 2, 1.0, 1.0)) != INITS[init](Fan(2, 2, 2, 2.0, 1.0))


def fan_scaled() -> list[str]:
    """The initialisations that scale_fan serves."""
    return [init for init in INITS if scales_fan(init)]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, *kernel], as in torch.nn.init."""
    if len(shape) < 2:
        raise ValueError(f"generate_weight: expected a weight of at least 2 dimensions, got shape {tuple(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def init_scale(
    shape: tuple[int, ...],
    init: str,
    *,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    density: float | None = None,
) -> InitScale:
    """Return the kind of number and its scale for a weight of this shape: the row of INITS, applied.

    Args:
        shape: [out, in, *kernel].
        init: one of hiddennet.ops.INITS.
        mode: "fan_in" or "fan_out", the fan that the variance is divided by.
        nonlinearity: whose gain it is multiplied by, of torch.nn.init.calculate_gain.
        density: the kept fraction to scale the fan by (what the papers call scale_fan), or None.

    Raises:
        ValueError: unknown init, mode or nonlinearity; a density outside (0, 1]; a density for an init without it; an
            init of a user's own that gives no kind of KINDS or no finite scale.
    """
    op = "generate_weight"
    check_choice(op, "init", init, tuple(INITS))
    check_choice(op, "mode", mode, MODES)
    fan_in, fan_out = fans(tuple(shape))
    if fan_in == 0 or fan_out == 0:
        raise ValueError(f"{op}: expected a weight with elements, got shape {tuple(shape)}")
    if density is not None:
        if not scales_fan(init):
            raise ValueError(f"{op}: expected no scale_fan for init {init!r}; it serves {', '.join(fan_scaled())}")
        if not 0.0 < density <= 1.0:
            raise ValueError(f"{op}: expected a density in (0, 1] to scale the fan by, got {density}")
    try:
        gain = torch.nn.init.calculate_gain(nonlinearity)
    except ValueError:
        raise ValueError(f"{op}: expected a nonlinearity torch.nn.init knows, got {nonlinearity!r}") from None
    fan = fan_in if mode == "fan_in" else fan_out
    scaled = INITS[init](Fan(fan_in, fan_out, fan, fan * (1.0 if density is None else density), gain))
    if not isinstance(scaled, InitScale) or scaled.kind not in KINDS[1:] or not math.isfinite(scaled.scale):
        raise ValueError(
            f"{op}: expected init {init!r} to return InitScale(kind of {', '.join(KINDS[1:])}, finite scale), "
            f"got {scaled!r}"
        )
    return scaled
