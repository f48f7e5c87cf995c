"""dnw: the edges of a graph of channels are learned, or not, as "Discovering Neural Wirings" compares it.

Wortsman, Farhadi and Rastegari 2019 (arXiv 1906.00586): the top edges run, the gradient goes to all of them. Beside it
random, fixed and targeted-dropout graphs, and a complete graph whose largest edges are trained further.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet import analysis, models, ops
from hiddennet.methods.base import Method, MethodSection, Setting
from hiddennet.methods.weights import read_weights
from hiddennet.models import dnw
from hiddennet.nn import Wiring, wirings
from hiddennet.nn.edge_rules import largest
from hiddennet.registry import register
from hiddennet.settings.recipe import Recipe, TrainStage
from hiddennet.settings.section import Density, Number

Kind = Literal[
    "dnw", "random", "dnw_no_update", "complete", "fine_tune", "targeted_dropout", "regular_targeted_dropout"
]
_DROPOUTS = ("targeted_dropout", "regular_targeted_dropout")


class DnwRecipe(Recipe):
    """Keys of the training that follows on the largest edges found."""


class DnwSection(MethodSection):
    """method: a graph network learns which of its edges it keeps."""

    sections: ClassVar[dict[str, object]] = {"fine_tune": DnwRecipe}
    kind: Kind = Field("dnw", description="which edges are kept and which learn, see hiddennet.nn.Wiring")
    density: Density | None = Field(
        None,
        description="kept edges as a fraction of all source x destination positions; null: the network's own "
        "(small graphs 0.05, dnw_mobilenet what a MobileNetV1 of model.width has)",
    )
    drop: Number | None = Field(
        None, ge=0.0, le=1.0, description="of the targeted dropouts: probability; null: 1 - density"
    )
    compat: bool = Field(False, description="the original's edges and quirks, see hiddennet.nn.Wiring and the networks")
    graph_from: str | None = Field(
        None, description="for kind fine_tune: a run, artifact or checkpoint whose largest weights are the edges"
    )
    weights: Literal["found", "drawn"] = Field(
        "found", description="start from the weights of graph_from, or from those the seed draws (lottery ticket)"
    )
    fine_tune: DnwRecipe | None = Field(
        None, description="then fix the largest edges and train them on, in a stage of its own; null: no"
    )
    rewind: bool = Field(False, description="fine_tune starts from the weights as drawn: a one-shot lottery ticket")

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if setting.model not in models.GRAPHS:
            yield (
                f"model.name: expected one of {', '.join(models.GRAPHS)} with dnw, got {setting.model!r}; for "
                "other networks see magnitude_topk"
            )
        elif self.density is not None and "density" not in dnw.graph_keys(setting.model):
            yield f"method.density: expected null with {setting.model}, got {self.density}; set model.width"
        if self.drop is not None and self.kind not in _DROPOUTS:
            yield f"method.drop: expected null with kind {self.kind}, got {self.drop}; it is for {_DROPOUTS}"
        if (self.graph_from is not None) != (self.kind == "fine_tune"):
            got = f"{self.graph_from!r} with {self.kind}"
            yield f"method.graph_from: expected it exactly with kind fine_tune, got {got}"
        if self.weights == "drawn" and self.graph_from is None:
            yield "method.weights: expected graph_from with drawn, got none"
        if self.rewind and self.fine_tune is None:
            yield "method.rewind: expected fine_tune with it, got none"
        if self.fine_tune is not None:
            yield from self._fine_tune_mistakes(setting)

    def _fine_tune_mistakes(self, setting: Setting) -> Iterator[str]:
        yield from self.fine_tune.mistakes("method.fine_tune.", setting.epochs, setting.validation)
        if setting.epochs == 0:
            yield "method.fine_tune: expected training of at least one epoch before it, got train.epochs 0"
        if self.kind in ("random", "fine_tune"):
            yield f"method.fine_tune: expected a kind whose edges are learned before it, got {self.kind!r}"


@register("method", "dnw")
class Dnw(Method):
    """A graph network of one kind of edges; then, if the config says so, its largest edges alone.

    All parameters are drawn from torch's generator with the run's seed, as the networks draw them.
    """

    Section = DnwSection
    takes_graphs = True

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self._before: dict[str, Tensor] = {}  # the masks of the epoch before, as bits

    @property
    def stages(self) -> list[TrainStage]:
        recipe, first = self.section.fine_tune, self.stage("train")
        return [first] if recipe is None else [first, recipe.stage("fine_tune", self.setting.epochs)]

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        found = self._made(model, section.kind)
        if section.graph_from is not None:
            self._start_from(found, section.graph_from)
        return found

    def _made(self, model: nn.Module, kind: str) -> nn.Module:
        """The network anew, as the seed draws it, over edges of this kind."""
        section = self.section
        changes: dict[str, Any] = {"kind": kind, "drop": section.drop if kind in _DROPOUTS else None}
        if section.density is not None:
            changes["density"] = section.density
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return dnw.rewired(model, seed=self.seed, compat=section.compat, **changes)

    @torch.no_grad()
    def _start_from(self, model: nn.Module, where: str) -> None:
        """Fix the edges, and take the weights if the config says so, of what was trained before."""
        state, own = read_weights(where, "method.graph_from", self.setting.open_run), model.state_dict()
        for key, value in own.items():
            if key not in state or state[key].shape != value.shape:
                got = f"shape {tuple(state[key].shape)}" if key in state else "none"
                raise ValueError(
                    f"method.graph_from: expected {key} of shape {tuple(value.shape)} in {where}, got {got}; "
                    "use the network that it was trained as"
                )
        for name, graph in wirings(model).items():
            known = int(state[f"{name}.weight"].count_nonzero())
            if known < graph.edges:  # an artifact holds no others
                raise ValueError(
                    f"method.graph_from: expected at least {graph.edges} edges of {name} in {where}, got {known}; "
                    "lower the density, or give the run, whose checkpoint has all weights"
                )
            graph.freeze(largest(state[f"{name}.weight"], graph.edges, graph.candidates))
        if self.section.weights == "found":
            for key, value in own.items():
                value.copy_(state[key])

    @torch.no_grad()
    def enter_stage(self, model: nn.Module, stage: int) -> None:
        """Keep the largest edges alone, of the weights as they are, or as drawn where the config rewinds."""
        drawn, rewind = self._made(model, "fine_tune").to(next(model.parameters()).device), self.section.rewind
        graphs, twins = wirings(model), wirings(drawn)
        found = {name: graph.weight.clone() for name, graph in graphs.items()}
        own = model.state_dict() if rewind else {}
        for key, value in drawn.state_dict().items():
            if key in own:
                own[key].copy_(value)
        for name, twin in twins.items():
            mask = largest(found[name], twin.edges, twin.candidates)
            twin.weight.copy_(graphs[name].weight)
            twin.freeze(mask)
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, twin.train(graphs[name].training))
        model.config, model.architecture = drawn.config, drawn.architecture
        self._before = _bits(twins)

    def remake(self, model: nn.Module, stage: int) -> None:
        before = self._before
        super().remake(model, stage)
        self._before = before

    def state(self) -> dict[str, Any]:
        """The masks of the epoch before, which its swaps are counted from."""
        return {"masks": self._before}

    def restore(self, state: dict[str, Any]) -> None:
        self._before = dict(state["masks"])

    def begin(self, model: nn.Module) -> list[str]:
        self._before = _bits(wirings(model))
        return []

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        graphs = wirings(model)
        now, swaps, found = _bits(graphs), 0, {}
        for name, bits in now.items():
            entered = ops.unpack_mask(bits & ~self._before.get(name, bits), graphs[name].weight.shape)
            found[f"wiring_swaps/{name}"] = count = int(entered.count_nonzero())
            swaps += count
        self._before = now
        running = sum(int(graph.running().count_nonzero()) for graph in graphs.values())
        dead = analysis.dead_nodes(model)
        return {"wiring_swaps": swaps, "wiring_running_edges": running, "wiring_dead_nodes": dead, **found}


def _bits(graphs: dict[str, Wiring]) -> dict[str, Tensor]:
    """The kept edges of each wiring, 1 bit a position, on the CPU."""
    return {name: ops.pack_mask(graph.mask()).cpu() for name, graph in graphs.items()}
