"""Wiring: the edges of one graph as one weight, of which a kind of graph keeps some. Wortsman et al., NeurIPS 2019."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim.optimizer import register_optimizer_step_post_hook

from hiddennet import ops
from hiddennet.nn.edges import largest, largest_of_each, original_random_edges, random_edges, ranked
from hiddennet.nn.rules import kept_count
from hiddennet.ops.checks import check_choice, check_seed

KINDS = (
    "dnw",
    "random",
    "dnw_no_update",
    "complete",
    "fine_tune",
    "targeted_dropout",
    "regular_targeted_dropout",
)
_WITH_MASK = ("random", "fine_tune")
_DROPOUTS = ("targeted_dropout", "regular_targeted_dropout")
_steps = 0  # of all optimisers: fused ones write parameters without raising the version that a change is noticed by


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


class _Reveal(torch.autograd.Function):
    """The values, made from the weight before; the gradient goes to the weight times a factor (None: 1)."""

    @staticmethod
    def forward(ctx, weight: Tensor, values: Tensor, factor: Tensor | None) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient if ctx.factor is None else gradient * ctx.factor), None, None


class Wiring(nn.Module):
    """The edges u -> v of a graph of channels: I_v = sum_u w_vu z_u, over the k edges that its kind keeps.

    Kinds ("Discovering Neural Wirings", section 3.1 and its baselines); n = n_sources x n_destinations:
        dnw: the k largest |w| of the whole graph; the gradient goes straight through to every usable edge.
        random: k edges drawn once; only they are trained.
        dnw_no_update: the k largest |w|, at every step; only they are trained.
        complete: every usable edge.
        fine_tune: the k largest |w| at the first use (or freeze()), then these for good; only they are trained.
        targeted_dropout: in training each usable edge that is not among the k largest is dropped with probability
            `drop`, in evaluation all are; edges that are not dropped are trained (Gomez et al. 2019).
        regular_targeted_dropout: the same with the n_sources x density largest of every destination.

    Args:
        n_sources, n_destinations: nodes that edges come from and go to.
        density: k = n - int((1 - density) n); a fraction of all n positions, of which only usable ones are kept.
        kind: see above.
        edges: k itself, instead of a density.
        usable: bool [n_destinations, n_sources], the edges the graph can run; None: all.
        drop: of the targeted dropouts; None: 1 - density.
        chosen: bool [n_destinations, n_sources], the edges of "random" and "fine_tune", or a function that makes them
            (called after the weights were drawn); k is then their number.
        seed: of the edges drawn for "random".
        compat: what the original does: `usable` is for counting only, random edges are drawn from torch's generator,
            targeted dropout computes with |w|.

    Attributes: weight, float32 [n_destinations, n_sources], U(+-1 / sqrt(n_sources)) at first and 0 where an edge is
    not usable (without compat); buffer chosen, bool of its shape, where the kind fixes edges (`fine_tune`: once it
    did); edges, the k. A float64 wiring is ranked in float64.

    The effective weight is made anew after an optimiser's step, a change of the weights or of train(), not for each
    forward; only a targeted dropout draws at each call in training. Who writes to `weight.data` calls forget().

    Raises ValueError: unknown kind, a density outside [0, 1], k larger than the number of usable edges, shapes that
    do not fit.
    """

    chosen: Tensor | None
    usable: Tensor | None

    def __init__(
        self,
        n_sources: int,
        n_destinations: int,
        density: float | None = None,
        kind: str = "dnw",
        *,
        edges: int | None = None,
        usable: Tensor | None = None,
        drop: float | None = None,
        chosen: Tensor | Callable[[], Tensor] | None = None,
        seed: int = 0,
        compat: bool = False,
    ) -> None:
        super().__init__()
        check_choice("Wiring", "kind", kind, KINDS)
        check_seed("Wiring", "seed", seed, 63)
        for name, n in (("n_sources", n_sources), ("n_destinations", n_destinations)):
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ValueError(f"Wiring: expected {name} to be a whole number of at least 1, got {n!r}")
        self.n_sources, self.n_destinations, self.kind, self.compat = n_sources, n_destinations, kind, compat
        self.seed = seed
        shape = (n_destinations, n_sources)
        if usable is not None:
            _check_shape("usable", usable, shape)
        self.register_buffer("usable", None if usable is None else usable.bool(), persistent=False)
        self._asked = density
        if chosen is not None and kind not in _WITH_MASK:
            raise ValueError(f"Wiring: expected no chosen edges for kind {kind!r}, got some; they are for {_WITH_MASK}")
        self.weight = nn.Parameter(torch.empty(shape))
        self.reset_parameters()
        if callable(chosen) and not isinstance(chosen, Tensor):
            chosen = chosen()
        if chosen is not None:
            _check_shape("chosen", chosen, shape)
            edges = int(chosen.count_nonzero())
            density = None
        self.edges = self._budget(density, edges)
        self.drop = self._check_drop(drop)
        if kind == "random" and chosen is None:
            pruned = math.prod(shape) - self.edges
            rows = original_random_edges(shape, pruned) if compat else None
            chosen = random_edges(shape, self.edges, usable, seed) if rows is None else rows
        self.register_buffer("chosen", None if chosen is None else chosen.bool().to(self.weight.device))
        self.forget()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights from torch's generator, as a 1x1 convolution's."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.candidates is not None:
            self.weight.mul_(self.candidates)
        self.forget()

    def _budget(self, density: float | None, edges: int | None) -> int:
        n, candidates = self.weight.numel(), self.candidates
        most = n if candidates is None else int(candidates.count_nonzero())
        if self.kind == "complete":
            return most
        if (density is None) == (edges is None):
            raise ValueError(f"Wiring: expected either a density or a number of edges, got {density} and {edges}")
        if density is not None and not 0.0 <= density <= 1.0:
            raise ValueError(f"Wiring: expected a density in [0, 1] (the kept fraction), got {density}")
        if self.kind == "regular_targeted_dropout":
            if density is None:
                raise ValueError("Wiring: expected a density for kind 'regular_targeted_dropout', got edges alone")
            per_row = kept_count(self.n_sources, density)
            if candidates is None:
                return per_row * self.n_destinations
            return int(candidates.sum(dim=1).clamp(max=per_row).sum())
        k = kept_count(n, density) if edges is None else edges
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= most:
            asked = f"{k}" if edges is not None else f"{k} (density {density} of {n} positions)"
            raise ValueError(f"Wiring: expected at most {most} edges, the usable ones, got {asked}; keep fewer edges")
        return k

    def _check_drop(self, drop: float | None) -> float | None:
        if self.kind not in _DROPOUTS:
            if drop is not None:
                raise ValueError(f"Wiring: expected no drop for kind {self.kind!r}, got {drop}; it is for {_DROPOUTS}")
            return None
        if drop is None:
            drop = 1 - self._asked if self._asked is not None else 1 - self.edges / self.weight.numel()
        if not 0.0 <= drop <= 1.0:
            raise ValueError(f"Wiring: expected drop to be a probability in [0, 1], got {drop}")
        return drop

    @property
    def candidates(self) -> Tensor | None:
        """The edges that may be kept, bool [n_destinations, n_sources]; None: all."""
        return None if self.compat else self.usable

    def forget(self) -> None:
        """Drop the effective weight made last, so that the next forward makes it again."""
        self._made: tuple[Tensor, Tensor | None] | None = None
        self._made_for: tuple | None = None
        self._hint: Tensor | None = None

    def train(self, mode: bool = True) -> Wiring:
        if mode != self.training:
            self.forget()
        return super().train(mode)

    @torch.no_grad()
    def freeze(self) -> None:
        """Fix the k largest edges of a "fine_tune" wiring as they are now; later calls change nothing."""
        if self.kind != "fine_tune":
            raise ValueError(f"Wiring: expected kind 'fine_tune' to be frozen, got {self.kind!r}")
        if self.chosen is None:
            self.chosen = largest(self.weight, self.edges, self.candidates)

    @torch.no_grad()
    def mask(self) -> Tensor:
        """The kept edges, in evaluation: bool [n_destinations, n_sources]."""
        if self.kind == "fine_tune":
            self.freeze()
        if self.chosen is not None:
            return self.chosen.clone()
        if self.kind == "complete":
            return (
                torch.ones_like(self.weight, dtype=torch.bool) if self.candidates is None else self.candidates.clone()
            )
        if self.kind == "regular_targeted_dropout":
            return largest_of_each(self.weight, kept_count(self.n_sources, self._asked), self.candidates)
        return largest(self.weight, self.edges, self.candidates)

    @torch.no_grad()
    def running(self) -> Tensor:
        """The kept edges that the graph runs, bool: mask() without unusable ones, which only compat can keep."""
        return self.mask() if self.usable is None else self.mask() & self.usable

    @property
    def density(self) -> float:
        """The kept fraction of all positions."""
        return self.edges / self.weight.numel()

    @property
    def made(self) -> Tensor | None:
        """The effective weight made last, without gradient, for as long as it is the right one; None: not kept."""
        return None if self._made is None or (self.kind in _DROPOUTS and self.training) else self._made[0]

    def effective_weight(self, *, dropped: Tensor | None = None, usable_only: bool = False) -> Tensor:
        """The weight the graph runs: [n_destinations, n_sources], +0 where there is no edge; differentiable.

        usable_only: its gradient is 0 anyway where an edge is not usable, which spares making it so.
        dropped: bool, in training the draw of a targeted dropout (True drops an edge that is not among the k largest);
        None: drawn from torch's generator.
        """
        values, factor = self._current(dropped)
        if usable_only and self.kind in ("dnw", "complete"):
            factor = None
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return _Reveal.apply(self.weight, values, factor)
        return values

    @torch.no_grad()
    def _current(self, dropped: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.kind in _DROPOUTS and self.training:
            return self._dropped_out(dropped)
        if dropped is not None:
            raise ValueError("Wiring: expected a draw for a targeted dropout in training alone, got one elsewhere")
        if torch.compiler.is_compiling():
            return self._make()
        weight = self.weight
        key = (
            weight.data_ptr(),
            weight._version,
            weight.device,
            weight.dtype,
            _steps,
            torch.is_inference_mode_enabled(),
        )
        if self.chosen is not None:
            key += (self.chosen.data_ptr(), self.chosen._version)
        if self._made is None or self._made_for != key:
            self._made, self._made_for = self._make(), key
        return self._made

    def _make(self) -> tuple[Tensor, Tensor | None]:
        """The effective weight and what its gradient is multiplied by."""
        weight, kind = self.weight.detach(), self.kind
        if kind == "dnw":
            return self._top_edges(weight), self.candidates
        if kind == "complete":
            return (weight if self.candidates is None else weight * self.candidates), self.candidates
        mask = self.mask()
        if kind in _DROPOUTS and self.compat:
            return _where(mask, weight.abs()), mask * weight.sign()
        return _where(mask, weight), mask

    def _top_edges(self, weight: Tensor) -> Tensor:
        if weight.dtype != torch.float32:
            return _where(largest(weight, self.edges, self.candidates), weight)
        scores, by = ranked(weight, self.candidates)
        source = ops.WeightSource("stored", weight.shape, stored=weight.contiguous())
        hint = self._hint if self._hint is not None and self._hint.device == weight.device else None
        values, self._hint = ops.topk_weight(scores.contiguous(), self.edges, source=source, by=by, hint=hint)
        return values

    def _dropped_out(self, dropped: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = self.weight.detach()
        if dropped is None:
            dropped = torch.rand_like(weight) < self.drop
        _check_shape("dropped", dropped, tuple(weight.shape))
        left = self.mask() | ~dropped.bool()
        if self.candidates is not None:
            left &= self.candidates
        if self.compat:
            return _where(left, weight.abs()), left * weight.sign()
        return _where(left, weight), left

    def forward(self, z: Tensor) -> Tensor:
        """Run all edges at once: z [batch, n_sources] or [batch, n_sources, H, W] to n_destinations channels."""
        if z.dim() not in (2, 4) or z.shape[1] != self.n_sources:
            raise ValueError(
                f"Wiring: expected [batch, {self.n_sources}] or [batch, {self.n_sources}, H, W], got {tuple(z.shape)}"
            )
        weight = self.effective_weight()
        return F.linear(z, weight) if z.dim() == 2 else F.conv2d(z, weight[:, :, None, None])

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        saved = state_dict.get(f"{prefix}chosen")
        if self.kind == "fine_tune":  # frozen as the state dict is
            self.chosen = None if saved is None else torch.empty_like(self.weight, dtype=torch.bool)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if self.chosen is not None:
            self.edges = int(self.chosen.count_nonzero())
        self.forget()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_made": None, "_made_for": None, "_hint": None}

    def extra_repr(self) -> str:
        counted = f"{self.n_sources}, {self.n_destinations}, kind={self.kind!r}, edges={self.edges}"
        return counted + (", compat=True" if self.compat else "")


def _where(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def _check_shape(what: str, mask: Tensor, shape: tuple[int, int]) -> None:
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"Wiring: expected {what} of shape {tuple(shape)}, got {tuple(mask.shape)}")
