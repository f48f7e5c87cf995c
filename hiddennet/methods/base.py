"""What a method is: a source of weights, a rule, what learns, and what happens between epochs."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from hiddennet.data import Data
from hiddennet.methods.setting import Ranks, Setting
from hiddennet.nn import density, hides
from hiddennet.ops.inits import fan_scaled, scales_fan
from hiddennet.optim import optimizers
from hiddennet.settings.recipe import TrainStage
from hiddennet.settings.section import NameOf, Section

Init = Annotated[str, NameOf("init")]


class MethodSection(Section):
    """Keys of every method."""

    name: str

    def mistakes(self, setting: Setting) -> Iterable[str]:
        """What only shows beside other keys of the config, one sentence each."""
        return ()


class DrawnSection(MethodSection):
    """Keys of a method whose weights are drawn from the seed."""

    init: Init = Field("signed_constant", description="distribution of the weights, see hiddennet.ops.init_scale")
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="the fan that the weights' variance is divided by")
    nonlinearity: Literal["relu", "leaky_relu", "tanh", "sigmoid", "selu", "linear"] = Field(
        "relu", description="whose gain the weights are multiplied by"
    )

    @property
    def variance(self) -> dict[str, str]:
        """The keys that the weights' variance hangs on, besides init."""
        return {"mode": self.mode, "nonlinearity": self.nonlinearity}

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if getattr(self, "scale_fan", False) and not scales_fan(self.init):
            yield f"method.scale_fan: expected an init of {', '.join(fan_scaled())} with it, got {self.init!r}"


class Method:
    """One way to find or train a network. Subclasses say what their paper says, and no more; each registers.

    A run calls `build` once, `begin` when it starts, then `enter_stage(model, i)` before the first epoch of stage i,
    i = 1, 2, ...; a resumed run calls `remake` in one go and then loads the state. Each stage has a new optimiser, over
    the parameters that require gradients.
    """

    Section: ClassVar[type[MethodSection]]
    takes_graphs: ClassVar[bool] = False  # whether it trains graph networks (models.GRAPHS)
    extends: ClassVar[bool] = True  # whether what it does in an epoch is the same however many follow

    def __init__(self, setting: Setting):
        self.setting, self.section, self.seed = setting, setting.method, setting.seed
        self.notes: list[str] = []  # about what `build` decided, for the console and the run's record
        # known once the data is there
        self.steps_per_epoch = 0
        self.data: Data | None = None
        self.ranks: Ranks | None = None

    @property
    def stages(self) -> list[TrainStage]:
        """The run's stages, in order; by default one that trains as the config says."""
        return [self.stage("train")]

    def stage(self, name: str, epochs: int | None = None, **clock: int) -> TrainStage:
        """A stage with the config's optimiser and schedule, by default of the config's epochs."""
        setting = self.setting
        return TrainStage(
            name, setting.epochs if epochs is None else epochs, setting.optimizer, setting.schedule, **clock
        )

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def build(self, model: nn.Module) -> nn.Module:
        """Make the plain model on the CPU into the method's, in place, and return it."""
        raise NotImplementedError

    def begin(self, model: nn.Module) -> list[str]:
        """Called once when a run starts, before its first step, the model on its device; not where a run is resumed.
        Returns sentences for the console."""
        return []

    def enter_stage(self, model: nn.Module, stage: int) -> None:
        """Change the model's make-up, in place."""

    def remake(self, model: nn.Module, stage: int) -> None:
        """Give the built model the make-up it has in `stage`, after `restore`; all values are loaded afterwards."""
        for earlier in range(1, stage + 1):
            self.enter_stage(model, earlier)

    def optimizer(self, model: nn.Module, section: Any) -> torch.optim.Optimizer | None:
        """The optimiser of a stage over what learns, as its section of the config says; None when nothing learns."""
        return optimizers.build(model, section)

    def state(self) -> dict[str, Any]:
        """What the method itself must keep with a network: plain values and tensors."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""

    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        """Called before each epoch, after enter_stage; returns sentences for the console."""
        return []

    # the hooks of a step; `step` counts over the whole run

    def before_forward(self, model: nn.Module, step: int) -> None:
        """Called before a step's first forward pass; `step`: the steps taken before it, from 0."""

    def is_usual(self, step: int) -> bool:
        """Whether the step of this number does what any other does, so that a captured one can stand for it."""
        return True

    def not_captured(self, model: nn.Module) -> str | None:
        """Why the steps of the stage at work cannot be one CUDA graph, in one sentence; None: they can.

        A method whose steps read numbers of the host, or whose before_update does, says so. What the other hooks change
        in place the graph sees.
        """
        own = type(self).before_update is not Method.before_update
        return f"{type(self).__name__}.before_update runs on the host at each step" if own else None

    def before_update(self, model: nn.Module, step: int) -> None:
        """Called between backward, of a batch in parts the last one, and the optimiser, where something learns.

        The gradients are those of the whole batch, over all ranks, not yet shortened to optimizer.clip_norm; they may
        be changed in place. `step` as in before_forward.
        """

    def after_update(self, model: nn.Module, step: int) -> None:
        """Called after the optimiser's step; `step`: the steps taken, this one too, from 1."""

    def before_evaluation(self, model: nn.Module, epoch: int) -> list[str]:
        """Called after an epoch's last step, before it is evaluated; returns sentences for the console."""
        return []

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """Return numbers to log; names without '/' become columns of metrics.csv."""
        return {}

    def is_result(self, epoch: int) -> bool:
        """Whether the network after this epoch may be the stage's result: has the density asked for, for one."""
        return True

    def density(self, model: nn.Module) -> float:
        """The revealed fraction of the hidden weights; 1 for a network that hides none."""
        return density(model) if hides(model) else 1.0
