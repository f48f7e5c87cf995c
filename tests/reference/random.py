"""The counter generator in plain PyTorch: Philox4x32-10 (Salmon et al., SC 2011) and what is made of its words.

Every float32 step is one torch operation, so it is rounded once, as in csrc/base/rng.cuh; results are equal to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIGNS, UNIFORM, NORMAL, BERNOULLI, REDRAW, LAPLACE, TRUNCATED = 0, 1, 2, 3, 4, 5, 6  # streams
_MASK = 0xFFFFFFFF


def _mul(constant: int, c: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of constant * c, for 32-bit values held in int64."""
    low = constant * (c & 0xFFFF)
    high = constant * (c >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(block: Tensor, layer: int, redraw: int, stream: int, seed: int) -> Tensor:
    """Return the four words of each block: int64 [..., 4] in [0, 2^32)."""
    c0 = block.to(torch.int64)
    c1 = torch.full_like(c0, layer & _MASK)
    c2 = torch.full_like(c0, redraw & _MASK)
    c3 = torch.full_like(c0, stream)
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        hi0, lo0 = _mul(0xD2511F53, c0)
        hi1, lo1 = _mul(0xCD9E8D57, c2)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def _words(n: int, seed: int, layer: int, redraw: int, stream: int) -> Tensor:
    """Word of each of n elements, four a block: int64 [n]."""
    blocks = torch.arange((n + 3) // 4)
    return philox(blocks, layer, redraw, stream, seed).flatten()[:n]


def _log_unit(x: Tensor) -> Tensor:
    """log(x * 2^-24) of odd int64 x < 2^24, as float32."""
    return _log(x.to(torch.float32), 24)


def _log(x: Tensor, shift: int = 0) -> Tensor:
    """log(x * 2^-shift) of positive normal float32 (Cephes logf's polynomial)."""
    bits = x.view(torch.int32).to(torch.int64)
    mantissa = bits & 0x007FFFFF
    high = (mantissa > 0x3504F3).to(torch.int64)
    e = ((bits >> 23) - 127 + high - shift).to(torch.float32)
    m = (mantissa | torch.where(high == 1, 0x3F000000, 0x3F800000)).to(torch.int32)
    f = m.view(torch.float32) - 1.0
    z = f * f
    y = torch.full_like(f, 7.0376836292e-2)
    for c in (
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    ):
        y = y * f + c
    y = (y * f) * z
    y = y + e * -2.12194440e-4
    y = y + z * -0.5
    return (f + y) + e * 0.693359375


def _normal_pair(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Box-Muller: two standard normals from two words each."""
    squared = _log_unit(2 * (radius >> 9) + 1) * -2.0
    r = squared.double().sqrt().float()  # torch's float32 sqrt may be off by one ulp on a CPU
    turn = angle >> 8
    t = (2 * (turn & 0x3FFFFF) + 1 - (1 << 22)).to(torch.float32) * 1.8725351414619643e-07
    z = t * t
    s = z * -1.9515295891e-4 + 8.3321608736e-3
    s = s * z + -1.6666654611e-1
    s = (s * z) * t + t
    c = z * 2.443315711809948e-5 + -1.388731625493765e-3
    c = c * z + 4.166664568298827e-2
    c = ((c * z) * z + z * -0.5) + 1.0
    quadrant = turn >> 22
    x, y = torch.where(quadrant % 2 == 1, s, c), torch.where(quadrant % 2 == 1, c, s)
    x = torch.where((quadrant == 1) | (quadrant == 2), -x, x)
    y = torch.where(quadrant >= 2, -y, y)
    return r * x, r * y


def signs(n: int, *, seed: int, layer: int = 0, redraw: int = 0) -> Tensor:
    """Return bool [n]: True where the weight is negative."""
    blocks = torch.arange((n + 127) // 128)
    words = philox(blocks, layer, redraw, SIGNS, seed).flatten()
    return ((words[:, None] >> torch.arange(32)) & 1).flatten()[:n].bool()


def uniforms(n: int, *, seed: int, layer: int = 0, redraw: int = 0) -> Tensor:
    """Return float32 [n] uniform in (-1, 1): odd multiples of 2^-24, never 0."""
    words = _words(n, seed, layer, redraw, UNIFORM)
    return (2 * (words >> 8) + 1 - (1 << 24)).to(torch.float32) * 2.0**-24


def normals(n: int, *, seed: int, layer: int = 0, redraw: int = 0) -> Tensor:
    """Return float32 [n] standard normal."""
    blocks = torch.arange((n + 3) // 4)
    words = philox(blocks, layer, redraw, NORMAL, seed)
    pairs = [_normal_pair(words[:, 0], words[:, 1]), _normal_pair(words[:, 2], words[:, 3])]
    return torch.stack([*pairs[0], *pairs[1]], dim=-1).flatten()[:n]


def laplaces(n: int, *, seed: int, layer: int = 0, redraw: int = 0) -> Tensor:
    """Return float32 [n] of Laplace(0, 1): a sign, and -log of a uniform; never 0."""
    words = _words(n, seed, layer, redraw, LAPLACE)
    size = -_log_unit(2 * (words >> 9) + 1)
    return torch.where(words % 2 == 1, -size, size)


def truncated_normals(n: int, *, seed: int, layer: int = 0, redraw: int = 0) -> Tensor:
    """Return float32 [n] of a standard normal within [-2, 2]: sqrt(2) erfinv(u erf(sqrt 2)) of a uniform u."""
    words = _words(n, seed, layer, redraw, TRUNCATED)
    x = (2 * (words >> 8) + 1 - (1 << 24)).to(torch.float32) * 2.0**-24 * 0.95449972
    w = -_log(1.0 - x * x) - 2.5
    p = torch.full_like(w, 2.81022636e-08)
    for c in (
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        2.1858087e-04,
        -1.25372503e-03,
        -4.17768164e-03,
        2.46640727e-01,
        1.50140941,
    ):
        p = p * w + c
    return p * x * 1.41421356


def bernoulli_logits(n: int, *, seed: int, layer: int = 0, step: int = 0) -> Tensor:
    """Return float32 [n]: logit(u) of a uniform u; a Bernoulli(sigmoid(s)) draw is 1 where s > logit(u)."""
    x = 2 * (_words(n, seed, layer, step, BERNOULLI) >> 9) + 1
    return _log_unit(x) - _log_unit((1 << 24) - x)


def bernoulli_units(n: int, *, seed: int, layer: int = 0, step: int = 0) -> Tensor:
    """Return float32 [n]: the uniform u in (0, 1) itself; a Bernoulli(p) draw is 1 where p > u."""
    return (2 * (_words(n, seed, layer, step, BERNOULLI) >> 9) + 1).to(torch.float32) * 2.0**-24


def generate(kind: str, scale: float, n: int, *, seed: int, layer: int = 0, redraw: int = 0) -> Tensor:
    """Return float32 [n] in OIHW order; kind: one of hiddennet.ops.inits.KINDS, not "stored"."""
    c = torch.tensor(scale, dtype=torch.float32)
    if kind == "constant":
        return c.expand(n).clone()
    if kind == "signs":
        return torch.where(signs(n, seed=seed, layer=layer, redraw=redraw), -c, c)
    draw = {"uniform": uniforms, "normal": normals, "laplace": laplaces, "truncated_normal": truncated_normals}
    return draw[kind](n, seed=seed, layer=layer, redraw=redraw) * c
