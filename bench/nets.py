"""A network three times over, of the same weights and scores: hidden, dense, the original's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hiddennet as hn
from bench import originals
from bench.harness import same
from hiddennet import models, optim
from hiddennet.optim import optimizers

RATE = 1e-3  # small: a step costs the same, and the compared networks stay where they began


def _update(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()


@contextmanager
def library() -> Iterator[None]:
    """Every layer by torch, none by kernels of our own."""
    before = os.environ.get("HIDDENNET_PLANS")
    os.environ["HIDDENNET_PLANS"] = "fixed"
    try:
        yield
    finally:
        os.environ.pop("HIDDENNET_PLANS")
        if before is not None:
            os.environ["HIDDENNET_PLANS"] = before


@dataclass
class Trainee:
    """A model, its optimiser and its data, and how they take a step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    x: Tensor
    labels: Tensor
    cast: Callable[[], AbstractContextManager] = nullcontext
    update: Callable[[torch.optim.Optimizer], object] = _update
    library: bool = False  # whether torch computes everything: what hiddennet is held against

    def loss(self) -> Tensor:
        with self.cast():
            logits = self.model(self.x)
        return F.cross_entropy(logits.float(), self.labels)

    def step(self) -> None:
        """Forward, loss, gradients emptied, backward, update: in the order of every system here."""
        with library() if self.library else nullcontext():
            loss = self.loss()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.update(self.optimizer)


def hidden(name: str, device: torch.device, *, width: float = 1.0, seed: int = 0, density: float = 0.5) -> nn.Module:
    """Edge-popup as users get it: signed constants, ranked by magnitude."""
    torch.manual_seed(seed)
    model = models.build(name, num_classes=10, width=width, batch_norm="non_affine")
    source, rule = hn.Generated("signed_constant", seed=seed), hn.TopK(density)
    return hn.hide(model, source=source, rule=rule).to(device)


def masked(name: str, device: torch.device, density: float) -> nn.Module:
    """Weights that learn under a random mask that does not move: a pruned network in training."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=10, batch_norm="non_affine")
    source = hn.Stored(trainable=True)
    return hn.hide(model, source=source, rule=lambda _, layer: hn.Fixed(torch.rand_like(layer.weight) < density)).to(
        device
    )


@torch.no_grad()
def untie(model: nn.Module) -> None:
    """Move pruned scores that equal the lowest kept one below it.

    Which of the tied scores are kept is ours to say and was torch.sort's in the original; random
    float32 scores do tie, and one weight more or less is no rounding error.
    """
    hn.select(model)
    for layer in hidden_list(model):
        kept, magnitudes = layer.mask(), layer.scores.abs()
        tied = ~kept & (magnitudes == magnitudes[kept].min())
        layer.scores[tied] = torch.nextafter(layer.scores[tied], torch.zeros(()).to(kept.device))
    hn.refresh(model)


def dense_twin(model: nn.Module, name: str, device: torch.device) -> nn.Module:
    """The same network without hidden layers; its trained weights begin as the effective ones."""
    twin = models.build(name, num_classes=10, batch_norm="non_affine").to(device)
    hn.select(model)
    with torch.no_grad():
        for layer, plain in zip(hidden_list(model), weighted(twin), strict=True):
            plain.weight.copy_(layer.effective_weight())
    return twin


def original_twin(model: nn.Module, name: str, device: torch.device, layer: Callable[..., nn.Module]) -> nn.Module:
    """The original's network with this model's weights, scores and densities."""
    twin = originals.build(name, layer).to(device)
    with torch.no_grad():
        for mine, theirs in zip(hidden_list(model), weighted(twin), strict=True):
            weight = mine.source.state(mine).weight(device=device)
            theirs.weight.copy_(weight.view(theirs.weight.shape))
            theirs.scores.copy_(mine.scores.view(theirs.scores.shape))
            theirs.density = mine.rule.density
    return twin


def hidden_list(model: nn.Module) -> list:
    """The hidden layers in module order."""
    return list(hn.hidden_layers(model).values())


def weighted(model: nn.Module) -> list[nn.Module]:
    """The convolutions and linear layers in module order."""
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def data(name: str, batch: int, device: torch.device, *, channels_last: bool) -> tuple[Tensor, Tensor]:
    """A batch of random images of the network's size, and labels."""
    generator = torch.Generator().manual_seed(1)
    size = (1, 28, 28) if name == "fc" else (3, 32, 32)
    x = torch.randn((batch, *size), generator=generator).to(device)
    labels = torch.randint(10, (batch,), generator=generator).to(device)
    return (x.to(memory_format=torch.channels_last) if channels_last else x), labels


def sgd(model: nn.Module, *, default: bool = False) -> torch.optim.Optimizer:
    """SGD with momentum on what learns; fused, or torch's default as the originals have it."""
    learning = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(learning, RATE, momentum=0.9, weight_decay=1e-4, fused=None if default else True)


def one_pass(model: nn.Module) -> torch.optim.Optimizer:
    """The same of a hidden network: the scores' gradient, the step and all in one pass; sgd where none learn."""
    if not any(layer.scores is not None for layer in hidden_list(model)):
        return sgd(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    return optim.ScoreSGD(learning, RATE, momentum=0.9, weight_decay=1e-4, clamp=None)


def trainees(
    name: str,
    batch: int,
    device: torch.device,
    *,
    channels_last: bool,
    cast: Callable[[], AbstractContextManager] = nullcontext,
    model: nn.Module | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
) -> tuple[Trainee, Trainee]:
    """The hidden network and its dense twin, in one memory format.

    model: a hidden network of this name, in place of edge-popup's. optimizer: makes its optimiser, else one_pass does.
    """
    x, labels = data(name, batch, device, channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    mine = model
    if mine is None:
        mine = hidden(name, device)
    if any(layer.scores is not None for layer in hidden_list(mine)):
        untie(mine)
    twin = dense_twin(mine, name, device).to(memory_format=layout)
    mine = mine.to(memory_format=layout)
    hn.refresh(mine)
    return (
        Trainee(mine, (optimizer or one_pass)(mine), x, labels, cast, optimizers.step),
        Trainee(twin, sgd(twin), x, labels, cast, library=True),
    )


def original_trainee(
    mine: Trainee,
    name: str,
    *,
    layer: Callable[..., nn.Module] = originals.SortConv2d,
    cast: Callable[[], AbstractContextManager] = nullcontext,
    channels_last: bool = False,
) -> Trainee:
    """The original's network on the same batch. Its scores stay contiguous: its mask needs it."""
    twin = original_twin(mine.model, name, mine.x.device, layer)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = mine.x.contiguous(memory_format=layout)
    return Trainee(twin, sgd(twin, default=True), x, mine.labels, cast, library=True)


def saved_bytes(
    model: nn.Module, forward: Callable[[], Tensor], counts: Callable[[Tensor], bool] = lambda _: True
) -> int:
    """Bytes that autograd saves for the backward and that do not exist anyway, each storage once.

    counts: which saved tensors count; by default any.
    """
    existing = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive = []  # a freed address must not be counted for another tensor

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in existing and counts(tensor):
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(found.values())


def surrogate(layer) -> Tensor:
    """What a score's gradient is multiplied with beside the weight: its sign, its flag, or 1."""
    flags = layer.rule.prunable(layer)
    if flags is not None:
        return hn.ops.unpack_mask(flags, layer.weight_shape)
    scores = layer.scores.detach()
    return scores.sign() if layer.rule.by == "magnitude" else torch.ones_like(scores)


def check_dense(mine: Trainee, dense: Trainee, rtol: float) -> None:
    """Same loss; the scores' gradients are the dense ones times weight and surrogate."""
    losses, found = gradients(mine, dense)
    same("loss against dense", losses[0], losses[1], rtol=rtol)
    sides = (side.values() for side in found)
    for i, (layer, got, raw) in enumerate(zip(hidden_list(mine.model), *sides, strict=True)):
        weight = layer.source.state(layer).weight(device=raw.device)
        want = raw * weight * surrogate(layer)
        same(f"score gradient of layer {i} against dense", got, want, rtol=rtol)


def check_original(mine: Trainee, theirs: Trainee, rtol: float) -> None:
    """Same masks, loss and score gradients."""
    hn.select(mine.model)
    for i, (layer, other) in enumerate(zip(hidden_list(mine.model), weighted(theirs.model), strict=True)):
        want = other.mask().detach().bool()
        same(f"mask of layer {i}", layer.mask().flatten(), want.flatten())
    losses, found = gradients(mine, theirs)
    same("loss against the original", losses[0], losses[1], rtol=rtol)
    for i, got in found[0].items():
        same(f"score gradient of layer {i}", got.flatten(), found[1][i].flatten(), rtol=rtol)


def learning(model: nn.Module) -> dict[str, Tensor]:
    """What learns of the convolutions and linear layers: scores, or the stored weight of a layer without."""

    def of(layer: nn.Module) -> Tensor:
        scores = getattr(layer, "scores", None)
        return scores if scores is not None else getattr(layer, "stored", layer.weight)

    return {str(i): of(layer) for i, layer in enumerate(weighted(model))}


def gradients(
    *trainees: Trainee, of: Callable[[nn.Module], dict[str, Tensor]] = learning
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Each one's loss, and its gradients of the tensors that `of` names."""
    losses, found = [], []
    for trainee in trainees:
        loss, tensors = trainee.loss(), of(trainee.model)
        found.append(dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True)))
        losses.append(loss.detach())
    return losses, found
