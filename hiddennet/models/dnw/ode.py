"""dopri5 as torchdiffeq had it in April 2019: the solver that continuous wirings were published with."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (t, y) to (dy/dt, y as the function left it)

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (
    35 / 384 - 1951 / 21600,
    0.0,
    500 / 1113 - 22642 / 50085,
    125 / 192 - 451 / 720,
    -2187 / 6784 + 12231 / 42400,
    11 / 84 - 649 / 6300,
    -1 / 60,
)
MIDDLE = (
    6025192743 / 30085553152 / 2,
    0.0,
    51252292925 / 65400821598 / 2,
    -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2,
    -1776094331 / 19743644256 / 2,
    11237099 / 235043384 / 2,
)
# the original's step control holds these in float32
EXPONENT, SAFETY, SHRINK = (float(torch.tensor(x, dtype=torch.float32)) for x in (0.2, 0.9, 0.2))


class NotConverged(RuntimeError):
    """The solver gave up; its text says why and what to do."""


def dopri5(function: Function, y: Tensor, *, tolerance: float, max_steps: int) -> Tensor:
    """y(1) of dy/dt = f(t, y), y(0) = y, with rtol = atol = tolerance; differentiable, step sizes too.

    Dormand and Prince 5(4), steps controlled by the mean squared error over the whole tensor, the last step's quartic
    interpolated at t = 1. `function` also returns the state as it left it, which the solver goes on with.

    Raises NotConverged: more than max_steps steps attempted, a step too short to count, an error that is no number.
    """
    t = y.new_zeros((), dtype=torch.float64)
    slope, y = function(t, y)
    step = _first_step(function, y, slope, tolerance).to(torch.float64)
    for _ in range(max_steps):
        if not (t + step).item() > t.item():
            raise NotConverged(_gave_up(tolerance, f"a step of {step.item():.3g} at t = {t.item():.4g}"))
        short = step.to(y.dtype)
        slopes, after = [slope], y
        for node, row in zip(NODES, STAGES, strict=True):
            following, after = function(t + node * step, y + _sum(short, slopes, row))
            slopes.append(following)
        error = _sum(short, slopes, ERROR)
        scale = tolerance + tolerance * torch.maximum(y.abs(), after.abs())
        ratio = ((error / scale) ** 2).mean()
        size = ratio.item()
        if not math.isfinite(size):
            raise NotConverged(_gave_up(tolerance, f"an error that is no number at t = {t.item():.4g}"))
        if size <= 1:
            if (t + step).item() >= 1:
                middle = y + _sum(short, slopes, MIDDLE)
                return _interpolate(y, middle, after, slopes[0], slopes[-1], t, step)
            t, y, slope = t + step, after, slopes[-1]
        step = _next_step(step, ratio, size)
    raise NotConverged(_gave_up(tolerance, f"t = {t.item():.4g} after {max_steps} steps"))


def _gave_up(tolerance: float, got: str) -> str:
    return (
        f"ContinuousGraph: expected the ODE to be solved to t = 1 with tolerance {tolerance}, got {got}; "
        "raise tolerance or max_steps, or look for weights that have grown out of bounds"
    )


def _sum(step: Tensor, slopes: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """step x (the slopes weighted by factors); products and sums are rounded one by one, in order, so that step sizes,
    which hang on errors close to rounding, are the original's to the last bit."""
    total = slopes[0] * (step * factors[0])
    for slope, factor in zip(slopes[1:], factors[1:], strict=True):
        if factor:
            total = total + slope * (step * factor)
    return total


def _rms(x: Tensor) -> Tensor:
    return x.norm() / math.sqrt(x.numel())


def _first_step(function: Function, y: Tensor, slope: Tensor, tolerance: float) -> Tensor:
    scale = tolerance + y.abs() * tolerance
    d0, d1 = _rms(y / scale), _rms(slope / scale)
    guess = y.new_tensor(1e-6) if d0.item() < 1e-5 or d1.item() < 1e-5 else 0.01 * d0 / d1
    second, _ = function(guess.to(torch.float64), y + guess * slope)
    d2 = _rms((second - slope) / scale) / guess
    if d1.item() <= 1e-15 and d2.item() <= 1e-15:
        finer = torch.maximum(y.new_tensor(1e-6), guess * 1e-3)
    else:
        finer = (0.01 / (d1 if d1.item() >= d2.item() else d2)) ** (1 / 5)
    return torch.minimum(100 * guess, finer)


def _next_step(step: Tensor, ratio: Tensor, size: float) -> Tensor:
    if size == 0:
        return step * 10
    most = 1.0 if size < 1 else 1 / SHRINK
    return step / ((ratio.sqrt().to(step.dtype) ** EXPONENT) / SAFETY).clamp(min=0.1, max=most)


def _interpolate(y0: Tensor, middle: Tensor, y1: Tensor, f0: Tensor, f1: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """The quartic through both ends, their slopes and the middle, at time 1."""
    short = step.to(y0.dtype)
    x = ((1.0 - t) / ((t + step) - t)).to(y0.dtype)
    a = 2 * short * (f1 - f0) - 8 * (y1 + y0) + 16 * middle
    b = short * (5 * f0 - 3 * f1) + 18 * y0 + 14 * y1 - 32 * middle
    c = short * (f1 - 4 * f0) - 11 * y0 - 5 * y1 + 16 * middle
    return ((((a * x + b) * x + c) * x) + short * f0) * x + y0
