"""GraphStep: an engine's step as one CUDA graph: captured once, then a single launch, whatever the network.

What changes from step to step lies in tensors that the graph reads: images, labels, mixup's blends, and learning rates.
What methods change between steps (redraws, strikes, masks) they change in place, where the graph finds it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hiddennet.nn import refresh
from hiddennet.optim import ScoreAdam, deferred
from hiddennet.optim.several import Several
from hiddennet.train.mixup import Mixed
from hiddennet.train.scores import Meter, rank_of_label

WARM_UP = 5  # eager steps of a stage: optimisers have their state by then, libraries their workspaces
COUNTING = (torch.optim.Adam, torch.optim.AdamW, ScoreAdam)


class _Mixed:
    """A mixed batch whose share is a tensor; see Mixed."""

    def __init__(self, labels: Tensor) -> None:
        self.labels, self.partners, self.larger = (torch.empty_like(labels) for _ in range(3))
        self.share = torch.empty((), device=labels.device, dtype=torch.float64)  # 1 - share as a float's

    def load(self, mixed: Mixed) -> None:
        self.labels.copy_(mixed.labels)
        self.partners.copy_(mixed.partners)
        self.larger.copy_(mixed.larger)
        self.share.fill_(mixed.share)

    def mixed(self) -> Mixed:
        return Mixed(self.labels, self.partners, self.share, self.larger)


class _Counts:
    """A meter's place within the graph: what each part of a batch adds, as tensors that replays write."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor, int]] = []

    def add(self, loss_sum: Tensor, logits: Tensor, labels: Tensor) -> None:
        rank = rank_of_label(logits.detach(), labels)
        hits = torch.stack([(rank < 1).sum(), (rank < 5).sum()])
        self.parts.append((loss_sum.detach(), hits, labels.numel()))


class GraphStep:
    """The graph of one engine's stage.

    Attributes:
        reason: why steps run without a graph, in one sentence; None: they run as one after WARM_UP steps.

    Args:
        engine: a hiddennet.train.engine.Engine.
        replayed: makes a callable that repeats what it is given, and runs nothing itself; by default a CUDA graph.
    """

    def __init__(self, engine: Any, replayed: Callable[[Callable[[], None]], Callable[[], None]] | None = None):
        self.engine, self.replayed = engine, replayed or _captured
        self.reason = _reason(engine)
        self._steps, self._key, self._replay = 0, None, None
        self._rates: list[Tensor | None] = []
        self._rates_are: list[float | None] = []

    def step(self, images: Tensor, labels: Tensor, meter: Meter, batch_images: int, number: int) -> bool:
        """Take the step as a graph; False: it is to be taken without one. Arguments as of Engine.step."""
        engine = self.engine
        if self.reason is not None or deferred._whole or not engine.method.is_usual(number):
            return False
        self._steps += 1
        if self._steps <= WARM_UP or not engine.model.training:
            return False
        groups = engine.optimizer.param_groups
        sizes = images.shape, images.dtype, labels.shape, batch_images
        counted = _brackets(groups)
        for bracket, ranked in counted:
            bracket.check(ranked)
        key = sizes, [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]
        if key != self._key:
            if self._key is not None and sizes != self._key[0]:
                return False  # an epoch's last batch
            try:
                self._begin(images, labels, batch_images)
            except RuntimeError as error:
                self._give_up(error)
                return False
            self._key = key
        self._load(images, labels, number)
        self._replay()
        for loss_sum, hits, count in self._counts.parts:
            meter.take(loss_sum, hits, count)
        for group in groups:  # which no kernel of a replay does
            torch.autograd.graph.increment_version(group["params"])
        for bracket, ranked in counted:
            if bracket.counted:
                bracket.keep(ranked)
        return True

    def _begin(self, images: Tensor, labels: Tensor, batch_images: int) -> None:
        engine, groups = self.engine, self.engine.optimizer.param_groups
        self._images, self._labels = engine._layout(images).clone(), labels.clone()
        self._mixed = None if engine.mixup is None else _Mixed(labels)
        self._counts = _Counts()
        self._rates_are = _rates(groups)
        self._rates = [None if r is None else torch.full((), r, device=images.device) for r in self._rates_are]

        def step() -> None:
            self._counts.parts.clear()
            targets, rates = self._labels if self._mixed is None else self._mixed.mixed(), _rates(groups)
            _set_rates(groups, self._rates)
            try:
                engine.update(self._images, targets, self._counts, batch_images)
            finally:
                _set_rates(groups, rates)

        self._replay = self.replayed(step)

    def _give_up(self, error: RuntimeError) -> None:
        """Go on without a graph: a capture runs nothing, so that only what it left behind is dropped."""
        self.reason = f"the capture failed: {str(error).strip().partition(chr(10))[0]}"
        said = f"train.graph: expected a step that can be captured; {self.reason}; steps run one by one from now on"
        warnings.warn(said, stacklevel=2)
        self.engine.model.zero_grad(set_to_none=True)
        refresh(self.engine.model)

    def _load(self, images: Tensor, labels: Tensor, number: int) -> None:
        engine = self.engine
        if self._mixed is not None:
            images, mixed = engine.mixup(images, labels, number)
            self._mixed.load(mixed)
        self._images.copy_(images)
        self._labels.copy_(labels)
        for i, (tensor, rate) in enumerate(zip(self._rates, _rates(engine.optimizer.param_groups), strict=True)):
            if tensor is not None and rate != self._rates_are[i]:
                tensor.fill_(rate)
                self._rates_are[i] = rate


def _brackets(groups: list[dict[str, Any]]) -> list[tuple[Any, list[Tensor]]]:
    """Where steps count for the next selection, with the tensors they count of."""
    params = {id(p): p for group in groups for p in group["params"]}
    found = {id(b): b for b in (getattr(p, "bracket", None) for p in params.values()) if b is not None}
    return [(b, [params[one] for one in b.ids]) for b in found.values() if params.keys() >= set(b.ids)]


def _rates(groups: list[dict[str, Any]]) -> list[Any]:
    return [group.get("lr") for group in groups]


def _set_rates(groups: list[dict[str, Any]], rates: list[Any]) -> None:
    for group, rate in zip(groups, rates, strict=True):
        if rate is not None:
            group["lr"] = rate


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _optimizers(optimizer: Any) -> list[Any]:
    return list(optimizer.optimizers) if isinstance(optimizer, Several) else [optimizer]


def _reason(engine: Any) -> str | None:
    """Why this stage's step cannot be one graph, or None."""
    if engine.optimizer is None:
        return "nothing learns"
    if engine.ranks.world > 1:
        return "several processes share a batch"
    if engine.clip_norm is not None:
        return "optimizer.clip_norm is set, and gradients are shortened outside of the step"
    if hasattr(engine.model, "carried_state"):
        return "the network carries a state from batch to batch"
    for one in _optimizers(engine.optimizer):
        if isinstance(one, COUNTING):
            return f"{type(one).__name__} counts its steps on the host"
        if one._optimizer_step_pre_hooks or one._optimizer_step_post_hooks:
            return "a hook of the optimiser runs on the host at each step"
    return engine.method.not_captured(engine.model)
