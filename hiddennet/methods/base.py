"""What a method is: a source of weights, a rule, what learns, and what happens between epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.section import Section
from hiddennet.nn import density, hidden_layers

if TYPE_CHECKING:
    from hiddennet.config import Config

Init = Literal[
    "signed_constant",
    "unsigned_constant",
    "kaiming_normal",
    "kaiming_uniform",
    "xavier_normal",
    "xavier_constant",
    "standard",
]
FAN_SCALED = ("signed_constant", "unsigned_constant", "kaiming_normal")


class MethodSection(Section):
    """Keys of every method."""

    title: ClassVar[str] = "method"

    def mistakes(self, config: Config) -> list[str]:
        """What only shows beside other keys of the config, one sentence each."""
        return []


class DrawnSection(MethodSection):
    """Keys of a method whose weights are drawn from the seed."""

    init: Init = Field("signed_constant", description="distribution of the weights, see hiddennet.ops.init_scale")
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="the fan that the weights' variance is divided by")
    nonlinearity: Literal["relu", "leaky_relu", "tanh", "sigmoid", "selu", "linear"] = Field(
        "relu", description="whose gain the weights are multiplied by"
    )

    def mistakes(self, config: Config) -> list[str]:
        found = super().mistakes(config)
        if getattr(self, "scale_fan", False) and self.init not in FAN_SCALED:
            found.append(f"method.scale_fan: expected an init of {', '.join(FAN_SCALED)} with it, got {self.init!r}")
        return found


class Method:
    """One way to find or train a network. Subclasses say what their paper says, and no more.

    A run calls `build` once, then `enter_stage(model, i)` before epoch `stages[i - 1]`, i = 1, 2,
    ...; a resumed run calls the stages it has behind it in one go and then loads the state. The
    engine makes a new optimiser for each stage, over the parameters that require gradients.
    """

    name: ClassVar[str]
    Section: ClassVar[type[MethodSection]]

    def __init__(self, config: Config):
        self.config = config
        self.section: Any = config.method
        self.seed = config.seed

    @property
    def stages(self) -> list[int]:
        """Epochs before which the network changes its make-up; 0 is not among them."""
        return []

    @property
    def notes(self) -> list[str]:
        """Sentences about what `build` decided, for the console and the run's record."""
        return []

    def build(self, model: nn.Module) -> nn.Module:
        """Make the plain model on the CPU into the method's, in place, and return it."""
        raise NotImplementedError

    def enter_stage(self, model: nn.Module, stage: int) -> None:
        """Change the model's make-up, in place."""

    def on_epoch_start(self, model: nn.Module, epoch: int) -> None:
        """Called before each epoch, after enter_stage."""

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after each optimiser step; `step` counts from 1 over the whole run."""

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """Return numbers to log; names without '/' become columns of metrics.csv."""
        return {}

    def density(self, model: nn.Module) -> float:
        """The revealed fraction of the hidden weights; 1 for a network that hides none."""
        return density(model) if hidden_layers(model) else 1.0
