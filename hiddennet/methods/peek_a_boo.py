"""peek_a_boo: prune the random network, then learn only the signs of what is left, with Bop.

Chen et al. 2022, "Peek-a-Boo: What (More) is Disguised in a Randomly Weighted Neural Network, and How to Find It
Efficiently", ICLR 2022. Bop: Helwegen et al. 2019, arXiv 1906.02107, algorithm 2. The gradients may come from a
predictor of few bits (PSG: Wang et al. 2019, "E2-Train", arXiv 1910.13349).
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet import ops, optim
from hiddennet.methods.base import Init, Setting
from hiddennet.methods.layers import generated, learn, numbers
from hiddennet.methods.prune_at_init import PruneAtInit, PruneSection
from hiddennet.methods.subnet import Subnet
from hiddennet.models import peek_a_boo_layers
from hiddennet.nn import Activated, Flipped, Generated, Stored, hidden_layers, hide, psg
from hiddennet.optim import optimizers
from hiddennet.registry import register
from hiddennet.settings.section import Number, Positive, Section


class PsgSection(Section):
    """Keys of the predicted weight gradient."""

    input_bits: int = Field(8, description="bits of a layer's input in its weight gradient; 1 to 16, or 32: all")
    gradient_bits: int = Field(16, description="bits of the gradient at a layer's output; 1 to 16, or 32: all")
    threshold: Number = Field(1e-7, ge=0.0, description="entries of the predicted gradient below it are not used")
    threshold_mode: Literal["relative", "absolute"] = Field(
        "relative", description="relative: a fraction of the layer's largest predicted entry"
    )
    sparsify: bool = Field(True, description="what is not used is 0; false: it is replaced by the exact gradient")
    sign: bool = Field(False, description="only the gradient's sign is used; not with Bop, which needs magnitudes")
    signed: list[str] | None = Field(
        None, description="names or patterns of layers whose input may be negative; null: as the original has it"
    )

    @property
    def config(self) -> ops.PSGConfig:
        """As the ops take it."""
        return ops.PSGConfig(**{name: getattr(self, name) for name in type(self).model_fields if name != "signed"})


class PeekABooSection(PruneSection):
    """method: a pruner reveals some of the random weights; of those only the signs learn."""

    sections: ClassVar[dict[str, object]] = {"psg": PsgSection}
    init: Init = Field("kaiming_normal", description="distribution of the weights")
    learn: Literal["signs", "flipping", "pruning", "ternary"] = Field(
        "signs",
        description="signs: by Bop; the others: latent scores by the optimiser, by whose sign weights are flipped, "
        "pruned, or both",
    )
    layers: Literal["paper", "all"] = Field(
        "paper",
        description="paper: what the original prunes and flips of the network, which is all of one that it does not "
        "have; all: every layer that is not dense",
    )
    adaptivity_rate: Annotated[Number, Field(gt=0.0, lt=1.0)] = Field(
        1e-3, description="Bop: weight of a new gradient in the moving average"
    )
    flip_threshold: Number = Field(1e-6, ge=0.0, description="Bop: a sign flips where the average is at least this")
    adaptivity_decay: Number = Field(0.15, gt=0.0, le=1.0, description="factor on the adaptivity rate")
    adaptivity_interval: Positive | None = Field(45, description="epochs between two times of that; null: never")
    adaptivity_timing: Literal["after", "before"] = Field(
        "after", description="after epochs interval, 2 interval, ... or before them: one epoch earlier"
    )
    average_init: Literal["grad", "zero"] = Field(
        "grad", description="what the moving average starts from: the first gradient, as the original, or zero"
    )
    psg: PsgSection | None = Field(
        None, description="weight gradients from inputs and errors of few bits; null: exact gradients"
    )

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if self.psg is not None:
            try:
                _ = self.psg.config
            except ValueError as error:
                yield f"method.psg: {error}"
            if self.psg.sign and self.learn == "signs":
                yield (
                    "method.psg.sign: expected false with Bop, which weighs gradients by their magnitude: signs of +-1 "
                    "would be far above flip_threshold at every step, got true"
                )
        if setting.optimizer.clip_norm is not None and self.learn == "signs":
            yield (
                "optimizer.clip_norm: expected null with peek_a_boo, since Bop's gradients are not to be scaled, got "
                f"{setting.optimizer.clip_norm}"
            )


@register("method", "peek_a_boo")
class PeekABoo(PruneAtInit):
    """Masks as prune_at_init chooses them; convolutions learn their signs by Bop, all else by the optimiser."""

    Section = PeekABooSection

    bop: optim.Bop | None = None
    _flips_before: dict[str, int]

    def hide(self, model: nn.Module, dense: list[str], rule, subnet: Subnet | None) -> None:
        section, number, paper = self.section, numbers(model), peek_a_boo_layers(model)
        self.learned = paper.learned if section.layers == "paper" else list(number)
        given = {} if subnet is None else {name: model.get_submodule(name).weight.detach() for name in subnet.masks}

        def source(name: str, module: nn.Module) -> Flipped | Activated | Stored:
            drawn = generated(section, self.seed, number[name])
            if name not in self.learned:
                return Stored(trainable=True, layer=number[name])
            if name in given and not _is_drawn(module.weight, drawn, subnet.masks[name]):
                if section.learn != "signs":
                    raise ValueError(
                        f"method.subnet: expected the weights that the config's seed and init draw in layer {name}, "
                        f"which learn: {section.learn} starts from, got others; use the seed and init of that run"
                    )
                return Stored(trainable=True, layer=number[name])
            how = (drawn.init, drawn.seed, drawn.layer, drawn.mode, drawn.nonlinearity)
            return Flipped(*how) if section.learn == "signs" else Activated(*how, activation=section.learn)

        hide(model, source=source, rule=rule, exclude=dense)
        learn(model)
        for name, layer in hidden_layers(model).items():
            if name in given and layer.stored is not None:
                with torch.no_grad():  # the signs of what is given, where that is not 0
                    signed = torch.copysign(layer.stored, given[name])
                    layer.stored.copy_(torch.where(given[name] == 0, layer.stored, signed))
        if section.psg is not None:
            signed = paper.signed if section.psg.signed is None else section.psg.signed
            psg(model, section.psg.config, signed=signed, include=self.learned)

    def flipped(self, model: nn.Module) -> dict[str, Any]:
        """The layers whose signs are learned, by name."""
        return {name: layer for name, layer in hidden_layers(model).items() if name in self.learned}

    def optimizer(self, model: nn.Module, section: Any) -> torch.optim.Optimizer | None:
        if self.section.learn != "signs":
            return super().optimizer(model, section)

        own = self.section
        weights = [layer.stored for layer in self.flipped(model).values()]
        self.bop = optim.Bop(weights, own.adaptivity_rate, own.flip_threshold, init=own.average_init)
        rest = optimizers.build(model, section, without=weights)
        return self.bop if rest is None else optim.Several(self.bop, rest)

    def adaptivity_rate(self, epoch: int) -> float:
        """Bop's adaptivity rate in an epoch, from 0."""
        own, rate = self.section, self.section.adaptivity_rate
        if own.adaptivity_interval is not None:
            passed = epoch if own.adaptivity_timing == "after" else epoch + 1
            for _ in range(passed // own.adaptivity_interval):
                rate *= own.adaptivity_decay
        return rate

    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        notes = super().on_epoch_start(model, epoch)
        if self.bop is None:
            return notes
        for group in self.bop.param_groups:
            group["adaptivity_rate"] = self.adaptivity_rate(epoch)
        self._flips_before = self._total_flips(model)
        return notes

    def _total_flips(self, model: nn.Module) -> dict[str, int]:
        """Flips since the start of the run, by layer."""
        totals = self.bop.total_flips()
        return {name: int(totals.get(layer.stored, 0)) for name, layer in self.flipped(model).items()}

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        if self.bop is None:
            return {}
        totals = self._total_flips(model)
        flips = {name: total - self._flips_before.get(name, 0) for name, total in totals.items()}
        numbers = {f"flips/{name}": float(count) for name, count in flips.items()}
        return {"flips": float(sum(flips.values())), "adaptivity_rate": self.adaptivity_rate(epoch), **numbers}

    def state(self) -> dict[str, Any]:
        return {"flips_before": getattr(self, "_flips_before", {})}

    def restore(self, state: dict[str, Any]) -> None:
        self._flips_before = state["flips_before"]


def _is_drawn(weight: Tensor, drawn: Generated, mask: Tensor) -> bool:
    """Whether the revealed weights are those that the source gives, but for their signs."""
    how = {name: getattr(drawn, name) for name in ("seed", "layer", "mode", "nonlinearity")}
    own = ops.generate_weight(tuple(weight.shape), drawn.init, **how)
    return torch.equal(own.abs()[mask], weight.detach().abs()[mask])
