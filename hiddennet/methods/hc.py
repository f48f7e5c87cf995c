"""hc: scores in [0, 1] are learned and rounded ("hypercube"); what Gem-Miner is without striking out.

Sreenivasan et al. 2022, "Rare Gems", arXiv 2202.12002, section 3.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet import ops, optim
from hiddennet.methods import regularizers
from hiddennet.methods.base import Init, Setting
from hiddennet.methods.layers import Patterns, dense_names, generated, learn, numbers
from hiddennet.methods.regularizers import Regularizer
from hiddennet.methods.search import FineTuneRecipe, Search, SearchSection
from hiddennet.methods.strike import strike_out
from hiddennet.models import prunable
from hiddennet.nn import Rounded, Stored, hidden_layers, hide, masks
from hiddennet.registry import register
from hiddennet.settings.section import Number

ScoreInit = Literal["uniform", "half", "bernoulli", "bimodal", "skew"]


class UnflagRecipe(FineTuneRecipe):
    """Keys of the fine-tuning after Gem-Miner."""

    unflag: bool = Field(
        True,
        description="keep all weights that were not struck out, also those whose score is rounded to 0: the density "
        "is then the one asked for",
    )


class HcSection(SearchSection):
    """method: learned scores in [0, 1], rounded, reveal frozen weights (hypercube; no striking out)."""

    sections: ClassVar[dict[str, object]] = {"fine_tune": UnflagRecipe}
    init: Init = Field("signed_constant", description="distribution of the weights, see hiddennet.ops.init_scale")
    weights: str | None = Field(
        None, description="frozen weights to search in, in place of drawn ones: a checkpoint, a run, torchvision:NAME"
    )
    drop_bottom_half: bool = Field(
        False, description="before the second epoch set the scores of the smaller half of all weights to 0, others to 1"
    )
    score_init: ScoreInit | Number = Field(
        "uniform",
        description="U(0, 1), 0.5, Bernoulli(1/2), Beta(0.1, 0.1), Beta(1, 5), or one number for all scores",
    )
    quantized: bool = Field(True, description="false: train with scores as they are, and round in evaluation only")
    threshold: Number = Field(0.5, ge=0.0, le=1.0, description="scores above it, strictly, are rounded to 1")
    learn_threshold: bool = Field(False, description="each layer learns its own threshold; experimental")
    threshold_sign: Literal["derivative", "original"] = Field(
        "derivative", description="sign of the threshold's gradient: minus the scores' sum, or plus, as the original's"
    )
    rounding: Literal["naive", "probabilistic", "all_ones"] = Field(
        "naive", description="by the threshold; to 1 with the score as probability; all to 1 (in evaluation)"
    )
    noise: Number = Field(0.0, ge=0.0, description="deviation of normal noise on scores before they are rounded")
    regularizer: Regularizer | None = Field(None, description="pulls scores to 0 or to both ends; null: none")
    regularizer_weight: Number = Field(0.0, ge=0.0, description="factor on the regulariser, the paper's lambda")
    alpha: Number = Field(1.0, gt=0.0, description="power of p in var_red_1")
    alpha_prime: Number = Field(1.0, gt=0.0, description="power of 1 - p in var_red_1")
    shortcuts: bool = Field(
        True, description="false: as the original, never strike out or count projections of ImageNet residual nets"
    )
    penalize_struck_out: bool = Field(
        False, description="as the original, let regulariser and momentum go on moving scores that were struck out"
    )
    fine_tune: UnflagRecipe | None = Field(
        None, description="train the weights of the sub-network afterwards, in a stage of its own; null: no"
    )
    exclude: Patterns

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if setting.optimizer.name not in ("sgd", "adam"):
            yield f"optimizer.name: expected sgd or adam for scores kept in [0, 1], got {setting.optimizer.name!r}"
        if (self.regularizer is None) != (self.regularizer_weight == 0.0):
            yield (
                "method.regularizer: expected a regularizer with a weight above 0, or neither, got "
                f"{self.regularizer!r} with regularizer_weight {self.regularizer_weight}"
            )
        if self.learn_threshold and (self.rounding != "naive" or self.noise or not self.quantized):
            yield "method.learn_threshold: expected quantized scores, naive rounding and no noise with it"


def score_filler(init: ScoreInit | float) -> Callable[[Tensor], None]:
    """A function that fills scores in place, from torch's generator."""

    @torch.no_grad()
    def fill(scores: Tensor) -> None:
        if init == "uniform":
            scores.uniform_()
        elif init == "bernoulli":
            scores.bernoulli_(0.5)
        elif init in ("bimodal", "skew"):
            a, b = (0.1, 0.1) if init == "bimodal" else (1.0, 5.0)
            scores.copy_(torch.distributions.Beta(a, b).sample(scores.shape))
        else:
            scores.fill_(0.5 if init == "half" else float(init))

    return fill


@register("method", "hc")
class Hc(Search):
    """min over p in [0, 1]^n of L(f(x; w * round(p) * q)) + lambda R(p); q are the flags of what is not struck out."""

    Section = HcSection

    def build(self, model: nn.Module) -> nn.Module:
        section, number = self.section, numbers(model)
        dense = dense_names(model, self.setting, section.exclude)
        self.start(model, dense)
        self.counted = [n for n in prunable(model, shortcuts=section.shortcuts) if n not in dense]

        def source(name: str, _: nn.Module):
            return Stored(layer=number[name]) if section.weights else generated(section, self.seed, number[name])

        rule = Rounded(
            section.threshold,
            quantized=section.quantized,
            rounding=section.rounding,
            noise=section.noise,
            seed=self.seed,
            learn_threshold=section.learn_threshold,
            threshold_gradient=1 if section.threshold_sign == "original" else -1,
        )
        fill = score_filler(section.score_init)
        hide(model, source=source, rule=rule, exclude=dense, score_init=fill)
        learn(model, batch_norm=False, dense=False)
        return model

    # the score step

    def optimizer(self, model: nn.Module, section: Any) -> torch.optim.Optimizer | None:
        layers = self.rounded(model)
        if not layers:  # fine-tuning
            return super().optimizer(model, section)
        own = self.section
        shared = {
            "lr": section.lr,
            "weight_decay": section.weight_decay,
            "clamp": (0.0, 1.0),
            **regularizers.factors(own.regularizer, own.regularizer_weight),
        }
        scores = [layer.scores for layer in layers.values()]
        groups: list[dict[str, Any]] = [{"params": scores}]
        if own.learn_threshold:
            thresholds = [layer.threshold for layer in layers.values()]
            groups.append({"params": thresholds, "weight_decay": 0.0, "l1": 0.0, "l2": 0.0})
        if section.name == "sgd":
            made = optim.ScoreSGD(groups, momentum=section.momentum, nesterov=section.nesterov, **shared)
        else:
            made = optim.ScoreAdam(groups, betas=tuple(section.betas), eps=section.eps, **shared)
        if not own.penalize_struck_out:
            made.set_flags({layer.scores: layer.flags for layer in layers.values()})
        if own.regularizer not in (None, *regularizers.FUSED):
            made.register_step_pre_hook(lambda *_: regularizers.add_gradient(*self._regularized(layers)))
        return made

    def rounded(self, model: nn.Module) -> dict[str, Any]:
        """The layers that are searched, by name; none while fine-tuning."""
        return {name: layer for name, layer in hidden_layers(model).items() if layer.scores is not None}

    def _regularized(self, layers: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments of regularizers.penalty."""
        own, scores, weights = self.section, [layer.scores for layer in layers.values()], None
        if own.regularizer == "var_red_2":
            weights = [layer.source_weight() for layer in layers.values()]
        return own.regularizer, own.regularizer_weight, scores, weights, own.alpha, own.alpha_prime

    def not_captured(self, model: nn.Module) -> str | None:
        noisy = self.section.noise and self.rounded(model)
        return "method.noise is drawn by a step's number, which the host counts" if noisy else None

    def before_forward(self, model: nn.Module, step: int) -> None:
        if self.section.noise:
            for layer in self.rounded(model).values():
                layer.rounding_step = step

    @torch.no_grad()
    def after_update(self, model: nn.Module, step: int) -> None:
        if self.section.learn_threshold:  # scores stay in [0, 2 threshold]
            for layer in self.rounded(model).values():
                layer.scores.clamp_(max=2 * layer.threshold)

    # what an epoch leaves

    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        if self.section.drop_bottom_half and epoch == 1:
            self._drop_bottom_half(self.rounded(model))
        return []

    @torch.no_grad()
    def _drop_bottom_half(self, layers: dict[str, Any]) -> None:
        chosen = [layer for name, layer in layers.items() if name in self.counted]
        weights = [layer.source_weight().contiguous() for layer in chosen]
        flags = [ops.unpack_mask(layer.flags, layer.weight_shape) for layer in chosen]
        threshold = strike_out(weights, flags, 0.5)
        for layer, weight in zip(chosen, weights, strict=True):
            layer.scores.copy_((weight.abs() > threshold).float())

    @torch.no_grad()
    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """Density by flags, beside the density by flags and rounding; both of each layer; the regulariser's value."""
        layers = self.rounded(model)
        if not layers:
            return {}
        sizes = {name: layer.weight_shape.numel() for name, layer in layers.items()}
        left = ops.count_flags([layer.flags for layer in layers.values()]).tolist()
        flagged = dict(zip(layers, left, strict=True))
        total = sum(sizes[name] for name in self.counted)
        found = {"flag_density": sum(flagged[name] for name in self.counted) / total}
        if self.section.regularizer is not None:
            found["regularizer"] = float(regularizers.penalty(*self._regularized(layers)))
        found |= {f"flag_density/{name}": flagged[name] / sizes[name] for name in layers}
        return found | {f"density/{name}": layer.density for name, layer in layers.items()}

    def density(self, model: nn.Module) -> float:
        layers = {name: layer for name, layer in hidden_layers(model).items() if name in self.counted}
        return sum(layer.kept() for layer in layers.values()) / sum(
            layer.weight_shape.numel() for layer in layers.values()
        )

    def found(self, model: nn.Module) -> dict[str, Tensor]:
        recipe = self.section.fine_tune
        if recipe is None or not recipe.unflag:
            return masks(model)
        return {name: ops.unpack_mask(m.flags, m.weight_shape) for name, m in self.rounded(model).items()}
