"""A training step of Peek-a-Boo with PSG, beside the same step with exact gradients and beside the original's sequence.

CIFAR ResNet-18, batch 32, random images: forward, cross-entropy, backward, Bop on the masked convolutions (3 of 10
weights are left) and SGD on the rest. All sides start from the same weights and masks and are shown equal first:
losses, and weight gradients as far as two codes next to each other allow. What autograd saves for the backward is
counted beside what it saves of a network without masks.

python -m bench.step_psg [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

import hiddennet as hn
from bench import nets, table
from bench.harness import same
from bench.originals_peek_a_boo import OriginalBop, OriginalPSGConv2d
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet import models
from hiddennet.ops import PSGConfig

DENSITY = 0.3
CONFIG = PSGConfig()  # the paper's: 8 bits, 16 bits, 1e-7 relative, sparsify
RATE, THRESHOLD = 1e-3, 1e-6  # Bop's
EXACT_BAR, ORIGINAL_BAR, SAVED_BAR = 1.1, 1.8, 1.02
RTOL = 1e-2  # of gradients: the original rounds codes and sums in float32


class Both:
    """Bop on masked convolutions, SGD on what else learns."""

    def __init__(self, model: nn.Module, *, original: bool = False):
        flips = [p for p in model.parameters() if p.dim() == 4]
        others = [p for p in model.parameters() if p.dim() != 4]
        self.params = [*flips, *others]
        self.bop = OriginalBop(flips, RATE, THRESHOLD) if original else hn.optim.Bop(flips, RATE, THRESHOLD)
        self.sgd = torch.optim.SGD(others, nets.RATE, momentum=0.9, fused=None if original else True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        self.bop.step()
        self.sgd.step()


def hidden_model(device: torch.device, name: str, layout: torch.memory_format) -> nn.Module:
    """Fixed masks over stored, trained weights of all convolutions."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=10)
    hn.hide(
        model,
        hn.Stored(trainable=True),
        lambda _, layer: hn.Fixed(torch.rand(layer.weight.shape) < DENSITY),
        include=lambda _, layer: isinstance(layer, nn.Conv2d),
    )
    return model.to(device, memory_format=layout)


def original_model(mine: nn.Module, name: str, device: torch.device) -> nn.Module:
    """The original's network with these weights and masks."""
    torch.manual_seed(0)
    twin = models.build(name, num_classes=10)
    twin.load_state_dict(mine.state_dict(), strict=False)
    layers = hn.hidden_layers(mine)
    for path, layer in layers.items():
        parent, _, child = path.rpartition(".")
        made = OriginalPSGConv2d(layer, layer.weight.detach(), layer.mask(), CONFIG, layer.input_signed)
        setattr(twin.get_submodule(parent), child, made)
    return twin.to(device)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {str(i): p for i, p in enumerate(p for p in model.parameters() if p.dim() == 4)}


def check(psg: nets.Trainee, exact: nets.Trainee, original: nets.Trainee) -> None:
    """Equal losses; PSG's weight gradients are the original's."""
    losses, found = nets.gradients(psg, exact, original, of=weights)
    same("loss against exact gradients", losses[0], losses[1], rtol=1e-5)
    same("loss against the original", losses[0], losses[2], rtol=1e-5)
    for i, got in found[0].items():
        same(f"weight gradient of layer {i} against the original", got, found[2][i], rtol=RTOL)


def cases(at: Setting) -> Iterator[Case]:
    torch.backends.cudnn.allow_tf32 = False
    name, batch = ("resnet20", 4) if at.quick else ("cifar_resnet18", 32)
    for layout in (torch.contiguous_format, torch.channels_last)[: 1 if at.quick else 2]:
        x, labels = nets.data(name, batch, at.device, channels_last=layout is torch.channels_last)
        exact_model = hidden_model(at.device, name, layout)
        psg_model = hn.psg(copy.deepcopy(exact_model), CONFIG)
        theirs = original_model(psg_model, name, at.device)
        psg, exact = (nets.Trainee(model, Both(model), x, labels) for model in (psg_model, exact_model))
        original = nets.Trainee(theirs, Both(theirs, original=True), x.contiguous(), labels)
        dense = nets.Trainee(models.build(name, num_classes=10).to(at.device), None, x, labels)
        saved, unmasked = [], nets.saved_bytes(dense.model, dense.loss)
        for side, trainee, bar in (("PSG", psg, SAVED_BAR), ("exact", exact, None), ("original", original, None)):
            more = nets.saved_bytes(trainee.model, trainee.loss) / unmasked
            saved.append(Value(f"{side}: saved for backward / no masks", more, "x", at_most=bar))
        yield Case(
            f"{name} b{batch}" + (" channels_last" if layout is torch.channels_last else ""),
            {"PSG": psg.step, "exact gradients": exact.step, "original PSG": original.step},
            partial(check, psg, exact, original),
            [
                Claim("PSG", "exact gradients", at_most=EXACT_BAR),
                Claim("original PSG", "PSG", at_least=ORIGINAL_BAR),
            ],
            values=lambda times, saved=saved: saved,
            effort=at.effort_of_steps(),
        )


def main() -> None:
    table.main("step_psg", Benchmark(cases, grad=True), __doc__)


if __name__ == "__main__":
    main()
