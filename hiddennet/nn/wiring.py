"""Wiring: the edges of one graph as one weight, of which a kind of graph keeps some. Wortsman et al., NeurIPS 2019."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.nn.block_sums import Blocks, EdgeLists, edge_lists
from hiddennet.nn.edge_rules import (
    KINDS,
    RULES,
    WITH_EDGES,
    EdgeRule,
    drop_rate,
    original_random_edges,
    prefixes,
    random_edges,
    reveal,
    taking_part,
)
from hiddennet.nn.memo import Memo, check_no_transform
from hiddennet.nn.sampled import in_backward, not_dropped, recalled
from hiddennet.ops.checks import check_choice, check_counts, check_seed


def _check_shape(what: str, mask: Tensor, shape: tuple[int, int]) -> None:
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"Wiring: expected {what} of shape {tuple(shape)}, got {tuple(mask.shape)}")


class Wiring(nn.Module):
    """The edges u -> v of a graph of channels: I_v = sum_u w_vu z_u, over the k edges that its kind keeps.

    Kinds (of "Discovering Neural Wirings" and what it is compared with); n = n_sources x n_destinations:
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
        seed, layer: of the edges drawn for "random"; a targeted dropout's draw is a function of (seed, layer, index,
            training step), which `draw` counts.
        compat: what the original does: `usable` is for counting only, random edges are drawn from torch's generator,
            targeted dropout computes with |w|.

    Attributes: weight, float32 [n_destinations, n_sources], U(+-1 / sqrt(n_sources)) at first and 0 where an edge is
    not usable (without compat); buffer chosen, bool of its shape, where the kind fixes edges (`fine_tune`: once it
    did); edges, the k. A float64 wiring is ranked in float64.

    The effective weight and the lists of its edges are made anew after an optimiser's step, a change of the weights or
    of train(), not for each forward; only a targeted dropout draws at each call in training. Who writes to
    `weight.data` calls forget(), or hiddennet.refresh.

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
        layer: int = 0,
        compat: bool = False,
    ) -> None:
        super().__init__()
        check_choice("Wiring", "kind", kind, KINDS)
        check_seed("Wiring", "seed", seed, 63)
        check_seed("Wiring", "layer", layer, 32)
        check_counts("Wiring", {"n_sources": n_sources, "n_destinations": n_destinations})
        self.n_sources, self.n_destinations, self.kind, self.compat = n_sources, n_destinations, kind, compat
        self.seed, self.layer = seed, layer
        shape = (n_destinations, n_sources)
        if usable is not None:
            _check_shape("usable", usable, shape)
        self.asked = density
        self.hint: Tensor | None = None  # the selection made last, where the next search begins
        self.passes: dict[int, Tensor | int] = {}  # the steps that forwards drew by, for their recomputation
        self._memo = Memo()  # the effective weight and the factor of its gradient
        if chosen is not None and kind not in WITH_EDGES:
            raise ValueError(f"Wiring: expected no chosen edges for kind {kind!r}, got some; they are for {WITH_EDGES}")
        candidates = None if compat else usable
        self.prefixes = None if candidates is None else prefixes(candidates)
        self.weight = nn.Parameter(torch.empty(shape))
        usable = None if usable is None else usable.bool().to(self.weight.device)
        self.register_buffer("usable", usable, persistent=False)
        self.reset_parameters()
        if callable(chosen) and not isinstance(chosen, Tensor):
            chosen = chosen()
        if chosen is not None:
            _check_shape("chosen", chosen, shape)
            edges = int(chosen.count_nonzero())
            density = None
        self.edges = self.rule.budget(shape, density, edges, candidates)
        self.drop = drop_rate(kind, drop, self.density if self.asked is None else self.asked)
        if kind == "random" and chosen is None:
            pruned = math.prod(shape) - self.edges
            rows = original_random_edges(shape, pruned) if compat else None
            chosen = random_edges(shape, self.edges, candidates, seed, layer) if rows is None else rows
        self.register_buffer("chosen", None if chosen is None else chosen.bool().to(self.weight.device))
        if self.drop is not None:
            self.register_buffer("draw", torch.ones(1, dtype=torch.int64))
        self.forget()

    @property
    def rule(self) -> EdgeRule:
        """Which edges are kept and which learn."""
        return RULES[self.kind]

    @property
    def warm(self) -> Tensor | None:
        """The hint, where it can be used."""
        return self.hint if self.hint is not None and self.hint.device == self.weight.device else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights from torch's generator, as a 1x1 convolution's."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.candidates is not None:
            self.weight.mul_(self.candidates)
        self.forget()

    @property
    def candidates(self) -> Tensor | None:
        """The edges that may be kept, bool [n_destinations, n_sources]; None: all."""
        return None if self.compat else self.usable

    def forget(self) -> None:
        """Drop the effective weight made last, so that the next forward makes it again."""
        self._memo.forget()
        self._lists: dict[Blocks, EdgeLists | None] = {}

    def train(self, mode: bool = True) -> Wiring:
        if mode != self.training:
            self.forget()
        return super().train(mode)

    @torch.no_grad()
    def freeze(self, chosen: Tensor | None = None) -> None:
        """Fix the edges of a "fine_tune" wiring: these, or the k largest as they are now if none are fixed yet."""
        if self.kind != "fine_tune":
            raise ValueError(f"Wiring: expected kind 'fine_tune' to be frozen, got {self.kind!r}")
        if chosen is not None:
            _check_shape("chosen", chosen, tuple(self.weight.shape))
            self.chosen = chosen.to(self.weight.device, torch.bool)
            self.edges = int(chosen.count_nonzero())
            self.forget()
        self.mask()

    @torch.no_grad()
    def fix(self, chosen: Tensor, weight: Tensor) -> None:
        """Become a "fine_tune" wiring of these edges and weights: bool and float32 [n_destinations, n_sources]."""
        self.kind, self.drop = "fine_tune", None
        self.freeze(chosen)
        self.weight.copy_(weight)
        self.forget()

    @torch.no_grad()
    def eval_weight(self) -> Tensor:
        """The effective weight of evaluation, detached: [n_destinations, n_sources]."""
        return self._make()[0] if self.rule.drops and self.training else self._current(None)[0]

    @torch.no_grad()
    def mask(self) -> Tensor:
        """The kept edges, in evaluation: bool [n_destinations, n_sources]."""
        return self.rule.mask(self)

    @torch.no_grad()
    def running(self) -> Tensor:
        """The kept edges that the graph runs, bool: mask() without unusable ones, which only compat can keep."""
        return self.mask() if self.usable is None else self.mask() & self.usable

    @property
    def density(self) -> float:
        """The kept fraction of all positions."""
        return self.edges / self.weight.numel()

    def effective_weight(self, *, dropped: Tensor | None = None) -> Tensor:
        """The weight the graph runs: [n_destinations, n_sources], +0 where there is no edge; differentiable.

        dropped: bool, in training a targeted dropout's draw (True drops an edge that is not among the k largest).
        """
        return self._revealed(*self._current(dropped))

    def listed(self, *blocks: Blocks) -> tuple[Tensor, list[EdgeLists | None]]:
        """The effective weight and the lists of its edges: what a graph run block by block needs.

        Args:
            blocks: what the graph's sums read, of usable positions alone; one for each BlockSums of a forward.

        Returns:
            The effective weight, whose gradient is 0 anyway where no sum reads it; the lists for each of `blocks`, made
            once for an effective weight, too: None where sums are better dense (`hiddennet.nn.block_sums.edge_lists`).
        """
        values, factor = self._current(None)
        kept = self._memo.value is not None and values is self._memo.value[0]
        lists = self._lists if kept else {}
        for one in blocks:
            if one not in lists:
                lists[one] = None if self.kind == "complete" else edge_lists(values, one)
        if self.rule.through:
            factor = None
        return self._revealed(values, factor), [lists[one] for one in blocks]

    def _revealed(self, values: Tensor, factor: Tensor | None) -> Tensor:
        check_no_transform(self)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        return reveal(self.weight, values, factor) if learns else values

    @torch.no_grad()
    def _current(self, dropped: Tensor | None) -> tuple[Tensor, Tensor | None]:
        check_no_transform(self)
        if self.rule.drops and self.training:
            return self._dropped_out(dropped)
        if dropped is not None:
            raise ValueError("Wiring: expected a draw for a targeted dropout in training alone, got one elsewhere")
        if self.rule.given:
            self.mask()  # fixed by now
        of = (self.weight,) if self.chosen is None else (self.weight, self.chosen)
        if self._memo.current(*of):
            return self._memo.value
        made = self._make()
        if not torch.compiler.is_compiling():
            self._memo.keep(made, *of)
            self._lists = {}
        return made

    def _make(self) -> tuple[Tensor, Tensor | None]:
        return self.rule.weight(self)

    def _dropped_out(self, dropped: Tensor | None) -> tuple[Tensor, Tensor]:
        kept = self.mask()
        if dropped is None:
            step = recalled(self, self.draw)
            left = not_dropped(self.weight.detach(), kept, self.drop, seed=self.seed, layer=self.layer, step=step)
            if torch.compiler.is_compiling() or not in_backward():
                self.draw.add_(1)
        else:
            _check_shape("dropped", dropped, tuple(self.weight.shape))
            left = kept | ~dropped.bool()
        if self.candidates is not None:
            left &= self.candidates
        return taking_part(self, left)

    def forward(self, z: Tensor) -> Tensor:
        """Run all edges at once: z [batch, n_sources] or [batch, n_sources, H, W] to n_destinations channels."""
        if not isinstance(z, Tensor) or not z.is_floating_point() or z.is_nested:
            got = f"one of {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(f"Wiring: expected a dense tensor of floating point, got {got}")
        if z.dim() not in (2, 4) or z.shape[1] != self.n_sources:
            raise ValueError(
                f"Wiring: expected [batch, {self.n_sources}] or [batch, {self.n_sources}, H, W], got {tuple(z.shape)}"
            )
        weight = self.effective_weight()
        return F.linear(z, weight) if z.dim() == 2 else F.conv2d(z, weight[:, :, None, None])

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        if self.drop is not None:
            state_dict.setdefault(f"{prefix}draw", self.draw)  # older files drew from torch's generator
        saved = state_dict.get(f"{prefix}chosen")
        if self.kind == "fine_tune":  # frozen as the state dict is
            self.chosen = None if saved is None else torch.empty_like(self.weight, dtype=torch.bool)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if self.chosen is not None:
            self.edges = int(self.chosen.count_nonzero())
        self.forget()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_lists": {}, "hint": None}

    def extra_repr(self) -> str:
        counted = f"{self.n_sources}, {self.n_destinations}, kind={self.kind!r}, edges={self.edges}"
        return counted + (", compat=True" if self.compat else "")


def wirings(model: nn.Module) -> dict[str, Wiring]:
    """The wirings of a model by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Wiring)}
