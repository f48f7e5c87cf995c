"""HiddenState: how a layer becomes hidden, its first scores, what it saves and loads, its moves to another device or
type, and what it tells of its weights."""

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.memo import Memo
from hiddennet.nn.rule import Rule
from hiddennet.nn.source import Source
from hiddennet.ops.checks import check_choice

ScoreInit = str | float | Callable[[Tensor], object]


class HiddenState:
    """The part of a hidden layer that no step runs through."""

    source: Source
    rule: Rule
    selection: Tensor
    plain_names: frozenset[str]
    weight_shape: torch.Size
    scores: nn.Parameter | None
    _sealed: bool

    def become_hidden(self, source: Source, rule: Rule, score_init: ScoreInit, *, fresh: bool) -> None:
        """Take source and rule in place of the plain layer's weight, whose values are undefined where it is `fresh`."""
        for role, part, kind in (("source", source, Source), ("rule", rule, Rule)):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{type(self).__name__}: expected {role} to be a hiddennet.nn.{kind.__name__}, such as "
                    f"{'Generated() or Stored()' if kind is Source else 'TopK(0.5)'}, got {type(part).__name__}"
                )
        own, theirs = self._parameters["weight"], frozenset(vars(self))
        self.plain_names = frozenset((*self._parameters, *self._buffers)) - {"weight"}
        self.weight_shape = own.shape
        self.register_buffer("selection", torch.zeros(4, dtype=torch.int32, device=own.device), persistent=False)
        self._selected, self._kept = Memo(), Memo()  # the mask, and the weight of evaluation, see kept.py
        self._drawn, self._parts = Memo(), Memo()  # what the source said last, and the weight made of that
        self._rule_selected: Rule | None = None
        self._in_pass = False  # within a forward of the whole network, which has selected for all layers
        self.passes: dict[int, Tensor | int] = {}  # the steps that forwards drew by, for their recomputation
        self._read = False  # whether the weight was read in a forward, without a forward of the layer
        self.rule = rule
        self.rule = rule.attach(self)
        self.source = source
        self.source = source.attach(self, fresh)
        self.register_parameter("scores", None)
        if rule.has_scores:
            self.scores = nn.Parameter(torch.empty(self.weight_shape, dtype=torch.float32, device=own.device))
            self.reset_scores(score_init)
        elif rule.selects and rule.ranked(self) is None:
            raise ValueError(
                f"{type(self).__name__}: expected a source that stores its weights, such as Stored(), for {rule}, "
                f"got {source}"
            )
        self._sealed = True
        self._ours = frozenset(vars(self)) - theirs

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's; a weight is taken where the source stores weights."""
        if name == "weight" and self._sealed and param is not None and self.stored is None:
            raise RuntimeError(
                f"{type(self).__name__}: expected no weight to be set, since {self.source.kind} weights are made by "
                "their source, got one; put a plain layer in its place"
            )
        super().register_parameter(name, param)

    def reset_parameters(self) -> None:
        """Called by torch's constructor, as the weight is made later, from the source; refused from then on."""
        if self._sealed:
            raise RuntimeError(
                f"{type(self).__name__}: expected no reset_parameters(), since weights are their source's, got a call; "
                "draw scores with layer.reset_scores(), or make the model anew and hide() it"
            )

    @property
    def _score_bound(self) -> float:
        return 1 / math.sqrt(max(1, math.prod(self.weight_shape[1:])))

    def _reset_bias(self) -> None:
        if self.bias is not None:
            nn.init.uniform_(self.bias, -self._score_bound, self._score_bound)

    @torch.no_grad()
    def reset_scores(self, init: ScoreInit = "kaiming_uniform") -> None:
        """Draw the scores from torch's generator: U(+-1/sqrt(fan_in)) (edge-popup), one constant, or by a function
        that fills the tensor it is given."""
        if callable(init):
            init(self.scores)
            return
        if isinstance(init, (int, float)) and not isinstance(init, bool):
            self.scores.fill_(float(init))
            return
        check_choice("reset_scores", "score_init", init, ("kaiming_uniform",))
        nn.init.uniform_(self.scores, -self._score_bound, self._score_bound)

    def spec(self) -> dict:
        """Source and rule as a plain dict."""
        return {"source": self.source.spec(), "rule": self.rule.spec()}

    def extra_repr(self) -> str:
        source = getattr(self.source, "init", self.source.kind)
        return f"{super().extra_repr()}, source={source}, rule={self.rule.spec()}"

    def get_extra_state(self) -> Tensor:
        """spec() as JSON, in uint8: a tensor, as whoever saves, averages or ships state dicts expects."""
        return torch.tensor(list(json.dumps(self.spec()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor | dict) -> None:
        """Raises ValueError for the state of another source or rule. state: older files have a dict."""
        if isinstance(state, Tensor):
            state = json.loads(bytes(state.to(torch.uint8).cpu().tolist()))
        mine = self.spec()
        for part in ("source", "rule"):
            for name, value in state[part].items():
                if mine[part].get(name) != value:
                    raise ValueError(
                        f"{type(self).__name__}: expected a state dict with {part} {name}={mine[part].get(name)!r}, "
                        f"got {value!r}; hide() the model with the source and rule it was saved with"
                    )
        self.forget()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args, **kwargs) -> None:
        self.source.load(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        held = next((t for t in (*self._parameters.values(), *self._buffers.values()) if t is not None), None)
        if self.selection.is_meta and held is not None and not held.is_meta:  # assigned to a model on meta
            self._remake(held.device)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self.source.save(self, destination, prefix)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        """As torch's, but that own numbers stay float32; what a model on meta had no memory for is made."""
        was_meta = self.selection.is_meta
        plain = [self._parameters.get(name, self._buffers.get(name)) for name in self.plain_names]
        theirs = [t for t in plain if t is not None]
        theirs += [t.grad for t in theirs if t.grad is not None]

        def applied(t: Tensor) -> Tensor:
            out = fn(t)
            return out if out.dtype == t.dtype or any(t is other for other in theirs) else t.to(out.device)

        super()._apply(applied, recurse)
        if was_meta and not self.selection.is_meta:
            self._remake(self.selection.device)
        return self

    def _remake(self, device: torch.device) -> None:
        """Make what no state dict holds, on a device, for the first time."""
        self.selection = torch.zeros(4, dtype=torch.int32, device=device)
        self.forget()
        self.rule.remake(self)
        self.source.remake(self)

    @torch.no_grad()
    def source_weight(self) -> Tensor:
        """All weights of the source, kept or not: float32 of the weight's shape."""
        return ops.masked_weight(None, ops.Mask("all", self.selection), source=self.source.state(self))

    @torch.no_grad()
    def mask(self) -> Tensor:
        """What is kept: bool of the weight's shape. A layer that draws or rounds gives its mask of evaluation."""
        return self.source.narrow(self, self.rule.mask(self))

    def kept(self) -> float:
        """How many weights are kept; for a sampled layer the expected number."""
        return self.rule.kept(self)

    @property
    def k(self) -> int | None:
        """How many weights the rule keeps whatever the scores; None where that depends on them."""
        return self.rule.k(self)

    @property
    def density(self) -> float:
        """The kept fraction of the weights."""
        return self.kept() / max(1, self.weight_shape.numel())
